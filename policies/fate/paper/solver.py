"""Part 3 of FATE: CP-SAT picks one placement for every stage of the frontier.

    minimise   T + share x mean over stages of the value of the candidate chosen
    subject to exactly one candidate of each stage
               T >= time at which device d is free + sum of its chosen busy times, for each d

Times are integers (milliseconds). With one worker, a fixed seed and a deterministic limit, the same
input gives the same choice on any machine. The hint is first improved stage by stage (`descend`);
the upper bound on T that follows from it halves the solver's time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from fate_gym.jit import IntMatrix, Ints, inlined, kernel
from fate_gym.kernel.placements import Placements

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MILLISECONDS = 1000.0
MOST = 10**9
"""Longest time in the model, milliseconds (a week and a half)."""
LAST_WEIGHT = 16
"""Weight of T in the integer objective, so that the mean resolves less than a millisecond."""


class Choice(NamedTuple):
    """The row chosen for each stage.

    Attributes:
        rows: (F,) candidate rows.
        solved: False: the solver found nothing within its limit; the rows are the improved hint.
        optimal: whether the choice is proven optimal.
    """

    rows: Integers
    solved: bool
    optimal: bool


def first_rows(candidates: Placements) -> Integers:
    """Return (F + 1,) the first row of each stage, then the row count; rows are in stage order."""
    stages = candidates.rows["stage"][: candidates.count]
    return np.flatnonzero(np.concatenate(([True], stages[1:] != stages[:-1], [True])))


def choose_placements(
    candidates: Placements, free: Floats, hint: Integers, *, share: float, limit: float
) -> Choice:
    """Choose a candidate for each of F stages.

    Args:
        candidates: grouped by stage, with value and busy seconds; unused devices are -1.
        free: (D,) seconds from now until each device is free.
        hint: (F,) the row of each stage to start from, e.g. that of a list schedule.
        share: weight of the mean candidate value against the time at which all devices are done.
        limit: deterministic time (CP-SAT's own unit, about a second).
    """
    count = candidates.count
    firsts = first_rows(candidates)
    stages = firsts.size - 1
    # Divided by the number of stages, so that the weight does not depend on the frontier's size.
    costs = _integers(candidates.rows["value"][:count] * share / stages * LAST_WEIGHT)
    devices = candidates.devices[:count]
    busy, ready = _integers(candidates.busy[:count]), _integers(free)
    used = np.unique(devices[devices >= 0])
    load = np.zeros_like(ready)
    load[used] = ready[used]
    start = hint.copy()
    value = descend(start, firsts, costs, devices, busy, load)
    cheapest = int(np.minimum.reduceat(costs, firsts[:-1]).sum())
    model = cp_model.CpModel()
    chosen = [model.new_bool_var("") for _ in range(count)]
    for stage in range(stages):
        model.add_exactly_one(chosen[firsts[stage] : firsts[stage + 1]])
    last = model.new_int_var(int(ready.min()), (value - cheapest) // LAST_WEIGHT, "")
    for device in used.tolist():
        rows, columns = np.nonzero(devices == device)
        time = cp_model.LinearExpr.weighted_sum(
            [chosen[row] for row in rows], busy[rows, columns].tolist()
        )
        model.add(last >= time + int(ready[device]))
    model.minimize(LAST_WEIGHT * last + cp_model.LinearExpr.weighted_sum(chosen, costs.tolist()))
    hinted = set(start.tolist())
    for row, variable in enumerate(chosen):
        model.add_hint(variable, row in hinted)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    solver.parameters.cp_model_presolve = False
    # The linear relaxation of a maximum is weak, and takes longer than the search it would save.
    solver.parameters.linearization_level = 0
    status = solver.solve(model)
    # With any other status the solver's values are meaningless.
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Choice(start, solved=False, optimal=False)
    picked = [row for row, variable in enumerate(chosen) if solver.boolean_value(variable)]
    return Choice(np.array(picked, np.int64), solved=True, optimal=status == cp_model.OPTIMAL)


@kernel
def descend(
    chosen: Ints, firsts: Ints, costs: Ints, devices: IntMatrix, busy: IntMatrix, load: Ints
) -> int:
    """Change one stage's candidate at a time while that lowers the objective; return it.

    Args:
        chosen: (F,) candidate of each stage; changed in place.
        firsts: (F + 1,) first candidate of each stage.
        costs: (C,) integer costs of candidates.
        devices: (C, K) device numbers, -1 where unused.
        busy: (C, K) integer busy times.
        load: (D,) integer times at which devices are free, 0 for those that no candidate uses;
            changed in place to the times at which they are done.
    """
    total = 0
    for stage in range(chosen.size):
        total += costs[chosen[stage]]
        _add(load, devices, busy, chosen[stage], 1)
    best = total + LAST_WEIGHT * _latest(load)
    better = True
    while better:
        better = False
        for stage in range(chosen.size):
            for row in range(firsts[stage], firsts[stage + 1]):
                old = chosen[stage]
                _add(load, devices, busy, old, -1)
                _add(load, devices, busy, row, 1)
                changed = total - costs[old] + costs[row]
                value = changed + LAST_WEIGHT * _latest(load)
                if value < best:
                    best, total, better = value, changed, True
                    chosen[stage] = row
                else:
                    _add(load, devices, busy, row, -1)
                    _add(load, devices, busy, old, 1)
    return best


@inlined
def _add(load: Ints, devices: IntMatrix, busy: IntMatrix, row: int, sign: int) -> None:
    for k in range(devices.shape[1]):
        if devices[row, k] >= 0:
            load[devices[row, k]] += sign * busy[row, k]


@inlined
def _latest(load: Ints) -> int:
    latest = 0
    for device in range(load.size):
        latest = max(latest, load[device])
    return latest


def _integers(seconds: Floats) -> Integers:
    return np.clip(np.rint(seconds * MILLISECONDS), 0, MOST // 64).astype(np.int64)
