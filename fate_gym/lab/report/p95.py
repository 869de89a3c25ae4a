"""The 95th percentile of a policy's latency ratios, with its bootstrap interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fate_gym.lab.report.versus import RESAMPLES, SEED
from fate_gym.lab.tables import Estimate
from fate_gym.metrics.outcome import ratios as time_ratios

_CHUNK = 4_000_000


def p95_ratio(frame: pd.DataFrame) -> Estimate:
    """Compute ``latency_ratio_p95`` of one policy's rows (see `fate_gym.lab.report.summary`)."""
    rng = np.random.default_rng(SEED)
    if (frame["workflows"] == 1).all():
        groups = frame.groupby(["suite", "instance"]).ngroup().to_numpy()
        values = frame["latency_ratio"].to_numpy()
        value, count = _p95(values), int(groups.max()) + 1
        draws = rng.integers(count, size=(RESAMPLES, count))
        samples = _resampled_p95(values, groups, draws)
    else:
        streams = frame.groupby(["suite", "problem", "seed"])[["latency", "rr_latency"]]
        tails = streams.quantile(0.95)
        ratios = time_ratios(tails["latency"].to_numpy(), tails["rr_latency"].to_numpy())
        value, count = float(ratios.mean()), len(ratios)
        samples = ratios[rng.integers(count, size=(RESAMPLES, count))].mean(axis=1)
    if count == 1:
        return Estimate(value)
    return Estimate(value, *np.quantile(samples, [0.025, 0.975]).tolist())


def _resampled_p95(
    values: NDArray[np.float64], groups: NDArray[Any], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Compute the 95th percentile (R,) of each draw of whole groups (R, groups).

    A group drawn twice has its values weighted twice; percentiles are read off cumulative weights.
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
