"""Layout of a stage graph, and its critical path in a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fate_gym.lab.jobs.schedules import ShardRow

SWEEPS = 4
"""Passes over the columns that move stages towards their neighbours."""
_SAME = 1e-6  # seconds within which two times count as equal


class Places(NamedTuple):
    """The column of each stage, and its position in the column."""

    column: list[int]
    place: list[int]


def places(stages: int, edges: Sequence[tuple[int, int]]) -> Places:
    """Lay out stages in columns by longest path from a source, near their neighbours.

    The method of Sugiyama, Tagawa & Toda 1981 (barycentres) without dummy stages.
    """
    parents: list[list[int]] = [[] for _ in range(stages)]
    children: list[list[int]] = [[] for _ in range(stages)]
    for parent, child in edges:
        parents[child].append(parent)
        children[parent].append(child)
    column = _levels(parents, children)
    columns: list[list[int]] = [[] for _ in range(max(column, default=-1) + 1)]
    for stage, level in enumerate(column):
        columns[level].append(stage)
    place = [0.0] * stages
    for members in columns:
        _number(members, place)
    for sweep in range(SWEEPS):
        near, order = (parents, columns) if sweep % 2 == 0 else (children, columns[::-1])
        for members in order:
            middle = {s: _mean([place[n] for n in near[s]], place[s]) for s in members}
            members.sort(key=middle.__getitem__)
            _number(members, place)
    rank = [0] * stages
    for members in columns:
        for number, stage in enumerate(members):
            rank[stage] = number
    return Places(column, rank)


def _levels(parents: Sequence[Sequence[int]], children: Sequence[Sequence[int]]) -> list[int]:
    level = [0] * len(parents)
    missing = [len(found) for found in parents]
    open_stages = [stage for stage, count in enumerate(missing) if count == 0]
    while open_stages:
        stage = open_stages.pop()
        for child in children[stage]:
            level[child] = max(level[child], level[stage] + 1)
            missing[child] -= 1
            if missing[child] == 0:
                open_stages.append(child)
    return level


def _number(members: Sequence[int], place: list[float]) -> None:
    """Spread the stages of a column over 0 to 1."""
    for number, stage in enumerate(members):
        place[stage] = (number + 0.5) / len(members)


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


class Link(NamedTuple):
    """A stage of the critical path; ``waits_for_device``: held up by its device, not its inputs."""

    stage: int
    waits_for_device: bool


def critical_path(
    shards: Sequence[ShardRow], stage_of: Sequence[int], edges: Sequence[tuple[int, int]]
) -> list[Link]:
    """Find the stages that decided the end of a schedule, first to last.

    Going back from the last end: a shard that started later than its last input arrived was held
    up by its device, so the last shard that ended there before it is next; otherwise the parent
    that ended last is.

    Args:
        shards: the R shards of the schedule.
        stage_of: (R,) the stage of each shard.
        edges: pairs of parent and child.
    """
    of_stage: dict[int, list[int]] = {}
    on_device: dict[str, list[int]] = {}
    for row, stage in enumerate(stage_of):
        of_stage.setdefault(stage, []).append(row)
        on_device.setdefault(shards[row]["device"], []).append(row)
    ends = {stage: max(shards[row]["end"] for row in rows) for stage, rows in of_stage.items()}
    parents: dict[int, list[int]] = {}
    for parent, child in edges:
        if parent in ends:  # vanished stages have no shard
            parents.setdefault(child, []).append(parent)
    path: list[Link] = []
    stage = max(ends, key=lambda one: (ends[one], -one), default=-1)
    seen: set[int] = set()
    while stage >= 0 and stage not in seen:
        seen.add(stage)
        row = max(of_stage[stage], key=lambda one: shards[one]["end"])
        start, device = shards[row]["start"], shards[row]["device"]
        last = max(parents.get(stage, []), key=ends.__getitem__, default=-1)
        ready = ends[last] if last >= 0 else shards[row]["arrival"]
        before = [
            other
            for other in on_device[device]
            if stage_of[other] not in seen and shards[other]["end"] <= start + _SAME
        ]
        held = bool(device) and start > ready + _SAME and bool(before)
        path.append(Link(stage, held))
        stage = stage_of[max(before, key=lambda one: shards[one]["end"])] if held else last
    return path[::-1]
