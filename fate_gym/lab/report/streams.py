"""Latencies of streams in seconds, in addition to their ratios over round robin."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fate_gym.lab.report.runs import RUN, TextTable, run_estimates, streams_of
from fate_gym.lab.report.summary import mean_ratio

_SECONDS = {"mean": "mean, s", "p50": "P50, s", "p95": "P95, s", "p99": "P99, s"}

STREAM_LEGEND = (
    "Seconds from the arrival of a workflow (of a turn, where there are sessions) to its end: mean "
    "and percentiles over the workflows of a stream, then means over streams, with 95 % bootstrap "
    "intervals that draw whole streams. n: workflows / streams."
)


def stream_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Make one row per stream and policy: mean and percentiles of its latencies, seconds."""
    keys = [*RUN, "instance"]
    latencies = streams_of(rows).groupby(keys)["latency"]
    return latencies.agg(
        mean="mean",
        p50=lambda one: one.quantile(0.50),
        p95=lambda one: one.quantile(0.95),
        p99=lambda one: one.quantile(0.99),
        workflows="size",
    ).reset_index()


def stream_table(rows: pd.DataFrame, order: Sequence[str]) -> TextTable | None:
    """Make the table of one suite; None: it has no streams.

    Args:
        rows: workflows of the suite.
        order: policies in the order of the table.
    """
    streams = streams_of(rows)
    if streams.empty:
        return None
    runs = stream_runs(rows)
    table = []
    for name, row in run_estimates(runs, order, _SECONDS).items():
        own = runs[runs["policy"] == name]
        ratio = mean_ratio(streams[streams["policy"] == name])
        count = f"{own['workflows'].sum():,} / {len(own)}"
        table.append([name, count, ratio.text(), *(row[one].text(".3g") for one in _SECONDS)])
    return TextTable(["policy", "n", "latency / RoundRobin [95 % CI]", *_SECONDS.values()], table)
