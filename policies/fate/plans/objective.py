"""What plans are compared by."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fate_gym.errors import InputError, near_matches
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import StateArrays
from fate_gym.sim import CompiledProblem
from policies.fate.plans.schema import Workspace

Objective = Literal["makespan", "latency", "slowdown", "p95", "deadlines"]

MAKESPAN, MEAN, TAIL, TARDINESS = 0, 1, 2, 3
"""The last end; the weighted sums of (end - origin), of the worst of these, of those over 0."""
OBJECTIVES: dict[str, int] = {
    "makespan": MAKESPAN,
    "latency": MEAN,
    "slowdown": MEAN,
    "p95": TAIL,
    "deadlines": TARDINESS,
}
EQUAL = 1e-12
"""Relative difference under which two objectives are the same."""
TAIL_SHARE = 0.05
"""Share of the workflows that ``TAIL`` looks at."""
SHORTEST = 1e-6
"""Seconds: no workflow alone takes less, as far as slowdown goes."""


def check_objective(objective: str, owner: str) -> None:
    """Raises `InputError` for an objective that there is not."""
    if objective not in OBJECTIVES:
        raise InputError(
            f"unknown objective {objective!r}",
            item=f"policy {owner!r}",
            field="params.objective",
            remedy=near_matches(objective, OBJECTIVES),
        )


def set_origins(
    ws: Workspace, objective: str, compiled: CompiledProblem, state: StateArrays
) -> None:
    """Fill what the ends of workflows are counted from: their deadlines, or their arrivals."""
    arrived_at = state.workflows["arrived_at"]
    # Those that have not arrived have no weight.
    ws.workflows["origin"] = np.where(arrived_at < np.inf, arrived_at, 0.0)
    if objective == "deadlines":
        workflows = compiled.problem.workflows
        ws.workflows["origin"] += [w.deadline or 0.0 for w in workflows]


def set_weights(ws: Workspace, objective: str, compiled: CompiledProblem) -> None:
    """Fill the weights of workflows by which of them are known."""
    known = ws.workflows["known"]
    # The tail is one of all workflows; means are changed by those under way only.
    counted = known > 0 if objective == "p95" else known == 1
    weight = np.where(counted, 1.0 / max(1, counted.sum()), 0.0)
    if objective == "slowdown":
        weight = weight / np.maximum(ws.workflows["alone"], SHORTEST)
    if objective == "deadlines":
        weight = weight * [w.deadline is not None for w in compiled.problem.workflows]
    ws.workflows["weight"] = weight


@inlined
def objective_value(ws: Workspace, objective: int) -> float:
    """The objective by the workflows' ends as far as they are known: never too large."""
    value = 0.0
    if objective == TAIL:
        return _tail(ws)
    for w in range(ws.workflows.size):
        workflow = ws.workflows[w]
        if objective == MAKESPAN:
            value = max(value, workflow.end)
        elif objective == TARDINESS:
            value += workflow.weight * max(0.0, workflow.end - workflow.origin)
        else:
            value += workflow.weight * (workflow.end - workflow.origin)
    return value


@kernel
def _tail(ws: Workspace) -> float:
    known = 0
    for w in range(ws.workflows.size):
        workflow = ws.workflows[w]
        if workflow.weight > 0.0:
            late = workflow.end - workflow.origin
            i = known
            while i > 0 and ws.late[i - 1] < late:
                ws.late[i] = ws.late[i - 1]
                i -= 1
            ws.late[i] = late
            known += 1
    worst = max(1, int(np.ceil(TAIL_SHARE * known)))
    value = 0.0
    for i in range(known):
        # A little of all the others: what is not in the tail now may be so later.
        value += ws.late[i] * ((1.0 / worst if i < worst else 0.0) + 0.1 / known)
    return value
