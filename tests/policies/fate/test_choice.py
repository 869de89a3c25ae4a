"""CP-SAT over candidates: a candidate stands for its kind, but only where each stage can run."""

from __future__ import annotations

import numpy as np

from policies.fate.choice import choose_candidates
from policies.fate.search import make_candidates


def test_a_stage_of_the_kind_that_cannot_run_there_is_passed_over() -> None:
    """Two stages of one model: the second needs the larger device."""
    stages = np.array([(5, -1), (5, -1)], [("model", "i4"), ("prefix", "i4")])
    seconds = np.array([[2.0, 1.0], [np.inf, 1.0]])
    found = make_candidates(2, 1)
    found.stage[:], found.width[:] = 0, 1
    found.devices[:, 0] = [0, 1]
    gains = np.array([1.0, 1.0])
    for ready in ([0, 1], [1, 0]):
        rows = choose_candidates(found, gains, 2, stages, seconds, ready, 0.1)
        assert rows is not None
        assert len(rows) >= 1
        for row, stage in rows:
            assert np.isfinite(seconds[stage, found.devices[row, 0]])


def test_stages_without_a_model_are_of_a_kind_if_they_take_the_same_seconds() -> None:
    stages = np.array([(-1, -1)] * 3, [("model", "i4"), ("prefix", "i4")])
    seconds = np.array([[1.0, 2.0], [5.0, np.inf], [1.0, 2.0]])
    found = make_candidates(1, 1)
    found.stage[0], found.width[0], found.devices[0, 0] = 0, 1, 1
    rows = choose_candidates(found, np.array([1.0]), 1, stages, seconds, [1, 2, 0], 0.1)
    assert rows == [(0, 2)]
