"""The statistics of a sweep: one row a policy, with intervals and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.metrics.statistics import bootstrap_ci, holm, wilcoxon_signed_rank, win_rate

if TYPE_CHECKING:
    import pandas as pd

MECHANISMS = {
    "load_seconds": ("loading models, s", 1.0),
    "transfer_wait_seconds": ("waiting for transfers, s", 1.0),
    "prefix_hit_rate": ("prefix hit rate", 1.0),
    "context_hit_rate": ("context hit rate", 1.0),
    "bytes_moved": ("moved, GB", 1e-9),
    "device_utilisation": ("device utilisation", 1.0),
}
"""Panels of the mechanism figure: column, title, and the factor to the title's unit."""

NOT_BASELINES = frozenset({"fate", "reference"})
"""Families that the strongest baseline is not chosen from."""

_RESAMPLES = 2_000
_SEED = 0
_KEY = ["suite", "problem", "workflow", "seed"]


@dataclass(frozen=True)
class PolicySummary:
    """One row of ``summary.csv``; the fields are its columns, in order.

    Attributes:
        policy: label of the policy.
        n: workflows.
        norm_makespan: mean over workflows of the time from arrival to end, divided by round
            robin's on the same workflow, cluster and seed; ``_lo`` and ``_hi`` bound its 95 %
            bootstrap interval, which draws whole instances (a topology with all its seeds; in a
            stream, the whole problem).
        norm_p95: 95th percentile over workflows of the same ratio; in streams the ratio of the
            two 95th percentiles of latency, averaged over problems.
        gap_to_bound: mean of latency / lower bound; NaN where no bound holds.
        win_rate: share of workflows on which the policy beats the strongest baseline; a tie
            counts half.
        decision_ms_p50: wall-clock milliseconds of a decision, likewise ``decision_ms_p99``.
        vs_strongest_pct: mean against the strongest baseline's, in percent; negative is better.
        p_value: Wilcoxon signed-rank test against the strongest baseline, on means over the seeds
            of an instance, with Holm's correction over the policies; NaN for that baseline.
    """

    policy: str
    n: int
    norm_makespan: float
    norm_makespan_lo: float
    norm_makespan_hi: float
    norm_p95: float
    norm_p95_lo: float
    norm_p95_hi: float
    gap_to_bound: float
    win_rate: float
    decision_ms_p50: float
    decision_ms_p99: float
    vs_strongest_pct: float
    p_value: float


SUMMARY_COLUMNS = tuple(field.name for field in fields(PolicySummary))


def summarise(
    rows: pd.DataFrame, decisions: pd.DataFrame, families: Mapping[str, str]
) -> list[PolicySummary]:
    """One record a policy, best mean first.

    Args:
        rows: workflows, as in ``workflows.parquet``.
        decisions: ``policy`` and ``decision_ms`` of every decision.
        families: family of each policy.
    """
    means = rows.groupby("policy")["normalised"].mean()
    order = sorted((str(name) for name in means.index), key=lambda name: (means[name], name))
    strongest = strongest_baseline(order, families)
    against = [_against(rows, policy, strongest) for policy in order]
    p_values = _corrected([one.p_value for one in against])
    summary = []
    for policy, versus, p_value in zip(order, against, p_values, strict=True):
        frame = rows[rows["policy"] == policy]
        mean = bootstrap_ci(
            frame["normalised"].to_numpy(),
            seed=_SEED,
            resamples=_RESAMPLES,
            clusters=_clusters(frame),
        )
        tail, tail_lo, tail_hi = tail_interval(frame)
        milliseconds = decisions.loc[decisions["policy"] == policy, "decision_ms"].to_numpy()
        p50, p99 = np.percentile(milliseconds, [50, 99]) if milliseconds.size else (np.nan, np.nan)
        summary.append(
            PolicySummary(
                policy=policy,
                n=len(frame),
                norm_makespan=mean.mean,
                norm_makespan_lo=mean.low,
                norm_makespan_hi=mean.high,
                norm_p95=tail,
                norm_p95_lo=tail_lo,
                norm_p95_hi=tail_hi,
                gap_to_bound=float(frame["gap_to_bound"].mean()),
                win_rate=versus.win_rate,
                decision_ms_p50=float(p50),
                decision_ms_p99=float(p99),
                vs_strongest_pct=versus.percent,
                p_value=p_value,
            )
        )
    return summary


def strongest_baseline(order: Sequence[str], families: Mapping[str, str]) -> str | None:
    """The first policy of an order, best first, that is neither FATE nor a reference."""
    return next((name for name in order if families[name] not in NOT_BASELINES), None)


class _Versus(NamedTuple):
    win_rate: float
    percent: float
    p_value: float


def _against(rows: pd.DataFrame, policy: str, strongest: str | None) -> _Versus:
    if policy == strongest:
        return _Versus(np.nan, 0.0, np.nan)
    ours = rows[rows["policy"] == policy].set_index(_KEY)[["instance", "normalised"]]
    theirs = rows[rows["policy"] == strongest].set_index(_KEY)["normalised"]
    pairs = ours.assign(other=theirs).dropna(subset=["other"])
    if pairs.empty:
        return _Versus(np.nan, np.nan, np.nan)
    by_instance = pairs.groupby(["suite", "instance"])[["normalised", "other"]].mean()
    a, b = pairs["normalised"].to_numpy(), pairs["other"].to_numpy()
    return _Versus(
        win_rate=win_rate(a, b),
        percent=100.0 * float(a.mean() / b.mean() - 1.0),
        p_value=wilcoxon_signed_rank(
            by_instance["normalised"].to_numpy(), by_instance["other"].to_numpy()
        ),
    )


def _corrected(p_values: Sequence[float]) -> list[float]:
    corrected = np.array(p_values)
    tested = np.isfinite(corrected)
    corrected[tested] = holm(corrected[tested])
    return [float(value) for value in corrected]


def tail_interval(frame: pd.DataFrame) -> tuple[float, float, float]:
    """``norm_p95`` of one policy's rows with a 95 % percentile-bootstrap interval."""
    alone = bool((frame["workflows"] == 1).all())
    if alone:
        groups = [g["normalised"].to_numpy() for _, g in frame.groupby(["suite", "instance"])]
        statistic: Callable[[NDArray[Any]], float] = _p95
    else:
        ratios = [
            _p95(g["latency"].to_numpy()) / _p95(g["rr_latency"].to_numpy())
            for _, g in frame.groupby(["suite", "problem", "seed"])
        ]
        groups = [np.array([ratio]) for ratio in ratios]
        statistic = _mean
    value = statistic(np.concatenate(groups))
    if len(groups) == 1:
        return value, float("nan"), float("nan")
    rng = np.random.default_rng(_SEED)
    draws = rng.integers(len(groups), size=(_RESAMPLES, len(groups)))
    samples = [statistic(np.concatenate([groups[i] for i in draw])) for draw in draws]
    low, high = np.quantile(samples, [0.025, 0.975])
    return value, float(low), float(high)


def _p95(values: NDArray[Any]) -> float:
    return float(np.percentile(values, 95))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean())


def _clusters(frame: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(frame["suite"], frame["instance"], strict=True))


def mechanism_means(rows: pd.DataFrame, order: Sequence[str]) -> dict[str, dict[str, float]]:
    """Means over workflows of `MECHANISMS`, by title and policy; those without values left out."""
    table = {}
    for column, (title, factor) in MECHANISMS.items():
        means = rows.groupby("policy")[column].mean() * factor
        if means.notna().any():
            table[title] = {policy: float(means[policy]) for policy in order}
    return table


def interval_text(value: float, low: float, high: float) -> str:
    """A value with its interval, where there is one: ``0.500 [0.400, 0.600]``."""
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
