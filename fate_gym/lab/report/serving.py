"""The serving metrics in a report, and their means over the runs of each policy."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import pandas as pd

from fate_gym.lab.report.runs import RUN


class Shown(NamedTuple):
    """How a column of ``workflows.parquet`` is shown.

    Attributes:
        head: heading in a table.
        title: title of a panel, with the unit.
        factor: factor to that unit.
        form: number format in a table.
    """

    head: str
    title: str
    factor: float = 1.0
    form: str = ".3g"


SERVING = {
    "ttft_p50": Shown("TTFT P50, s", "time to first token P50, s"),
    "ttft_p95": Shown("TTFT P95, s", "time to first token P95, s"),
    "tpot_p50": Shown("TPOT P50, ms", "time per output token P50, ms", 1e3),
    "tpot_p95": Shown("TPOT P95, ms", "time per output token P95, ms", 1e3),
    "call_latency_p95": Shown("call P95, s", "latency of a call P95, s"),
    "slo_attainment": Shown("objectives met, %", "requests within objectives, %", 100.0, ".1f"),
    "goodput_per_s": Shown("goodput, 1/s", "goodput, requests per second"),
    "batch_occupancy": Shown("in service", "queries on a busy device"),
    "device_utilisation": Shown("busy, %", "devices busy, % of the time", 100.0, ".1f"),
}
"""Metrics in display order; all are of whole runs, see `fate_gym.metrics.serving`."""


def serving_means(rows: pd.DataFrame, order: Sequence[str]) -> dict[str, dict[str, float]]:
    """Compute means over problems and seeds of the columns in `SERVING`, by column and policy.

    Values are in display units. Columns without values are left out.
    """
    runs = rows.drop_duplicates(RUN).groupby("policy")
    table = {}
    for column, shown in SERVING.items():
        if column not in rows or not rows[column].notna().any():
            continue
        means = runs[column].mean() * shown.factor
        table[column] = {policy: float(means[policy]) for policy in order}
    return table


def serving_legend(columns: Collection[str]) -> str:
    """Explain the columns."""
    text = (
        "Means over runs. TTFT: time from when a stage is ready to its first token. TPOT: time per "
        "further output token. Call: time from when a model stage is ready to its end. In service: "
        "queries in service on a device that runs something. Busy: share of the time in which "
        "a device runs something."
    )
    if "slo_attainment" in columns:
        text += (
            " Objectives met: share of the requests whose TTFT and TPOT are within what their "
            "workflow asks for; goodput: such requests per second."
        )
    return text


def serving_panels(rows: pd.DataFrame, order: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return `serving_means` by title, for figures; separately for each kind of devices."""
    # Results from before devices could batch lack the column; their devices are exclusive.
    kind = rows["execution"].fillna("exclusive") if "execution" in rows else None
    if kind is None or kind.nunique() < 2:
        return {SERVING[name].title: row for name, row in serving_means(rows, order).items()}
    panels = {}
    for execution in sorted(set(kind), reverse=True):
        own = rows[kind == execution]
        present = set(own["policy"])
        means = serving_means(own, [name for name in order if name in present])
        for name, row in means.items():
            values = {policy: row.get(policy, float("nan")) for policy in order}
            panels[f"{SERVING[name].title} ({execution})"] = values
    return panels
