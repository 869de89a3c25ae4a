"""The phases of a shard: load and transfer begin together, then prefill, then decode."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Phases(NamedTuple):
    """When the phases of R shards begin and end, seconds. All are (R,).

    Attributes:
        start: start of load and transfer.
        loaded: end of the load.
        moved: end of the transfer.
        begin: start of the prefill, when both are done. On a batching device the prefill includes
            the wait for the next iteration, and for earlier prompts.
        prefilled: end of the prefill: the first tokens are there.
        end: end of the decode, which takes what is left, whatever the actual length.
    """

    start: Floats
    loaded: Floats
    moved: Floats
    begin: Floats
    prefilled: Floats
    end: Floats


def phases(rows: Any, on_host: Any) -> Phases:
    """Return the phases of shards on either kind of device, cut short for lost shards.

    Args:
        rows: columns of `fate_gym.kernel.schema.ShardRow`, by name.
        on_host: (R,) which shards are tools: their noise affects only their own seconds.
    """
    names = ("noise", "start", "load_s", "transfer_s", "first", "end")
    noise, start, load, transfer, first, end = (np.asarray(rows[n], np.float64) for n in names)
    loaded = start + load * noise
    moved = start + transfer * np.where(on_host, 1.0, noise)
    begin = np.maximum(loaded, moved)
    # Times computed in different ways round differently.
    prefilled = np.maximum(begin, first)
    times = Phases(start, loaded, moved, begin, prefilled, end)
    return Phases(*(np.minimum(time, end) for time in times))


__all__ = ["Phases", "phases"]
