"""Classical instances, and policies that replay given schedules, for the tests of policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fate_gym.problem import Problem
from fate_gym.sim import Assignment, DecisionView, Trace
from policies import policy_names

SMALL: dict[str, dict[str, Any]] = {
    "best_known": {"work": 20_000, "rounds": 1},
    "clairvoyant": {"work": 20_000},
    "oracle_cpsat": {"limit": 0.1},
    **{name: {"samples": 4} for name in policy_names() if name.startswith("fate")},
}
"""Budgets of references and of planners under uncertainty, sufficient for small problems."""


@dataclass(frozen=True)
class Published:
    """An example from a paper: seconds of each task on each machine, edges with their costs.

    Tasks are numbered from 1, as in the papers; so are machines.
    """

    seconds: tuple[tuple[int, ...], ...]
    edges: Mapping[tuple[int, int], int]

    @property
    def problem(self) -> Problem:
        return Problem.classical(
            {
                f"t{i}": {f"p{j}": float(cost) for j, cost in enumerate(row, 1)}
                for i, row in enumerate(self.seconds, 1)
            },
            {(f"t{a}", f"t{b}"): float(size) for (a, b), size in self.edges.items()},
        )


TOPCUOGLU = Published(
    seconds=(
        (14, 16, 9), (13, 19, 18), (11, 13, 19), (13, 8, 17), (12, 13, 10),
        (13, 16, 9), (7, 15, 11), (5, 11, 14), (18, 12, 20), (21, 7, 16),
    ),
    edges={
        (1, 2): 18, (1, 3): 12, (1, 4): 9, (1, 5): 11, (1, 6): 14, (2, 8): 19, (2, 9): 16,
        (3, 7): 23, (4, 8): 27, (4, 9): 23, (5, 9): 13, (6, 8): 15, (7, 10): 17, (8, 10): 11,
        (9, 10): 13,
    },
)  # fmt: skip
"""The example of Topcuoglu, Hariri & Wu 2002 (doi 10.1109/71.993206)."""

ARABNEJAD = Published(
    seconds=(
        (22, 21, 36), (22, 18, 18), (32, 27, 43), (7, 10, 4), (29, 27, 35),
        (26, 17, 24), (14, 25, 30), (29, 23, 36), (15, 21, 8), (13, 16, 33),
    ),
    edges={
        (1, 2): 17, (1, 3): 31, (1, 4): 29, (1, 5): 13, (1, 6): 7, (2, 8): 3, (2, 9): 30,
        (3, 7): 16, (4, 8): 11, (4, 9): 7, (5, 9): 57, (6, 8): 5, (7, 10): 9, (8, 10): 42,
        (9, 10): 7,
    },
)  # fmt: skip
"""The example of Arabnejad & Barbosa 2014 (doi 10.1109/TPDS.2013.57)."""

Gantt = list[list[tuple[int, float, float]]]
"""(task, begin, end) by machine, in order; begin is after the transfer."""


def gantt(trace: Trace) -> Gantt:
    """Return the Gantt chart of a run of a `Published` problem."""
    rows: Gantt = [[] for _ in trace.device_ids]
    for shard in trace.shards:
        begin = float(shard["end"] - shard["prefill_s"] - shard["decode_s"])
        rows[shard["device"]].append((int(shard["stage"]) + 1, begin, float(shard["end"])))
    return rows


class Replay:
    """Runs a given list of stages on each device, in that order."""

    name = "replay"

    def __init__(self, queues: Sequence[Sequence[int]]) -> None:
        self._given = [list(queue) for queue in queues]

    def reset(self, view: DecisionView, seed: int) -> None:
        self._left = [list(queue) for queue in self._given]

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        ready = set(view.ready)
        assignments = []
        for device, queue in enumerate(self._left):
            while queue and queue[0] in ready:
                assignments.append(Assignment(queue.pop(0), (device,)))
        return assignments


def plain_ranks(problem: Problem, slowness: float) -> np.ndarray:
    """Compute (S,) upward ranks of a classical problem by the paper's recursion, in Python.

    ``slowness`` is the mean of 1/bandwidth: seconds of communication for one byte.
    """
    (workflow,) = problem.workflows
    mean = {
        stage.id: float(np.mean(list((stage.seconds_on or {}).values())))
        for stage in workflow.stages
    }
    known: dict[str, float] = {}

    def rank(stage: str) -> float:
        if stage not in known:
            tails = [
                edge.bytes * slowness + rank(edge.child)
                for edge in workflow.edges
                if edge.parent == stage
            ]
            known[stage] = mean[stage] + max(tails, default=0.0)
        return known[stage]

    return np.array([rank(stage.id) for stage in workflow.stages])
