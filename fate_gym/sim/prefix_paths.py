"""Paths of the prefix tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fate_gym.kernel.schema import ProblemArrays


@dataclass(frozen=True)
class PrefixPaths:
    """The tree of Q prefix keys, as lists because they are read one element at a time.

    Attributes:
        parent: (Q,) key that each key branches off, -1: it is a root.
        start: (Q,) tokens from the root at which it branches off.
    """

    parent: list[int]
    start: list[int]

    @classmethod
    def of(cls, p: ProblemArrays) -> PrefixPaths:
        """Return the tree of a problem."""
        return cls(p.prefixes["parent"].tolist(), p.prefixes["start"].tolist())

    def to(self, key: int, tokens: int) -> Iterator[tuple[int, int, int]]:
        """Yield the keys of the path of ``tokens`` tokens of ``key``, from its end to the root.

        Each comes with the part of the path that lies in it: from and up to which token, counted
        from the root.
        """
        while key >= 0 and tokens > 0:
            start = self.start[key]
            if tokens > start:
                yield key, start, tokens
            tokens, key = min(tokens, start), self.parent[key]
