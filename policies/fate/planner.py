"""Part 3 of FATE: CP-SAT picks one placement for every stage of the frontier.

    minimise   T + share x mean over stages of (end + later) of the candidate chosen
    subject to exactly one candidate of each stage
               T >= time at which device d is free + sum of its chosen busy times, for each d

Times are integers (milliseconds). One worker, a seed and a deterministic limit: the same input
gives the same plan on any machine. The hint is improved stage by stage first (`descend`); that T
cannot be later than it allows halves the solver's time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from fate_gym.compiled import compiled
from fate_gym.sim.layout import Array

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MILLISECONDS = 1000.0
MOST = 10**9
"""Longest time in the model, milliseconds; a week and a half."""
LAST_WEIGHT = 16
"""Weight of T in the integer objective: finer than a millisecond for the mean."""


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
    # Weights of the mean over stages do not depend on the size of the frontier.
    costs = _integers(problem.cost * share / stages * LAST_WEIGHT)
    free, busy = _integers(problem.free), _integers(problem.busy)
    firsts = np.searchsorted(problem.stage, np.arange(stages + 1))
    start = problem.hint.copy()
    value = descend(start, firsts, costs, problem.devices, busy, free)
    cheapest = int(np.minimum.reduceat(costs, firsts[:-1]).sum())
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in range(problem.stage.size)]
    for stage in range(stages):
        model.add_exactly_one(chosen[firsts[stage] : firsts[stage + 1]])
    last = model.new_int_var(int(free.min()), (value - cheapest) // LAST_WEIGHT, "")
    for device in range(free.size):
        rows, columns = np.nonzero(problem.devices == device)
        if rows.size:
            load = cp_model.LinearExpr.weighted_sum(
                [chosen[row] for row in rows], busy[rows, columns].tolist()
            )
            model.add(last >= load + int(free[device]))
    model.minimize(LAST_WEIGHT * last + cp_model.LinearExpr.weighted_sum(chosen, costs.tolist()))
    hinted = set(start.tolist())
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


@compiled
def descend(
    chosen: Array, firsts: Array, costs: Array, devices: Array, busy: Array, free: Array
) -> int:
    """Change one stage's candidate at a time while the objective gets smaller; returns it.

    Args:
        chosen: (F,) candidate of each stage; changed in place.
        firsts: (F + 1,) first candidate of each stage.
        costs: (C,) integer costs of candidates.
        devices: (C, K) device numbers, -1 where unused.
        busy: (C, K) integer busy times.
        free: (D,) integer times at which devices are free.
    """
    used = np.zeros(free.size, np.bool_)
    load = free.copy()
    for row in range(devices.shape[0]):
        for k in range(devices.shape[1]):
            if devices[row, k] >= 0:
                used[devices[row, k]] = True
    total = 0
    for row in chosen:
        total += costs[row]
        _add(load, devices, busy, row, 1)
    best = total + LAST_WEIGHT * _latest(load, used)
    better = True
    while better:
        better = False
        for stage in range(chosen.size):
            for row in range(firsts[stage], firsts[stage + 1]):
                old = chosen[stage]
                _add(load, devices, busy, old, -1)
                _add(load, devices, busy, row, 1)
                changed = total - costs[old] + costs[row]
                value = changed + LAST_WEIGHT * _latest(load, used)
                if value < best:
                    best, total, better = value, changed, True
                    chosen[stage] = row
                else:
                    _add(load, devices, busy, row, -1)
                    _add(load, devices, busy, old, 1)
    return int(best)


@compiled
def _add(load: Array, devices: Array, busy: Array, row: int, sign: int) -> None:
    for k in range(devices.shape[1]):
        if devices[row, k] >= 0:
            load[devices[row, k]] += sign * busy[row, k]


@compiled
def _latest(load: Array, used: Array) -> int:
    latest = 0
    for device in range(load.size):
        if used[device]:
            latest = max(latest, load[device])
    return latest


def _integers(seconds: Floats) -> Integers:
    return np.clip(np.rint(seconds * MILLISECONDS), 0, MOST // 64).astype(np.int64)
