"""The statistics of a sweep: one row a policy, with intervals and tests."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.errors import InputError, near_matches
from fate_gym.metrics.statistics import (
    Interval,
    bootstrap_ci,
    holm,
    wilcoxon_signed_rank,
    win_rate,
)

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

_LEAST_HEADROOM = 0.01
_CHUNK = 4_000_000
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
        vs_strongest_lo, vs_strongest_hi: 95 % bootstrap interval of ``vs_strongest_pct``, which
            draws whole instances, with the policy's and the baseline's values in pairs.
        headroom_strict, headroom_boosted: share of the way from the strongest strict (boosted)
            baseline to the best known schedule that the policy goes, mean over workflows where
            that way is at least 1 %; NaN where the sweep has no reference policy.
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
    vs_strongest_lo: float
    vs_strongest_hi: float
    headroom_strict: float
    headroom_boosted: float


SUMMARY_COLUMNS = tuple(field.name for field in fields(PolicySummary))


@dataclass(frozen=True)
class Baselines:
    """The policies that others are compared with; None where a sweep has none of the kind.

    A boosted policy chooses devices by estimates that know the state of the devices; a strict one
    sees what its source says that it sees.
    """

    strongest: str | None
    strict: str | None
    boosted: str | None


def choose_baselines(
    order: Sequence[str], families: Mapping[str, str], boosted: Collection[str]
) -> Baselines:
    """The best of each kind.

    Args:
        order: policies, best first.
        families: family of each.
        boosted: those that are boosted.
    """
    known = [name for name in order if families[name] not in NOT_BASELINES]
    return Baselines(
        strongest=next(iter(known), None),
        strict=next((name for name in known if name not in boosted), None),
        boosted=next((name for name in known if name in boosted), None),
    )


def mean_order(rows: pd.DataFrame) -> list[str]:
    """Policies by their mean normalised makespan, best first."""
    means = rows.groupby("policy")["normalised"].mean()
    return sorted((str(name) for name in means.index), key=lambda name: (means[name], name))


def summarise(
    rows: pd.DataFrame,
    decisions: pd.DataFrame,
    families: Mapping[str, str],
    baselines: Baselines,
) -> list[PolicySummary]:
    """One record a policy, best mean first.

    Args:
        rows: workflows, as in ``workflows.parquet``.
        decisions: ``policy`` and ``decision_ms`` of every decision.
        families: family of each policy.
        baselines: what policies are compared with; from these rows, or chosen on others.
    """
    order = mean_order(rows)
    pairs = _Pairs(rows, families)
    against = [_against(pairs, policy, baselines.strongest) for policy in order]
    p_values = corrected([one.p_value for one in against])
    times = {str(name): ms.to_numpy() for name, ms in decisions.groupby("policy")["decision_ms"]}
    frames = {str(name): frame for name, frame in rows.groupby("policy")}
    summary = []
    for policy, versus, p_value in zip(order, against, p_values, strict=True):
        frame = frames[policy]
        mean = mean_interval(frame)
        tail, tail_lo, tail_hi = tail_interval(frame)
        milliseconds = times.get(policy, np.zeros(0))
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
                vs_strongest_lo=versus.low,
                vs_strongest_hi=versus.high,
                headroom_strict=pairs.headroom(policy, baselines.strict),
                headroom_boosted=pairs.headroom(policy, baselines.boosted),
            )
        )
    return summary


class _Pairs:
    """Normalised makespans as a table: a row a workflow, a column a policy; NaN where not run."""

    def __init__(self, rows: pd.DataFrame, families: Mapping[str, str]) -> None:
        self.table = rows.pivot_table(index=_KEY, columns="policy", values="normalised")
        self.instances = rows.drop_duplicates(_KEY).set_index(_KEY)["instance"]
        references = [name for name in self.table if families[str(name)] == "reference"]
        self._best = self.table[references].min(axis=1) if references else None

    def of(self, policy: str, other: str) -> pd.DataFrame:
        """Columns ``a``, ``b`` (the two policies), ``suite`` and ``instance`` of what both ran."""
        import pandas as pd

        names = [name for name in (policy, other) if name in self.table]
        both = self.table[names].dropna() if len(names) == 2 else self.table[names].iloc[:0]
        return pd.DataFrame(
            {
                "a": both[names[0]].to_numpy(),
                "b": both[names[-1]].to_numpy(),
                "suite": both.index.get_level_values("suite"),
                "instance": self.instances[both.index].to_numpy(),
            }
        )

    def headroom(self, policy: str, baseline: str | None) -> float:
        """Mean share of the way from a baseline to the best known that a policy goes."""
        if self._best is None or baseline not in self.table:
            return float("nan")
        frame = self.table[[baseline]].assign(ours=self.table[policy], best=self._best).dropna()
        way = frame[baseline] - frame["best"]
        wide = way >= _LEAST_HEADROOM * frame[baseline]
        return float(((frame[baseline] - frame["ours"])[wide] / way[wide]).mean())


class Versus(NamedTuple):
    """One policy against another on what both ran; percent of the other's mean."""

    n: int
    win_rate: float
    percent: float
    low: float
    high: float
    p_value: float


def _against(pairs: _Pairs, policy: str, strongest: str | None) -> Versus:
    if policy == strongest or strongest is None:
        same = 0.0 if policy == strongest else np.nan
        return Versus(0, np.nan, same, np.nan, np.nan, np.nan)
    return versus(pairs.of(policy, strongest))


def versus(pairs: pd.DataFrame) -> Versus:
    """Compare two policies.

    Args:
        pairs: a row a workflow: values ``a`` and ``b``, and its ``suite`` and ``instance``.
    """
    if pairs.empty:
        return Versus(0, np.nan, np.nan, np.nan, np.nan, np.nan)
    grouped = pairs.groupby(["suite", "instance"])[["a", "b"]]
    by_instance = grouped.mean()
    a, b = pairs["a"].to_numpy(), pairs["b"].to_numpy()
    low, high = _ratio_interval(grouped.sum().to_numpy())
    return Versus(
        n=len(pairs),
        win_rate=win_rate(a, b),
        percent=100.0 * float(a.mean() / b.mean() - 1.0),
        low=100.0 * (low - 1.0),
        high=100.0 * (high - 1.0),
        p_value=wilcoxon_signed_rank(by_instance["a"].to_numpy(), by_instance["b"].to_numpy()),
    )


def _ratio_interval(sums: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile-bootstrap interval of a ratio of means; ``sums`` are (clusters, 2)."""
    if len(sums) == 1:
        return float("nan"), float("nan")
    rng = np.random.default_rng(_SEED)
    drawn = sums[rng.integers(len(sums), size=(_RESAMPLES, len(sums)))].sum(axis=1)
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)


def corrected(p_values: Sequence[float]) -> list[float]:
    """P-values with Holm's correction; NaN where nothing was tested."""
    corrected = np.array(p_values)
    tested = np.isfinite(corrected)
    corrected[tested] = holm(corrected[tested])
    return [float(value) for value in corrected]


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
    pairs = _Pairs(rows, families)
    others = [name for name in order if name != reference]
    found = [versus(pairs.of(name, reference)) for name in others]
    p_values = corrected([one.p_value for one in found])
    return {
        name: one._replace(p_value=p) for name, one, p in zip(others, found, p_values, strict=True)
    }


def mean_interval(frame: pd.DataFrame) -> Interval:
    """The mean of ``normalised`` with its interval, which draws whole instances."""
    return bootstrap_ci(
        frame["normalised"].to_numpy(),
        seed=_SEED,
        resamples=_RESAMPLES,
        clusters=list(zip(frame["suite"], frame["instance"], strict=True)),
    )


QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
"""Of the time of a decision, in the latency figure."""


def decision_quantiles(decisions: pd.DataFrame, order: Sequence[str]) -> dict[str, list[float]]:
    """Milliseconds at the `QUANTILES`, by policy; those without decisions left out."""
    groups = {str(name): ms for name, ms in decisions.groupby("policy")["decision_ms"]}
    return {
        name: [float(value) for value in np.quantile(groups[name], QUANTILES)]
        for name in order
        if name in groups
    }


def tail_interval(frame: pd.DataFrame) -> tuple[float, float, float]:
    """``norm_p95`` of one policy's rows with a 95 % percentile-bootstrap interval."""
    rng = np.random.default_rng(_SEED)
    if (frame["workflows"] == 1).all():
        groups = frame.groupby(["suite", "instance"]).ngroup().to_numpy()
        values = frame["normalised"].to_numpy()
        value = _p95(values)
        count = int(groups.max()) + 1
        if count == 1:
            return value, float("nan"), float("nan")
        samples = _resampled_p95(values, groups, rng.integers(count, size=(_RESAMPLES, count)))
    else:
        ratios = np.array(
            [
                _p95(g["latency"].to_numpy()) / _p95(g["rr_latency"].to_numpy())
                for _, g in frame.groupby(["suite", "problem", "seed"])
            ]
        )
        value = float(ratios.mean())
        if len(ratios) == 1:
            return value, float("nan"), float("nan")
        samples = ratios[rng.integers(len(ratios), size=(_RESAMPLES, len(ratios)))].mean(axis=1)
    low, high = np.quantile(samples, [0.025, 0.975])
    return value, float(low), float(high)


def _resampled_p95(
    values: NDArray[np.float64], groups: NDArray[Any], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(R,) the 95th percentile of each draw of (R, groups) whole groups.

    Drawing a group twice weighs its values twice: percentiles are read off the summed weights.
    """
    order = np.argsort(values, kind="stable")
    ordered, group = values[order], groups[order]
    found = []
    for part in np.array_split(draws, max(1, draws.shape[0] * len(values) // _CHUNK)):
        weights = np.zeros(part.shape, np.int64)
        np.add.at(weights, (np.arange(len(part))[:, None], part), 1)
        upto = weights[:, group].cumsum(axis=1)
        place = 0.95 * (upto[:, -1] - 1)
        below = np.floor(place)
        ends = [(upto > b[:, None]).argmax(axis=1) for b in (below, np.ceil(place))]
        first, second = ordered[ends[0]], ordered[ends[1]]
        found.append(first + (second - first) * (place - below))
    return np.concatenate(found)


def _p95(values: NDArray[Any]) -> float:
    return float(np.percentile(values, 95))


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
