"""Part 3 of FATE: CP-SAT picks one placement for every stage of the frontier.

    minimise   T + share x sum over candidates of (end + later) x chosen
    subject to exactly one candidate of each stage
               T >= time at which device d is free + sum of its chosen busy times, for each d

Times are integers (milliseconds). One worker, a seed and a deterministic limit: the same input
gives the same plan on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MILLISECONDS = 1000.0
MOST = 10**9
"""Longest time in the model, milliseconds; a week and a half."""


@dataclass(frozen=True, slots=True)
class FrontierProblem:
    """What the solver sees. C candidates, F stages, D devices, K shards; seconds.

    Attributes:
        stage: (C,) position of the candidate's stage in the frontier, 0..F-1.
        cost: (C,) end + later.
        busy: (C, K) busy seconds on each device used.
        devices: (C, K) device numbers, -1 where unused.
        free: (D,) when each device is free, from now.
        hint: (F,) candidate of each stage that a list schedule would choose.
    """

    stage: Integers
    cost: Floats
    busy: Floats
    devices: Integers
    free: Floats
    hint: Integers


@dataclass(frozen=True, slots=True)
class Plan:
    """The chosen candidate of each stage, or none when the solver found nothing in its limit."""

    chosen: Integers | None
    optimal: bool


def solve(problem: FrontierProblem, *, share: float, limit: float) -> Plan:
    """Solve the frontier problem.

    Args:
        problem: candidates and device loads.
        share: weight of the mean candidate cost against the time at which all devices are done.
        limit: deterministic time (CP-SAT's own unit, about a second).
    """
    stages = int(problem.stage.max()) + 1
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in range(problem.stage.size)]
    of_stage: list[list[cp_model.IntVar]] = [[] for _ in range(stages)]
    for variable, stage in zip(chosen, problem.stage.tolist(), strict=True):
        of_stage[stage].append(variable)
    for variables in of_stage:
        model.add_exactly_one(variables)
    free = _integers(problem.free)
    last = model.new_int_var(int(free.min()), MOST, "")
    busy = _integers(problem.busy)
    for device, start in enumerate(free.tolist()):
        rows, columns = np.nonzero(problem.devices == device)
        if rows.size:
            load = cp_model.LinearExpr.weighted_sum(
                [chosen[row] for row in rows], busy[rows, columns].tolist()
            )
            model.add(last >= load + start)
    # The mean over stages: the weight does not depend on the size of the frontier.
    weights = _integers(problem.cost * share / stages * 16.0)
    model.minimize(16 * last + cp_model.LinearExpr.weighted_sum(chosen, weights.tolist()))
    hinted = set(problem.hint.tolist())
    for number, variable in enumerate(chosen):
        model.add_hint(variable, number in hinted)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    solver.parameters.cp_model_presolve = False
    solver.parameters.linearization_level = 2
    status = solver.solve(model)
    # After any other status the solver's values are garbage.
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Plan(None, optimal=False)
    picked = np.full(stages, -1, np.int64)
    for number, variable in enumerate(chosen):
        if solver.boolean_value(variable):
            picked[problem.stage[number]] = number
    return Plan(picked, optimal=status == cp_model.OPTIMAL)


def _integers(seconds: Floats) -> Integers:
    return np.clip(np.rint(seconds * MILLISECONDS), 0, MOST // 64).astype(np.int64)
