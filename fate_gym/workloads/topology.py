"""Topologies: typed DAGs without attributes of execution."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Topology:
    """The DAG of one real workflow: tasks in topological order, each with a task type.

    ``edges`` is a read-only array ``(edges, 2)`` of (parent, child) task numbers, sorted by child
    and then parent; parents have smaller numbers than their children. ``duplicate_of`` names an
    earlier topology of the same family that is the same typed DAG. ``ids`` names the tasks; without
    it they are numbered within their type.
    """

    family: str
    name: str
    types: tuple[str, ...]  # (tasks,)
    edges: NDArray[np.int32]  # (edges, 2)
    duplicate_of: str | None = None
    ids: tuple[str, ...] | None = None  # (tasks,)

    @classmethod
    def of(
        cls,
        family: str,
        name: str,
        types: Sequence[str],
        edges: Iterable[tuple[int, int]],
        ids: tuple[str, ...] | None = None,
    ) -> Topology:
        """Return a topology from (parent, child) pairs in any order."""
        ordered = sorted(edges, key=lambda edge: (edge[1], edge[0]))
        array = np.array(ordered, dtype=np.int32).reshape(-1, 2)
        array.flags.writeable = False
        return cls(family, name, tuple(types), array, ids=ids)

    def __len__(self) -> int:
        return len(self.types)

    @cached_property
    def task_ids(self) -> tuple[str, ...]:
        """A name for each task: its type and its number within the type, e.g. ``cat_0``."""
        if self.ids is not None:
            return self.ids
        digits = {name: len(str(count - 1)) for name, count in Counter(self.types).items()}
        seen: Counter[str] = Counter()
        ids = []
        for name in self.types:
            ids.append(f"{name}_{seen[name]:0{digits[name]}d}")
            seen[name] += 1
        return tuple(ids)

    @cached_property
    def levels(self) -> NDArray[np.int32]:
        """Edges on the longest path from a source to each task, shape (tasks,)."""
        level = [0] * len(self)
        for parent, child in self.edges.tolist():
            level[child] = max(level[child], level[parent] + 1)
        return np.array(level, dtype=np.int32)

    @cached_property
    def type_names(self) -> tuple[str, ...]:
        """The distinct task types, those nearer to the sources first, then by name."""
        counts = Counter(self.types)
        total = dict.fromkeys(counts, 0)
        for name, level in zip(self.types, self.levels.tolist(), strict=True):
            total[name] += level
        return tuple(sorted(counts, key=lambda name: (total[name] / counts[name], name)))

    @cached_property
    def type_of(self) -> NDArray[np.int64]:
        """The position of each task's type in `type_names`, shape (tasks,)."""
        numbers = {name: number for number, name in enumerate(self.type_names)}
        return np.array([numbers[name] for name in self.types])

    @cached_property
    def fan_in(self) -> NDArray[np.int64]:
        """Parents of each task, shape (tasks,)."""
        return np.bincount(self.edges[:, 1], minlength=len(self))

    @cached_property
    def fan_out(self) -> NDArray[np.int64]:
        """Children of each task, shape (tasks,)."""
        return np.bincount(self.edges[:, 0], minlength=len(self))

    @property
    def depth(self) -> int:
        """Tasks on the longest path."""
        return int(self.levels.max()) + 1

    @property
    def width(self) -> int:
        """Tasks on the fullest level."""
        return int(np.bincount(self.levels).max())


def structural_hash(types: Sequence[str], edges: Sequence[tuple[int, int]]) -> str:
    """Return a hash of the typed DAG that does not depend on how its tasks are numbered.

    Equal for isomorphic DAGs. Labels start as task types and are refined by the labels of parents
    and of children until the partition is stable (Weisfeiler & Leman 1968).
    """
    parents: list[list[int]] = [[] for _ in types]
    children: list[list[int]] = [[] for _ in types]
    for parent, child in edges:
        parents[child].append(parent)
        children[parent].append(child)
    labels = [_digest(name) for name in types]
    classes = len(set(labels))
    while True:
        labels = [
            _digest(
                labels[task]
                + "<"
                + "".join(sorted(labels[parent] for parent in parents[task]))
                + ">"
                + "".join(sorted(labels[child] for child in children[task]))
            )
            for task in range(len(types))
        ]
        refined = len(set(labels))
        if refined == classes:
            return _digest("".join(sorted(labels)))
        classes = refined


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
