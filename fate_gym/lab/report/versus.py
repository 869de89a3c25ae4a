"""Compares pairs of policies on the workflows that both ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fate_gym.errors import InputError, near_matches
from fate_gym.lab.report.baselines import mean_order
from fate_gym.lab.sweep.results import WORKFLOW
from fate_gym.lab.tables import Estimate
from fate_gym.metrics.statistics import holm, wilcoxon_signed_rank, win_rate

RESAMPLES = 2_000
SEED = 0
"""Seed of every bootstrap in a report."""

_LEAST_HEADROOM = 0.01


class Versus(NamedTuple):
    """One policy against another, on the workflows that both ran.

    Attributes:
        n: number of workflows.
        win_rate: share of them on which the policy is faster; a tie counts half.
        difference: difference in percent of the other's mean, with a 95 % bootstrap interval that
            draws whole instances; negative is better.
        p_value: p-value of Wilcoxon's signed-rank test on means over the seeds of an instance.
    """

    n: int
    win_rate: float
    difference: Estimate
    p_value: float


NOTHING = Versus(0, np.nan, Estimate(np.nan), np.nan)
"""The comparison of policies without common workflows."""


def versus(pairs: pd.DataFrame) -> Versus:
    """Compare two policies.

    Args:
        pairs: one row per workflow: values ``a`` and ``b``, and its ``suite`` and ``instance``.
    """
    if pairs.empty:
        return NOTHING
    grouped = pairs.groupby(["suite", "instance"])[["a", "b"]]
    by_instance = grouped.mean()
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    ratios = np.array([a.mean() / b.mean(), *_ratio_interval(grouped.sum().to_numpy())])
    return Versus(
        n=len(pairs),
        win_rate=win_rate(a, b),
        difference=Estimate(*(100.0 * (ratios - 1.0)).tolist()),
        p_value=wilcoxon_signed_rank(by_instance["a"].to_numpy(), by_instance["b"].to_numpy()),
    )


def _ratio_interval(sums: NDArray[np.float64]) -> tuple[float, float]:
    """Bootstrap the 95 % percentile interval of a ratio of means; ``sums`` are (clusters, 2)."""
    if len(sums) == 1:
        return float("nan"), float("nan")
    rng = np.random.default_rng(SEED)
    drawn = sums[rng.integers(len(sums), size=(RESAMPLES, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def corrected(found: Mapping[str, Versus]) -> dict[str, Versus]:
    """Apply Holm's correction to the p-values of comparisons."""
    p_values = np.array([one.p_value for one in found.values()])
    tested = np.isfinite(p_values)
    p_values[tested] = holm(p_values[tested])
    return {
        name: one._replace(p_value=float(p))
        for (name, one), p in zip(found.items(), p_values, strict=True)
    }


class LatencyRatios:
    """Latency ratios as a table: one row per workflow, one column per policy; NaN if not run.

    Args:
        rows: workflows, as in ``workflows.parquet``.
        families: family of each policy.
    """

    def __init__(self, rows: pd.DataFrame, families: Mapping[str, str]) -> None:
        self.table = rows.pivot_table(index=WORKFLOW, columns="policy", values="latency_ratio")
        self._instances = rows.drop_duplicates(WORKFLOW).set_index(WORKFLOW)["instance"]
        references = [name for name in self.table if families[str(name)] == "reference"]
        self._best = self.table[references].min(axis=1) if references else None

    def against(self, policy: str, other: str | None) -> Versus:
        """Compare two policies of the table."""
        if other is None or policy == other:
            return NOTHING._replace(difference=Estimate(0.0 if policy == other else np.nan))
        if other not in self.table:
            return NOTHING
        both = self.table[[policy, other]].dropna()
        pairs = both.set_axis(["a", "b"], axis=1).assign(instance=self._instances[both.index])
        return versus(pairs.reset_index())

    def headroom(self, policy: str, baseline: str | None) -> float:
        """Mean share of the gap between a baseline and the best known that a policy closes."""
        if self._best is None or baseline not in self.table:
            return float("nan")
        frame = self.table[[baseline]].assign(ours=self.table[policy], best=self._best).dropna()
        way = frame[baseline] - frame["best"]
        wide = way >= _LEAST_HEADROOM * frame[baseline]
        return float(((frame[baseline] - frame["ours"])[wide] / way[wide]).mean())


def effects_of(
    rows: pd.DataFrame, families: Mapping[str, str], reference: str
) -> dict[str, Versus]:
    """Compare every other policy with a reference, best first, with Holm's correction.

    Raises:
        InputError: the reference is not among the policies.
    """
    order = mean_order(rows)
    if reference not in order:
        raise InputError(
            f"the reference {reference!r} is not among the policies",
            field="report.reference",
            remedy=near_matches(reference, order),
        )
    ratios = LatencyRatios(rows, families)
    return corrected({n: ratios.against(n, reference) for n in order if n != reference})
