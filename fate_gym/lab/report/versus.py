"""Compares policies pair by pair, on the workflows that both ran."""

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
"""Of every bootstrap of a report."""

_LEAST_HEADROOM = 0.01


class Versus(NamedTuple):
    """One policy against another on what both ran.

    Attributes:
        n: workflows.
        win_rate: share of them on which the policy is faster; a tie counts half.
        difference: percent of the other's mean, with a 95 % bootstrap interval that draws whole
            instances; negative is better.
        p_value: of Wilcoxon's signed-rank test on means over the seeds of an instance.
    """

    n: int
    win_rate: float
    difference: Estimate
    p_value: float


NOTHING = Versus(0, np.nan, Estimate(np.nan), np.nan)
"""The comparison of policies that have no workflow in common."""


def versus(pairs: pd.DataFrame) -> Versus:
    """Compare two policies.

    Args:
        pairs: a row a workflow: values ``a`` and ``b``, and its ``suite`` and ``instance``.
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
    """95 % percentile-bootstrap interval of a ratio of means; ``sums`` are (clusters, 2)."""
    if len(sums) == 1:
        return float("nan"), float("nan")
    rng = np.random.default_rng(SEED)
    drawn = sums[rng.integers(len(sums), size=(RESAMPLES, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def corrected(found: Mapping[str, Versus]) -> dict[str, Versus]:
    """The same comparisons with Holm's correction of their p-values."""
    p_values = np.array([one.p_value for one in found.values()])
    tested = np.isfinite(p_values)
    p_values[tested] = holm(p_values[tested])
    return {
        name: one._replace(p_value=float(p))
        for (name, one), p in zip(found.items(), p_values, strict=True)
    }


class LatencyRatios:
    """Latency ratios as a table: a row a workflow, a column a policy; NaN where not run.

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
        """Mean share of the way from a baseline to the best known that a policy goes."""
        if self._best is None or baseline not in self.table:
            return float("nan")
        frame = self.table[[baseline]].assign(ours=self.table[policy], best=self._best).dropna()
        way = frame[baseline] - frame["best"]
        wide = way >= _LEAST_HEADROOM * frame[baseline]
        return float(((frame[baseline] - frame["ours"])[wide] / way[wide]).mean())


def effects_of(
    rows: pd.DataFrame, families: Mapping[str, str], reference: str
) -> dict[str, Versus]:
    """Every other policy against a reference, best first, with Holm's correction.

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
