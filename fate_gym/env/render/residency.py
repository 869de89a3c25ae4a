"""When models were in the memories of devices."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import EVICT_WEIGHTS
from fate_gym.sim import Trace
from fate_gym.sim.occupancy import lanes


class Residency(NamedTuple):
    """A model in the memory of a device, from its load to its eviction, seconds."""

    device: int
    model: int
    start: float
    end: float


def residencies(trace: Trace, models: NDArray[Any], until: float) -> list[Residency]:
    """Return when models were resident.

    Args:
        trace: trace of the run so far.
        models: (S,) model of each stage, -1 if it has none.
        until: seconds, end of what is still resident.
    """
    since: dict[tuple[int, int], float] = {}
    found: list[Residency] = []
    evictions = trace.evictions[trace.evictions["kind"] == EVICT_WEIGHTS]
    gone: dict[int, list[Any]] = {}
    for row in evictions:
        gone.setdefault(int(row["shard"]), []).append(row)
    failures = [(float(row["down"]), int(row["device"])) for row in trace.outages]
    for number, shard in enumerate(trace.shards):
        start = float(shard["start"])
        # A failure at the instant of a placement comes before it.
        while failures and failures[0][0] <= shard["committed"]:
            _fail(since, found, *failures.pop(0))
        for row in gone.get(number, ()):
            key = (int(row["device"]), int(row["key"]))
            found.append(Residency(*key, since.pop(key, start), start))
        model = int(models[shard["stage"]])
        # On a batching device a waiting shard has no start yet, and has loaded nothing.
        if model >= 0 and start < np.inf:
            since.setdefault((int(shard["device"]), model), start)
    for failure in failures:
        _fail(since, found, *failure)
    found += [Residency(*key, start, max(start, until)) for key, start in since.items()]
    return found


def _fail(
    since: dict[tuple[int, int], float], found: list[Residency], down: float, device: int
) -> None:
    """Remove all models of a failing device, including those of shards yet to come."""
    for key in [key for key in since if key[0] == device]:
        start = since.pop(key)
        if start < down:
            found.append(Residency(*key, start, down))


def strips(here: list[Residency]) -> NDArray[np.int64]:
    """Return a strip for each residency; overlapping ones of a device get different strips."""
    columns = ([one.device for one in here], [one.start for one in here], [one.end for one in here])
    return lanes(*columns)
