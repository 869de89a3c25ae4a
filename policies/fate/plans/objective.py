"""Objectives by which plans are compared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.errors import InputError, near_matches
from fate_gym.jit import inlined, kernel
from policies.fate.plans.schema import Context, Workspace

MAKESPAN, MEAN, TAIL, TARDINESS = 0, 1, 2, 3
"""The last end; the weighted sum of end - origin; the mean of the worst; the sum of those > 0."""
OBJECTIVES: dict[str, int] = {
    "makespan": MAKESPAN,
    "latency": MEAN,
    "slowdown": MEAN,
    "p95": TAIL,
    "deadlines": TARDINESS,
}
EQUAL = 1e-12
"""Relative difference below which two objective values count as equal."""
TAIL_SHARE = 0.05
"""Share of the workflows that ``TAIL`` averages over."""
SHORTEST = 1e-6
"""Least seconds of a workflow alone, as a divisor for slowdown."""


def check_objective(objective: str | None, owner: str) -> None:
    """Raise `InputError` for an unknown objective; None stands for the problem's."""
    if objective is not None and objective not in OBJECTIVES:
        raise InputError(
            f"unknown objective {objective!r}",
            item=f"policy {owner!r}",
            field="params.objective",
            remedy=near_matches(objective, OBJECTIVES),
        )


def set_weights(c: Context, objective: str, deadlines: NDArray[np.float64]) -> None:
    """Fill the origins from which workflows' ends are measured, and their weights.

    Args:
        c: the context; only workflows that it knows to be under way get a weight.
        objective: one of `OBJECTIVES`.
        deadlines: (w,) seconds after arrival of the first w workflows of ``c``; NaN: none.
    """
    workflows = c.work.workflows
    arrived_at = c.start.workflows["arrived_at"]
    # Workflows that have not arrived get no weight.
    workflows["origin"] = np.where(arrived_at < np.inf, arrived_at, 0.0)
    counted = workflows["known"] == 1
    weight = np.where(counted, 1.0 / max(1, counted.sum()), 0.0)
    if objective == "slowdown":
        weight /= np.maximum(workflows["alone"], SHORTEST)
    if objective == "deadlines":
        workflows["origin"][: deadlines.size] += np.nan_to_num(deadlines)
        weight[: deadlines.size] *= ~np.isnan(deadlines)
    workflows["weight"] = weight


@inlined
def objective_value(ws: Workspace, objective: int) -> float:
    """Compute the objective from the workflows' ends known so far: a lower bound."""
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
    """Mean of the worst latencies of all known workflows, plus 0.1 x the mean of those under way.

    The second term is there because a workflow outside the tail now may be in it later.
    """
    known = ws.past_count
    for i in range(known):
        ws.late[i] = ws.past[i]
    left, total = 0, 0.0
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
            left += 1
            total += late
    worst = max(1, int(np.ceil(TAIL_SHARE * (left + ws.ended_count))))
    value = 0.1 * total / max(1, left)
    for i in range(min(worst, known)):
        value += ws.late[i] / worst
    return value
