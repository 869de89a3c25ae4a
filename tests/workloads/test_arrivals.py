"""Arrival processes: means, burstiness, determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fate_gym.workloads import Arrivals, arrival_times
from fate_gym.workloads.arrivals import bursty, poisson

rates = st.floats(1e-3, 1e3)
seeds = st.integers(0, 2**32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def counts(times: np.ndarray[Any, Any], window: float) -> np.ndarray[Any, Any]:
    return np.bincount((times / window).astype(int))


@given(rates, seeds, st.integers(1, 50))
def test_times_ascend_and_repeat(rate: float, seed: int, count: int) -> None:
    for draw in (
        lambda: poisson(rng(seed), count, rate),
        lambda: bursty(rng(seed), count, rate, ratio=8.0, share=0.2, workflows=5.0),
    ):
        times = draw()
        assert times.shape == (count,)
        assert (np.diff(times) >= 0).all() and times[0] >= 0
        assert np.array_equal(times, draw())


@pytest.mark.parametrize("rate", [0.1, 20.0])
def test_mean_rates(rate: float) -> None:
    count = 200_000
    assert poisson(rng(), count, rate)[-1] == pytest.approx(count / rate, rel=0.02)
    times = bursty(rng(), count, rate, ratio=10.0, share=0.1, workflows=5.0)
    assert times[-1] == pytest.approx(count / rate, rel=0.03)


def test_bursts_are_over_dispersed_and_poisson_is_not() -> None:
    even = counts(poisson(rng(), 50_000, 1.0), 10.0)
    assert 0.9 < even.var() / even.mean() < 1.1
    uneven = counts(bursty(rng(), 50_000, 1.0, ratio=10.0, share=0.1, workflows=20.0), 10.0)
    assert uneven.var() / uneven.mean() > 3.0


def test_a_ratio_near_one_is_a_poisson_process() -> None:
    gaps = np.diff(bursty(rng(), 50_000, 1.0, ratio=1.0001, share=0.3, workflows=5.0))
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.03)


def test_rates_and_loads() -> None:
    by_rate = arrival_times(Arrivals(rate_per_s=3.0), rng(), 40, capacity_per_s=0.0)
    by_load = arrival_times(Arrivals(load=0.5), rng(), 40, capacity_per_s=6.0)
    assert np.array_equal(by_rate, by_load)
    at_once = arrival_times(Arrivals(process="at_once"), rng(), 4, capacity_per_s=1.0)
    assert at_once.tolist() == [0.0] * 4


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"load": 1.0, "rate_per_s": 1.0},
        {"process": "bursty"},
        {"load": 0.0},
        {"load": float("nan")},
        {"process": "given"},
        {"process": "given", "times": [2.0, 1.0]},
        {"process": "given", "times": [-1.0]},
        {"load": 1.0, "burst_share": 1.0},
        {"load": 1.0, "burst_ratio": 1.0},
    ],
)
def test_bad_arrivals(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Arrivals.model_validate(fields)
