"""Means over the runs of a policy: a run is one problem with one seed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from fate_gym.lab.report.versus import RESAMPLES, SEED
from fate_gym.lab.tables import Estimate
from fate_gym.metrics.statistics import bootstrap_ci

RUN = ["policy", "suite", "problem", "seed"]
"""Columns of ``workflows.parquet`` that together identify a run."""


class TextTable(NamedTuple):
    """A table of a report, as text."""

    heads: list[str]
    rows: list[list[str]]


def streams_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of problems with several workflows (streams)."""
    return rows[rows["workflows"] > 1]


def run_estimates(
    runs: pd.DataFrame, order: Sequence[str], columns: Collection[str]
) -> dict[str, dict[str, Estimate]]:
    """Estimate means over runs by policy and column; 95 % intervals draw whole instances.

    Args:
        runs: one row per run, with ``policy``, ``suite`` and ``instance``.
        order: policies; those without a run are left out.
        columns: columns of ``runs``; NaN values are ignored.
    """
    groups = {str(name): group for name, group in runs.groupby("policy")}
    return {
        name: {column: _mean(groups[name], column) for column in columns}
        for name in order
        if name in groups
    }


def _mean(runs: pd.DataFrame, column: str) -> Estimate:
    known = runs[runs[column].notna()]
    if known.empty:
        return Estimate(np.nan)
    interval = bootstrap_ci(
        known[column].to_numpy(float),
        seed=SEED,
        resamples=RESAMPLES,
        clusters=list(zip(known["suite"], known["instance"], strict=True)),
    )
    return Estimate(interval.mean, interval.low, interval.high)
