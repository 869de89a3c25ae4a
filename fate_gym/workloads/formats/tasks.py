"""Tasks as read from DAG formats, and the workflow that they make."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from fate_gym.catalog.limits import MOST_BYTES
from fate_gym.errors import InputError, check_known
from fate_gym.problem.faults import first_repeated
from fate_gym.problem.workflow import topological_generations
from fate_gym.workloads.topology import Topology

_NUMBERING = re.compile(r"(?:\d+(?:DI)?[_-]?)+")
"""For names read backwards, so that the match is anchored and never has to backtrack."""


@dataclass(frozen=True)
class Call:
    """The data that a file gives about a task's model call; None where it gives none."""

    model: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None

    @property
    def given(self) -> bool:
        """Whether the file gives any data."""
        return self != Call()


@dataclass(frozen=True, eq=False)
class ImportedDag:
    """An imported workflow: its DAG, and the file's data about files, seconds and calls.

    ``edge_bytes`` are the files that a parent writes and its child reads; ``seconds`` are 0 where
    the file gives none. These and ``calls`` are in the order of the topology.
    """

    topology: Topology
    edge_bytes: tuple[float, ...]  # (edges,)
    seconds: tuple[float, ...]  # (tasks,)
    calls: tuple[Call, ...]  # (tasks,)


@dataclass
class Task:
    """A task of a file: what all DAG formats have in common."""

    id: str
    kind: str
    item: str
    parents: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)
    writes: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    call: Call = Call()


def ordered(tasks: Sequence[Task], name: str) -> ImportedDag:
    """Return tasks as a DAG in topological order (Kahn 1962), ties in the order of the file."""
    if not tasks:
        raise InputError("there are no tasks", field="tasks", remedy="add tasks")
    by_id = by_id_of(tasks)
    edges: dict[tuple[str, str], None] = {}
    for task in tasks:
        for key, ends in (("parents", task.parents), ("children", task.children)):
            for end in ends:
                check_known("unknown task", end, by_id, item=task.item, field=key)
                edges[(end, task.id) if key == "parents" else (task.id, end)] = None
    order = [task for tasks in topological_generations(by_id, edges) for task in tasks]
    if len(order) < len(tasks):
        done = set(order)
        behind = [task for task in by_id if task not in done]
        raise InputError(
            "the dependencies form a cycle; tasks on or behind it: "
            + ", ".join(behind[:5])
            + (" …" if len(behind) > 5 else ""),
            item=f"task {behind[0]!r}",
            field="parents",
            remedy="remove a dependency of the cycle: a workflow is a DAG",
        )
    number = {task: place for place, task in enumerate(order)}
    in_order = [by_id[task] for task in order]
    topology = Topology.of(
        name,
        name,
        [task.kind for task in in_order],
        ((number[parent], number[child]) for parent, child in edges),
        ids=tuple(order),
    )
    moved = tuple(
        _moved(in_order[parent], in_order[child]) for parent, child in topology.edges.tolist()
    )
    return ImportedDag(
        topology,
        moved,
        tuple(task.seconds for task in in_order),
        tuple(task.call for task in in_order),
    )


def _moved(parent: Task, child: Task) -> float:
    """Return the bytes of the files that ``parent`` writes and ``child`` reads."""
    moved = sum((size for file, size in parent.writes.items() if file in child.reads), 0.0)
    if moved > MOST_BYTES:
        raise InputError(
            f"reads {moved:g} bytes of task {parent.id!r}, of {MOST_BYTES:g} at most",
            item=child.item,
            field="files",
            remedy="correct the sizes of the files",
        )
    return moved


def by_id_of(tasks: Sequence[Task]) -> dict[str, Task]:
    """Return the tasks by id. Raises `InputError` if an id occurs twice."""
    twice = first_repeated(task.id for task in tasks)
    if twice is not None:
        raise InputError(
            "the id occurs twice", item=f"task {twice!r}", field="id", remedy="make ids unique"
        )
    return {task.id: task for task in tasks}


def type_of(name: str) -> str:
    """Return a task's type from its name: ``sort_ID000012`` is a ``sort``."""
    numbering = _NUMBERING.match(name[::-1])
    return name[: -numbering.end()] or name if numbering else name
