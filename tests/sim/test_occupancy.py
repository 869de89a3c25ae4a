"""Steps, lanes and phases against the bars, one by one."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.sim.occupancy import in_service, lanes, occupancy, steps
from fate_gym.sim.phases import phases
from policies import make_policy
from tests.strategies import problems
from tests.validator.test_stepping import run

# Whole numbers make bars that touch.
BARS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 20), st.integers(0, 9), st.integers(1, 5)
    ), max_size=20,
)  # fmt: skip


def columns(bars: list[tuple[int, ...]]) -> tuple[Any, Any, Any, Any]:
    row, start, length, weight = np.array(bars, np.int64).reshape(-1, 4).T
    return row, start.astype(float), (start + length).astype(float), weight


@given(BARS)
def test_steps_count_what_lies_over_each_moment(bars: list[tuple[int, ...]]) -> None:
    _, start, end, weight = columns(bars)
    found = steps(start, end, weight)
    for time in np.arange(0.0, 31.0, 0.5):
        over = weight[(start <= time) & (time < end)].sum()
        place = np.searchsorted(found.times, time, side="right") - 1
        assert over == (found.values[place] if place >= 0 else 0)
    assert found.integral() == pytest.approx(((end - start) * weight).sum())
    covered = {t for first, last in zip(start, end, strict=True) for t in np.arange(first, last)}
    assert found.positive_seconds() == len(covered)


@given(BARS, st.integers(1, 7))
def test_means_keep_the_area(bars: list[tuple[int, ...]], parts: int) -> None:
    _, start, end, weight = columns(bars)
    found = steps(start, end, weight)
    edges = np.linspace(0.0, 30.0, parts + 1)
    means = found.means(edges)
    assert means.shape == (parts,)
    assert means.sum() * 30.0 / parts == pytest.approx(found.integral())


@given(BARS)
def test_lanes_keep_bars_apart_with_as_few_as_possible(bars: list[tuple[int, ...]]) -> None:
    row, start, end, _ = columns(bars)
    lane = lanes(row, start, end)
    for i in range(len(bars)):
        for j in range(i):
            meet = row[i] == row[j] and max(start[i], start[j]) < min(end[i], end[j])
            assert not (meet and lane[i] == lane[j])
    for one in set(row.tolist()):
        most = steps(start[row == one], end[row == one]).values.max(initial=0)
        assert lane[row == one].max(initial=0) + 1 == max(1, most)


@settings(max_examples=25)
@given(problems(), st.integers(0, 2**32))
def test_on_exclusive_devices_one_shard_is_in_service(problem: Problem, seed: int) -> None:
    trace = Simulator(problem).run(make_policy("heft_sharded"), seed=seed)
    shards = trace.shards
    on_device = shards["device"] >= 0
    for device in range(len(trace.device_ids)):
        one = shards[shards["device"] == device]
        assert not lanes(one["device"], one["start"], one["end"]).any()
        assert occupancy(one).values.max(initial=0) <= one["queries"].max(initial=0)
    times = phases(shards, ~on_device)
    prefill = np.where(on_device, shards["prefill_s"] * shards["noise"], 0.0)
    whole = shards["lost"] == 0
    expected = np.minimum(times.begin + prefill, shards["end"])
    assert times.prefilled[whole] == pytest.approx(expected[whole], rel=1e-9, abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_on_batching_devices_phases_are_as_they_came_out(seed: int) -> None:
    """Also with noise: prefill and decode of a trace have it already."""
    trace = run(seed)
    shards = trace.shards
    times = phases(shards, shards["device"] < 0)
    assert all((a <= b).all() for a, b in itertools.pairwise(times[3:]))
    whole = (shards["lost"] == 0) & (shards["device"] >= 0)
    assert times.end[whole] == pytest.approx(shards["end"][whole])
    decode = (times.end - times.prefilled)[whole]
    assert decode == pytest.approx(shards["decode_s"][whole], abs=1e-9)
    most = trace.problem.cluster.serving.max_sequences
    assert (in_service(shards)[whole] <= most).all()
