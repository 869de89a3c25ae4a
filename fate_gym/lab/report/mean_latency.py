"""Mean latencies of policies on every suite, and how far they fall behind.

The headline averages the ratios of single workflows. In a stream of requests these differ by a
factor of a thousand: a request of a tenth of a second that waits for a second counts as much as a
hundred long ones. Here the mean latency of a whole problem is divided by round robin's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from fate_gym.lab.report.baselines import NOT_BASELINES
from fate_gym.lab.report.runs import RUN, TextTable, run_estimates, streams_of
from fate_gym.lab.tables import Estimate, number
from fate_gym.metrics.outcome import ratios as time_ratios

NOT_RIVALS = NOT_BASELINES | {"learned"}
"""Families that do not count among the policies that one may fall behind."""

_RATIO = "latency_ratio"

MEAN_LATENCY_LEGEND = (
    "Mean latency of a problem's workflows over round robin's on the same problem; mean over "
    "problems, with a 95 % bootstrap interval that draws whole instances. Bold: the best of a "
    "suite that is neither FATE nor learned. Behind: the most by which the mean of a suite exceeds "
    "that best one; negative: ahead on every suite."
)


def problem_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Make one row per policy and problem; ``latency_ratio``: its mean over round robin's mean."""
    means = rows.groupby([*RUN, "instance"])[["latency", "rr_latency"]].mean().reset_index()
    ratios = time_ratios(means["latency"].to_numpy(), means["rr_latency"].to_numpy())
    return means.assign(**{_RATIO: ratios})


def mean_latency_table(
    rows: pd.DataFrame, order: Sequence[str], families: Mapping[str, str]
) -> TextTable | None:
    """Make the table of a sweep; None: without streams it would repeat the headline.

    Args:
        rows: workflows of all suites.
        order: policies in the order of the table.
        families: family of each policy.
    """
    if streams_of(rows).empty:
        return None
    ratios = problem_ratios(rows)
    suites: dict[str, dict[str, Estimate]] = {}
    for suite, part in ratios.groupby("suite"):
        found = run_estimates(part, order, [_RATIO])
        suites[str(suite)] = {name: columns[_RATIO] for name, columns in found.items()}
    rivals = {suite: _best_rival(means, families) for suite, means in suites.items()}
    table = []
    for name in order:
        cells = []
        for suite, means in suites.items():
            cell = means[name].text() if name in means else "–"
            cells.append(f"**{cell}**" if name == rivals[suite] else cell)
        table.append([name, *cells, number(_behind(name, suites, rivals), "+.1f", " %")])
    return TextTable(["policy", *suites, "behind"], table)


def _best_rival(means: Mapping[str, Estimate], families: Mapping[str, str]) -> str | None:
    rivals = [name for name in means if families[name] not in NOT_RIVALS]
    return min(rivals, key=lambda name: means[name].value, default=None)


def _behind(
    name: str,
    suites: Mapping[str, Mapping[str, Estimate]],
    rivals: Mapping[str, str | None],
) -> float:
    """Return the most by which a policy's mean exceeds that of the best rival, in percent."""
    gaps = [
        100.0 * (means[name].value / means[rival].value - 1.0)
        for suite, means in suites.items()
        if name in means and (rival := rivals[suite]) is not None
    ]
    return max(gaps, default=float("nan"))
