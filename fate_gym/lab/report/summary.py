"""The summary of a sweep: one row per policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fate_gym.lab.report.baselines import Baselines, mean_order
from fate_gym.lab.report.p95 import p95_ratio
from fate_gym.lab.report.versus import RESAMPLES, SEED, LatencyRatios, corrected
from fate_gym.lab.tables import Estimate
from fate_gym.metrics.statistics import bootstrap_ci


@dataclass(frozen=True)
class PolicySummary:
    """One row of ``summary.csv``; the fields are its columns, in order.

    A number with a 95 % bootstrap interval has three columns; those of the interval end in ``_lo``
    and ``_hi``. Intervals draw whole instances (a topology with all its seeds; in a stream, the
    whole problem).

    Attributes:
        policy: label of the policy.
        n: number of workflows.
        latency_ratio: mean over workflows of the latency (time from arrival to end), divided by
            round robin's on the same workflow, cluster and seed.
        latency_ratio_p95: 95th percentile over workflows of the same ratio; in streams the ratio of
            the two 95th percentiles of latency, averaged over problems.
        gap_to_bound: mean of latency / lower bound; NaN if there is no bound.
        win_rate: share of workflows on which the policy beats the strongest baseline; a tie
            counts half.
        vs_strongest_pct: mean against the strongest baseline's, in percent; negative is better. Its
            interval draws the policy's and the baseline's values in pairs.
        p_value: Wilcoxon signed-rank test against the strongest baseline, on means over the seeds
            of an instance, with Holm's correction over the policies; NaN for that baseline.
        decision_ms_p50, decision_ms_p99: percentiles of wall-clock milliseconds per decision.
        headroom_strict, headroom_boosted: share of the gap between the strongest strict (boosted)
            baseline and the best known schedule that the policy closes, mean over workflows where
            the gap is at least 1 %; NaN if the sweep has no reference policy.
    """

    policy: str
    n: int
    latency_ratio: Estimate
    latency_ratio_p95: Estimate
    gap_to_bound: float
    win_rate: float
    vs_strongest_pct: Estimate
    p_value: float
    decision_ms_p50: float
    decision_ms_p99: float
    headroom_strict: float
    headroom_boosted: float

    def columns(self) -> dict[str, str | float]:
        """Return the row of ``summary.csv``."""
        row: dict[str, str | float] = {}
        for name, value in vars(self).items():
            row |= value.columns(name) if isinstance(value, Estimate) else {name: value}
        return row


def summarise(
    rows: pd.DataFrame,
    decisions: pd.DataFrame,
    families: Mapping[str, str],
    baselines: Baselines,
) -> list[PolicySummary]:
    """Make one record per policy, best mean first.

    Args:
        rows: workflows, as in ``workflows.parquet``.
        decisions: ``policy`` and ``decision_ms`` of every decision.
        families: family of each policy.
        baselines: policies to compare with, chosen on these rows or on others.
    """
    order = mean_order(rows)
    ratios = LatencyRatios(rows, families)
    against = corrected({policy: ratios.against(policy, baselines.strongest) for policy in order})
    frames = {str(name): frame for name, frame in rows.groupby("policy")}
    times = {str(name): ms for name, ms in decisions.groupby("policy")["decision_ms"]}
    summary = []
    for policy in order:
        frame, versus = frames[policy], against[policy]
        p50, p99 = np.percentile(times[policy], [50, 99]) if policy in times else (np.nan, np.nan)
        summary.append(
            PolicySummary(
                policy=policy,
                n=len(frame),
                latency_ratio=mean_ratio(frame),
                latency_ratio_p95=p95_ratio(frame),
                gap_to_bound=float(frame["gap_to_bound"].mean()),
                win_rate=versus.win_rate,
                vs_strongest_pct=versus.difference,
                p_value=versus.p_value,
                decision_ms_p50=float(p50),
                decision_ms_p99=float(p99),
                headroom_strict=ratios.headroom(policy, baselines.strict),
                headroom_boosted=ratios.headroom(policy, baselines.boosted),
            )
        )
    return summary


def mean_ratio(frame: pd.DataFrame) -> Estimate:
    """Estimate the mean latency ratio of rows, with an interval that draws whole instances."""
    interval = bootstrap_ci(
        frame["latency_ratio"].to_numpy(),
        seed=SEED,
        resamples=RESAMPLES,
        clusters=list(zip(frame["suite"], frame["instance"], strict=True)),
    )
    return Estimate(interval.mean, interval.low, interval.high)
