from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fate_gym.errors import InputError
from fate_gym.metrics.statistics import (
    bootstrap_ci,
    ecdf,
    holm,
    paired_difference_ci,
    performance_profile,
    wilcoxon_signed_rank,
    win_rate,
)

values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def test_interval_agrees_with_scipys_bca() -> None:
    data = np.random.default_rng(3).exponential(size=40)
    ours = bootstrap_ci(data, seed=0)
    theirs = stats.bootstrap(
        (data,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours.mean == pytest.approx(data.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.02)
    assert ours.high == pytest.approx(theirs.high, abs=0.02)


def test_interval_covers_the_mean_of_a_skewed_distribution() -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        interval = bootstrap_ci(rng.exponential(size=40), seed=trial, resamples=600)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_clusters_restore_the_coverage_that_repeats_destroy() -> None:
    rng = np.random.default_rng(5)
    labels = np.repeat(np.arange(25), 8).tolist()
    with_clusters = without = 0
    for trial in range(150):
        data = np.repeat(rng.normal(size=25), 8) + 0.1 * rng.normal(size=200)
        clustered = bootstrap_ci(data, seed=trial, resamples=400, clusters=labels)
        naive = bootstrap_ci(data, seed=trial, resamples=400)
        with_clusters += clustered.low <= 0 <= clustered.high
        without += naive.low <= 0 <= naive.high
    assert with_clusters / 150 >= 0.88
    assert without / 150 <= 0.70


def test_clusters_of_one_change_nothing() -> None:
    data = np.random.default_rng(0).normal(size=30)
    labels = [("graph", i) for i in range(30)]
    assert bootstrap_ci(data, seed=4, clusters=labels) == bootstrap_ci(data, seed=4)


def test_many_values_are_drawn_in_chunks_without_gaps() -> None:
    data = np.random.default_rng(2).normal(10.0, 1.0, size=5000)
    interval = bootstrap_ci(data, seed=0, resamples=1500)
    half_width = 1.96 * data.std() / np.sqrt(5000)
    assert interval.high - interval.low == pytest.approx(2 * half_width, rel=0.15)


@given(values, st.integers(0, 100))
def test_interval_lies_within_the_values_and_repeats_itself(data: list[float], seed: int) -> None:
    interval = bootstrap_ci(data, seed=seed, resamples=200)
    assert interval.mean == pytest.approx(np.mean(data))
    if len(data) == 1:
        assert np.isnan([interval.low, interval.high]).all()
        return
    slack = 1e-9 * (1 + np.abs(data).max())
    assert min(data) - slack <= interval.low <= interval.high <= max(data) + slack
    assert interval == bootstrap_ci(data, seed=seed, resamples=200)


def test_equal_values_give_a_point_and_one_cluster_gives_no_interval() -> None:
    point = bootstrap_ci([2.0, 2.0, 2.0], seed=0)
    assert (point.low, point.mean, point.high) == (2.0, 2.0, 2.0)
    one = bootstrap_ci([1.0, 2.0], seed=0, clusters=["g", "g"])
    assert one.mean == 1.5
    assert np.isnan([one.low, one.high]).all()


def test_paired_difference_removes_what_the_pairs_share() -> None:
    rng = np.random.default_rng(1)
    shared = 100 * rng.normal(size=50)
    interval = paired_difference_ci(shared - 1 + 0.1 * rng.normal(size=50), shared, seed=0)
    assert interval.high < -0.9
    assert interval.low > -1.1


@pytest.mark.parametrize(
    ("data", "clusters", "field"),
    [
        ([], None, "values"),
        ([1.0, float("nan")], None, "values"),
        ([1.0, float("inf")], None, "values"),
        ([[1.0], [2.0]], None, "values"),
        ([1.0, 2.0], ["a"], "clusters"),
    ],
)
def test_bad_values_are_named(data: list[float], clusters: list[str] | None, field: str) -> None:
    with pytest.raises(InputError) as error:
        bootstrap_ci(data, seed=0, clusters=clusters)
    assert error.value.field == field


def test_level_must_be_a_probability() -> None:
    with pytest.raises(InputError) as error:
        bootstrap_ci([1.0, 2.0], seed=0, level=95)
    assert error.value.field == "level"


def test_pairs_must_match() -> None:
    with pytest.raises(InputError):
        win_rate([1.0, 2.0], [1.0])


def test_wilcoxon_known_answer() -> None:
    # All of n = 6 differences positive: two of the 2^6 sign patterns are as extreme.
    assert wilcoxon_signed_rank([2, 4, 6, 8, 10, 12], [1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)


def test_wilcoxon_agrees_with_scipy() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.exponential(size=60), 1.2 * rng.exponential(size=60)
    assert wilcoxon_signed_rank(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)


def test_wilcoxon_takes_rounding_for_a_tie() -> None:
    a = np.array([1.0, 2.0, 3.0])
    assert wilcoxon_signed_rank(a, a) == 1.0
    assert wilcoxon_signed_rank(a, a * (1 + 1e-15)) == 1.0
    assert wilcoxon_signed_rank([0.0], [0.0]) == 1.0


def test_holm_known_answer() -> None:
    # 4 x .005, 3 x .01, then 2 x .03 = .06, and .04 is raised to it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_procedure_rejects(p: list[float], alpha: float) -> None:
    adjusted = holm(p)
    rejected = []
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - rank) > alpha:
            break
        rejected.append(i)
    assert sorted(rejected) == np.flatnonzero(adjusted <= alpha).tolist()


def test_holm_refuses_what_is_no_probability() -> None:
    for bad in (float("nan"), -0.1, 1.1):
        with pytest.raises(InputError):
            holm([0.5, bad])
    assert len(holm([])) == 0


def test_win_rate_counts_ties_half() -> None:
    assert win_rate([1, 2, 3, 4], [2, 2, 2, 2]) == pytest.approx(0.375)
    assert win_rate([1.0], [1.0 + 1e-12]) == 0.5
    assert np.isnan(win_rate([], []))


@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1))
def test_win_rates_of_the_two_sides_sum_to_one(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    assert win_rate(a, b) + win_rate(b, a) == pytest.approx(1.0)


@given(values)
def test_ecdf_counts(data: list[float]) -> None:
    points, share = ecdf(data)
    assert points.tolist() == sorted(set(data))
    for point, up_to in zip(points, share, strict=True):
        assert up_to == pytest.approx(sum(value <= point for value in data) / len(data))


def test_performance_profile_known_answer() -> None:
    factors, share = performance_profile([[1, 2], [3, 1], [2, 2], [1, np.inf], [0, 0]])
    assert factors.tolist() == [1.0, 2.0, 3.0]
    assert share[:, 0] == pytest.approx([4 / 5, 4 / 5, 1.0])
    assert share[:, 1] == pytest.approx([3 / 5, 4 / 5, 4 / 5])


def test_performance_profile_of_failures_and_bad_input() -> None:
    factors, share = performance_profile([[np.nan, np.inf], [1.0, np.nan]])
    assert factors.tolist() == [1.0]
    assert share.tolist() == [[0.5, 0.0]]
    for bad in ([1.0, 2.0], [[-1.0]], np.zeros((0, 2))):
        with pytest.raises(InputError):
            performance_profile(bad)
