"""Paths of the prefix tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fate_gym.kernel.schema import ProblemArrays


@dataclass(frozen=True)
class PrefixPaths:
    """The tree of Q prefix keys, as lists: they are read one by one.

    Attributes:
        parent: (Q,) key that each branches off, -1: it is a root.
        start: (Q,) tokens from the root at which it branches off.
    """

    parent: list[int]
    start: list[int]

    @classmethod
    def of(cls, p: ProblemArrays) -> PrefixPaths:
        """Those of a problem."""
        return cls(p.prefixes["parent"].tolist(), p.prefixes["start"].tolist())

    def to(self, key: int, tokens: int) -> Iterator[tuple[int, int, int]]:
        """The keys of a path of so many tokens, from its end to the root.

        With each key the part of the path that lies in it: from and up to so many tokens, counted
        from the root.
        """
        while key >= 0 and tokens > 0:
            start = self.start[key]
            if tokens > start:
                yield key, start, tokens
            tokens, key = min(tokens, start), self.parent[key]
