"""CP-SAT over candidates: one stands for all of its kind, but only where each stage can run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fate_gym.kernel.placements import Placements, new_placements
from fate_gym.kernel.schema import ProblemArrays
from policies.fate.kinds import kind_numbers
from policies.fate.rollout.joint_choice import choose_candidates


def arrays(models: Sequence[int], seconds: Sequence[Sequence[float]]) -> ProblemArrays:
    """Return arrays of stages with these models and (S, D) clean seconds, without prefixes."""
    devices = len(seconds[0])
    p = ProblemArrays.allocate(S=len(models), D=devices, M=6, Q=0, W=1, A=1, T=0, E=0, O=0)
    p.stages["model"], p.stages["prefix"] = models, -1
    p.clean_seconds[:] = seconds
    return p


def first_stage_on(devices: Sequence[int]) -> Placements:
    """Return candidates of stage 0 on single devices."""
    found = new_placements(len(devices), 1)
    found.count = len(devices)
    found.rows["stage"], found.rows["width"] = 0, 1
    found.devices[:, 0] = devices
    return found


def test_a_stage_of_the_kind_that_cannot_run_there_is_passed_over() -> None:
    """Two stages of one model: the second needs the larger device."""
    p = arrays([5, 5], [[2.0, 1.0], [np.inf, 1.0]])
    found = first_stage_on([0, 1])
    gains = np.array([1.0, 1.0])
    for ready in ([0, 1], [1, 0]):
        rows = choose_candidates(p, found, gains, ready, 0.1)
        assert rows is not None
        assert len(rows) >= 1
        for row, stage in rows:
            assert np.isfinite(p.clean_seconds[stage, found.devices[row, 0]])


def test_stages_without_a_model_are_interchangeable_if_they_take_the_same_seconds() -> None:
    p = arrays([-1, -1, -1], [[1.0, 2.0], [5.0, np.inf], [1.0, 2.0]])
    rows = choose_candidates(p, first_stage_on([1]), np.array([1.0]), [1, 2, 0], 0.1)
    assert rows == [(0, 2)]


def test_kinds_are_models_and_prefixes() -> None:
    p = arrays([0, 0, 1, 0, -1, -1], np.ones((6, 1)).tolist())
    p.stages["prefix"] = [-1, 3, 3, 3, -1, -1]
    numbers = kind_numbers(p)
    assert numbers[1] == numbers[3]
    assert numbers[4] == numbers[5]
    assert sorted(set(numbers.tolist())) == [0, 1, 2, 3]
