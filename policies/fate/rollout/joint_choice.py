"""CP-SAT over candidates of the frontier that improve on the best plan so far.

maximise   sum over candidates of gain x chosen
subject to at most as many candidates of a kind of stage as stages of that kind are ready
           at most one candidate on each device
           at most one candidate of each kind that spans several devices
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import ProblemArrays
from policies.fate.kinds import find_interchangeable

RESOLUTION = 1e6
"""Integer to which the largest gain is scaled in the model."""


def choose_candidates(
    p: ProblemArrays,
    found: Placements,
    gains: NDArray[np.float64],
    ready: Sequence[int],
    limit: float,
) -> list[tuple[int, int]] | None:
    """Choose rows, each with a ready stage; None if the solver finds nothing in time.

    Args:
        p: the problem.
        found: candidates; the stage of a row stands for all ready stages of its kind.
        gains: (C,) gain of each row over the best plan; rows without gain are left out.
        ready: ready stages in order.
        limit: CP-SAT's deterministic time limit.
    """
    widths = found.rows["width"][: found.count]
    rows = [row for row in range(found.count) if gains[row] > 0 and widths[row] > 0]
    if not rows:
        return []
    kinds = _kinds(p, found, found.rows["stage"][rows])
    waiting: dict[int, list[int]] = {}
    for stage, kind in zip(ready, _kinds(p, found, np.array(ready)), strict=True):
        waiting.setdefault(kind, []).append(stage)
    chosen = _solve(found, dict(zip(rows, kinds, strict=True)), waiting, gains, limit)
    if chosen is None:
        return None
    picked = []
    for row, kind in zip(rows, kinds, strict=True):
        if row not in chosen:
            continue
        devices = found.devices[row, : widths[row]]
        # Stages of a kind may differ in their needs, so a device need not suit all of them.
        fitting = [s for s in waiting[kind] if np.isfinite(p.clean_seconds[s, devices]).all()]
        if fitting:
            waiting[kind].remove(fitting[0])
            picked.append((row, fitting[0]))
    return picked


def _kinds(p: ProblemArrays, found: Placements, stages: NDArray[np.int64]) -> list[int]:
    """Identify each stage's kind by the first candidate row of that kind; -1: there is none."""
    kinds = np.empty(stages.size, np.int64)
    find_interchangeable(p, np.ascontiguousarray(stages, np.int64), found, kinds)
    return kinds.tolist()


def _solve(
    found: Placements,
    kinds: dict[int, int],
    waiting: dict[int, list[int]],
    gains: NDArray[np.float64],
    limit: float,
) -> set[int] | None:
    """Let CP-SAT choose among the rows in ``kinds``; None: it finds nothing in time."""
    model = cp_model.CpModel()
    chosen = {row: model.new_bool_var("") for row in kinds}
    of_kind: dict[int, list[int]] = {}
    on_device: dict[int, list[int]] = {}
    for row, kind in kinds.items():
        of_kind.setdefault(kind, []).append(row)
        for device in found.devices[row, : found.rows["width"][row]].tolist():
            on_device.setdefault(device, []).append(row)
    for kind, members in of_kind.items():
        if len(members) > len(waiting[kind]):
            model.add(sum(chosen[row] for row in members) <= len(waiting[kind]))
        shared = [chosen[row] for row in members if found.rows["width"][row] > 1]
        if len(shared) > 1:
            model.add_at_most_one(shared)
    for members in on_device.values():
        if len(members) > 1:
            model.add_at_most_one(chosen[row] for row in members)
    scale = RESOLUTION / max(float(gains[row]) for row in kinds if np.isfinite(gains[row]))
    weights = [max(1, round(float(gains[row]) * scale)) for row in kinds]
    model.maximize(cp_model.LinearExpr.weighted_sum(list(chosen.values()), weights))
    best = max(kinds, key=lambda row: float(gains[row]))
    for row, variable in chosen.items():
        model.add_hint(variable, row == best)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    solver.parameters.cp_model_presolve = False
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return {row for row, variable in chosen.items() if solver.boolean_value(variable)}
