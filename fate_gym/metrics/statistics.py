"""Statistics for comparisons: intervals, tests, rates and profiles. Lower values are better."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from fate_gym.errors import InputError
from fate_gym.metrics.arrays import Bools, Floats

_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_ci(
    values: ArrayLike,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the confidence interval of the mean by the BCa bootstrap (Efron 1987, section 4).

    With ``clusters``, whole clusters are drawn instead of single values, and the statistic is the
    mean over all values drawn (Davison and Hinkley 1997, section 3.8): results on the same graph
    with several seeds are not independent, so reports use the graph as the cluster.

    Args:
        values: (n,) finite values, one per workflow.
        seed: seed of the resampling; the same seed gives the same interval.
        resamples: number of bootstrap samples.
        level: confidence level.
        clusters: (n,) labels; values with equal labels are drawn together.

    Returns:
        The interval. With a single value or cluster its ends are NaN: the spread is unknown.

    Raises:
        InputError: no values, values that are not finite, or a different number of labels.
    """
    data = _finite(values, "values")
    if len(data) == 0:
        raise InputError("no values to average", field="values", remedy="give at least one value")
    if not 0.0 < level < 1.0:
        raise InputError("not between 0 and 1", field="level", remedy="e.g. 0.95")
    sums, sizes = _cluster_sums(data, clusters)
    mean = float(data.mean())
    groups = len(sums)
    if groups == 1:
        return Interval(mean, float("nan"), float("nan"))
    if np.ptp(data) == 0:
        return Interval(mean, mean, mean)

    means = np.sort(_resampled_means(sums, sizes, np.random.default_rng(seed), resamples))
    # Ties count half, so that a symmetric lattice of means has no bias. If rounding puts
    # every mean on one side, the clip keeps the quantile finite.
    scale = np.ptp(data) * 1e-12
    below = np.searchsorted(means, mean - scale) + np.searchsorted(means, mean + scale)
    bias = stats.norm.ppf(np.clip(below / (2 * resamples), 0.5 / resamples, 1 - 0.5 / resamples))
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    deviation = left_out.mean() - left_out
    spread = float((deviation**2).sum())
    acceleration = float((deviation**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    z = bias + stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return Interval(mean, float(low), float(high))


def paired_difference_ci(
    a: ArrayLike,
    b: ArrayLike,
    *,
    seed: int,
    resamples: int = 10_000,
    level: float = 0.95,
    clusters: Sequence[Hashable] | None = None,
) -> Interval:
    """Return the confidence interval of the mean of ``a - b`` over pairs.

    Negative where ``a`` is better. ``a`` and ``b`` are (n,) values of two policies on the same
    workflows. See `bootstrap_ci`.
    """
    first, second = _paired(a, b)
    return bootstrap_ci(
        first - second, seed=seed, resamples=resamples, level=level, clusters=clusters
    )


def wilcoxon_signed_rank(a: ArrayLike, b: ArrayLike, *, tolerance: float = 1e-9) -> float:
    """Return the two-sided p-value of the signed-rank test on pairs (Wilcoxon 1945).

    Differences within ``tolerance``, relative to the larger of the two values, are ties and are
    dropped; with nothing but ties the p-value is 1. Exact for small samples without equal ranks,
    otherwise by the normal approximation.
    """
    first, second = _paired(a, b)
    difference = (first - second)[~_tied(first, second, tolerance)]
    if len(difference) == 0:
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Return the adjusted p-values of the step-down procedure (Holm 1979), in the order given.

    Reject those at or below α: the chance of even one false rejection is then at most α.

    Raises:
        InputError: a p-value outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise InputError("a p-value is not in [0, 1]", field="p_values")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def win_rate(a: ArrayLike, b: ArrayLike, tolerance: float = 1e-9) -> float:
    """Return the share of pairs in which ``a`` is lower; a tie counts one half. NaN without pairs.

    Values within ``tolerance``, relative to the larger, are ties, so that
    ``win_rate(a, b) + win_rate(b, a) == 1``.
    """
    first, second = _paired(a, b)
    if len(first) == 0:
        return float("nan")
    won = np.where(_tied(first, second, tolerance), 0.5, first < second)
    return float(won.mean())


def ecdf(values: ArrayLike) -> tuple[Floats, Floats]:
    """Return the distinct values in order, and the share of values up to each (the ECDF)."""
    data = _finite(values, "values")
    ordered = np.sort(data)
    points = ordered[np.diff(ordered, prepend=-np.inf) > 0]
    up_to = np.searchsorted(ordered, points, side="right")
    return points, np.asarray(up_to / max(len(data), 1))


def performance_profile(costs: ArrayLike) -> tuple[Floats, Floats]:
    """Return the performance profile of solvers over problems (Dolan and Moré 2002).

    Args:
        costs: (problems, solvers) non-negative costs; a value that is not finite is a failure.
            If the best is 0, only 0 is within any factor.

    Returns:
        (T,) the factors of the best at which some curve rises, from 1 on, and (T, solvers) the
        share of problems that each solver solves within that factor of the best.

    Raises:
        InputError: not a matrix with a row and a column, or a negative cost.
    """
    matrix = np.asarray(costs, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise InputError("needs one row per problem and one column per solver", field="costs")
    matrix = np.where(np.isfinite(matrix), matrix, np.inf)
    if (matrix < 0).any():
        raise InputError("a cost is negative", field="costs")
    best = np.broadcast_to(matrix.min(axis=1, keepdims=True), matrix.shape)
    ratio = np.ones(matrix.shape)
    with np.errstate(divide="ignore"):
        np.divide(matrix, best, out=ratio, where=matrix > best)
    ratio[~np.isfinite(matrix)] = np.inf
    factors = np.unique(np.append(ratio[np.isfinite(ratio)], 1.0))
    solved = [np.searchsorted(np.sort(column), factors, side="right") for column in ratio.T]
    return factors, np.column_stack(solved) / len(matrix)


def _cluster_sums(data: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    if clusters is None:
        return data, np.ones(len(data))
    if len(clusters) != len(data):
        raise InputError(
            f"{len(clusters)} labels for {len(data)} values",
            field="clusters",
            remedy="give one label per value",
        )
    number = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
    group = [number[label] for label in clusters]
    sums: Floats = np.bincount(group, weights=data).astype(np.float64)
    return sums, np.bincount(group).astype(np.float64)


def _resampled_means(
    sums: Floats, sizes: Floats, rng: np.random.Generator, resamples: int
) -> Floats:
    groups = len(sums)
    means = np.empty(resamples)
    step = max(1, _CHUNK // groups)
    for start in range(0, resamples, step):
        drawn = rng.integers(groups, size=(min(step, resamples - start), groups))
        means[start : start + step] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    return means


def _finite(values: ArrayLike, field: str) -> Floats:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1:
        raise InputError(f"has {data.ndim} dimensions, needs 1", field=field)
    if not np.isfinite(data).all():
        raise InputError(
            "a value is not finite", field=field, remedy="leave failed runs out and report them"
        )
    return data


def _paired(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats]:
    first, second = _finite(a, "a"), _finite(b, "b")
    if len(first) != len(second):
        raise InputError(
            f"{len(first)} values against {len(second)}",
            field="b",
            remedy="pair the two on the same workflows",
        )
    return first, second


def _tied(a: Floats, b: Floats, tolerance: float) -> Bools:
    return np.asarray(np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b)))
