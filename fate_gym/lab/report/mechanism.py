"""Why policies differ: means of explanatory metrics, and decision times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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

QUANTILES = (0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
"""Quantiles of decision times, for the decision-time figure."""


def mechanism_means(rows: pd.DataFrame, order: Sequence[str]) -> dict[str, dict[str, float]]:
    """Compute means over workflows of `MECHANISMS`, by title and policy, skipping empty columns."""
    table = {}
    for column, (title, factor) in MECHANISMS.items():
        means = rows.groupby("policy")[column].mean() * factor
        if means.notna().any():
            table[title] = {policy: float(means[policy]) for policy in order}
    return table


def decision_quantiles(decisions: pd.DataFrame, order: Sequence[str]) -> dict[str, list[float]]:
    """Compute `QUANTILES` of milliseconds by policy, skipping policies without decisions."""
    groups = {str(name): ms for name, ms in decisions.groupby("policy")["decision_ms"]}
    return {
        name: [float(value) for value in np.quantile(groups[name], QUANTILES)]
        for name in order
        if name in groups
    }
