"""Queries in service, the time that something runs, and lanes for overlapping bars."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Steps(NamedTuple):
    """A step function of time.

    Attributes:
        times: (n,) seconds, ascending; before the first the value is 0.
        values: (n,) from each time to the next; the last is 0.
    """

    times: Floats
    values: Integers

    def integral(self) -> float:
        """Return the integral over time: value x seconds."""
        return float(np.diff(self.times) @ self.values[:-1]) if self.times.size else 0.0

    def positive_seconds(self) -> float:
        """Return for how many seconds the value is above 0."""
        return float(np.diff(self.times)[self.values[:-1] > 0].sum()) if self.times.size else 0.0

    def means(self, edges: Floats) -> Floats:
        """Return (n - 1,) mean values between each of n ascending times and the next."""
        if not self.times.size:
            return np.zeros(len(edges) - 1)
        area = np.concatenate([[0.0], np.cumsum(np.diff(self.times) * self.values[:-1])])
        found: Floats = np.diff(np.interp(edges, self.times, area)) / np.diff(edges)
        return found


def steps(start: ArrayLike, end: ArrayLike, weight: ArrayLike = 1) -> Steps:
    """Return, over time, the sum of the weights of the bars that cover each moment.

    Args:
        start: (R,) seconds; a bar covers [start, end).
        end: (R,) seconds.
        weight: (R,) whole numbers, or one for all.
    """
    first, last = np.asarray(start, np.float64), np.asarray(end, np.float64)
    change = np.broadcast_to(np.asarray(weight, np.int64), first.shape)
    shown = last > first
    first, last, change = first[shown], last[shown], change[shown]
    times, place = np.unique(np.concatenate([first, last]), return_inverse=True)
    values = np.zeros(times.size, np.int64)
    np.add.at(values, place, np.concatenate([change, -change]))
    return Steps(times, values.cumsum())


def in_service(rows: Any) -> Integers:
    """Return (R,) queries of each shard that run at once, as if all its waves were equal.

    Args:
        rows: columns of `fate_gym.kernel.schema.ShardRow`, by name.
    """
    queries, waves = (np.asarray(rows[name], np.int64) for name in ("queries", "waves"))
    return -(-queries // np.maximum(waves, 1))


def occupancy(rows: Any) -> Steps:
    """Return the queries in service over time; a shard serves from its start to its end."""
    return steps(rows["start"], rows["end"], in_service(rows))


def lanes(row: ArrayLike, start: ArrayLike, end: ArrayLike) -> Integers:
    """Return (R,) a lane for each bar, such that no two bars of a row overlap in one lane.

    Each bar takes the lowest lane that is free when it starts; bars of zero length are in lane 0.
    """
    rows, first, last = np.asarray(row), np.asarray(start), np.asarray(end)
    lane = np.zeros(rows.size, np.int64)
    taken: dict[int, list[tuple[float, int]]] = {}
    free: dict[int, list[int]] = {}
    shown = np.flatnonzero(last > first)
    for i in shown[np.argsort(first[shown], kind="stable")].tolist():
        busy, open_lanes = taken.setdefault(int(rows[i]), []), free.setdefault(int(rows[i]), [])
        while busy and busy[0][0] <= first[i]:
            heappush(open_lanes, heappop(busy)[1])
        lane[i] = heappop(open_lanes) if open_lanes else len(busy)
        heappush(busy, (float(last[i]), int(lane[i])))
    return lane


__all__ = ["Steps", "in_service", "lanes", "occupancy", "steps"]
