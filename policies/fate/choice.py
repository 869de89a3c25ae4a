"""CP-SAT over candidates of the frontier that improve on the incumbent.

maximise   sum over candidates of gain x chosen
subject to at most as many candidates of a kind of stage as stages of that kind are ready
           at most one candidate on each device
           at most one candidate of each kind that is shared among devices
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from fate_gym.sim.layout import Array
from policies.fate.search import Candidates

RESOLUTION = 1e6
"""The largest gain, in the model's integers."""
Kind = tuple[int, int | bytes]
"""What stages with the same candidates have in common, see `kind_of`."""


def choose_candidates(
    found: Candidates,
    gains: NDArray[np.float64],
    count: int,
    stages: Array,
    seconds: Array,
    ready: Sequence[int],
    limit: float,
) -> list[tuple[int, int]] | None:
    """The chosen rows with a ready stage for each; None when the solver finds nothing in time.

    Args:
        found: candidates; the stage of a row stands for all ready stages of its kind.
        gains: (C,) what each row gains over the incumbent; rows of no gain are left out.
        count: rows that are filled.
        stages: (S,) the problem's stage records.
        seconds: (S, D) clean seconds; inf: the device cannot run the stage.
        ready: ready stages, by turn.
        limit: deterministic time.
    """
    rows = [row for row in range(count) if gains[row] > 0 and found.width[row] > 0]
    if not rows:
        return []
    waiting: dict[Kind, list[int]] = {}
    for stage in ready:
        waiting.setdefault(kind_of(stages, seconds, stage), []).append(stage)
    model = cp_model.CpModel()
    chosen = {row: model.new_bool_var("") for row in rows}
    kinds = {row: kind_of(stages, seconds, int(found.stage[row])) for row in rows}
    of_kind: dict[Kind, list[int]] = {}
    on_device: dict[int, list[int]] = {}
    for row in rows:
        of_kind.setdefault(kinds[row], []).append(row)
        for device in found.devices[row, : found.width[row]].tolist():
            on_device.setdefault(device, []).append(row)
    for kind, members in of_kind.items():
        if len(members) > len(waiting[kind]):
            model.add(sum(chosen[row] for row in members) <= len(waiting[kind]))
        shared = [chosen[row] for row in members if found.width[row] > 1]
        if len(shared) > 1:
            model.add_at_most_one(shared)
    for members in on_device.values():
        if len(members) > 1:
            model.add_at_most_one(chosen[row] for row in members)
    scale = RESOLUTION / max(float(gains[row]) for row in rows if np.isfinite(gains[row]))
    weights = [max(1, round(float(gains[row]) * scale)) for row in rows]
    model.maximize(cp_model.LinearExpr.weighted_sum([chosen[row] for row in rows], weights))
    best = max(rows, key=lambda row: float(gains[row]))
    for row in rows:
        model.add_hint(chosen[row], row == best)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    solver.parameters.cp_model_presolve = False
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    picked = []
    for row in rows:
        if not solver.boolean_value(chosen[row]):
            continue
        devices = found.devices[row, : found.width[row]]
        same = waiting[kinds[row]]
        # Stages of a kind may differ in what they need: not each fits where another does.
        fitting = [stage for stage in same if np.isfinite(seconds[stage, devices]).all()]
        if fitting:
            same.remove(fitting[0])
            picked.append((row, fitting[0]))
    return picked


def kind_of(stages: Array, seconds: Array, stage: int) -> Kind:
    """Model and prefix of a stage, or its seconds if it has no model.

    The kinds of which `policies.fate.search.list_candidates` takes one stage each.
    """
    model = int(stages["model"][stage])
    return model, seconds[stage].tobytes() if model < 0 else int(stages["prefix"][stage])
