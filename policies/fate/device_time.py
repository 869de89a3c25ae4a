"""The price of device time in streams: what known work takes, later work cannot use.

Plays end with the known work. To them, the fast device that they leave idle is worth nothing, and a
prefix computed again on another device costs no more than the wait that it saves. In a stream,
later work pays for both. So once a run turns out to be one (`policies.fate.lasting`), a second of a
device's time has a price, in two places:

* where a stage chooses its device in a list schedule, the seconds that it would take there, times
  ``thrift``, are added to its end;
* in plans' mean latency or slowdown, every second that known work takes counts like ``time_price``
  workflows delayed by a second.

Both are multiplied by the square of the device's relative speed for the work seen so far. With its
first power, the same work would cost the same on any device; with the square, it costs less on slow
ones, which later work wants less.

Devices that batch have no price: a stage that joins a batch takes hardly any time of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import ProblemArrays
from policies.base import DecisionView
from policies.fate.plans.schema import Workspace


class DeviceTime:
    """The prices of the devices of one problem, updated as workflows arrive.

    Args:
        picture: the problem as the planner sees it.
        time_price: seconds of latency, of one workflow, that a second of the fastest device costs.
        thrift: seconds added to an end for each second of the fastest device that a stage takes.
    """

    def __init__(self, picture: ProblemArrays, time_price: float, thrift: float) -> None:
        self._picture, self._price, self._thrift = picture, time_price, thrift
        self._ratios, self._stages = np.zeros(picture.devices.size), np.zeros(picture.devices.size)
        self._arrived = 0

    def update(self, view: DecisionView) -> None:
        """Take account of the workflows that have arrived since the last call."""
        if view.state.arrived_count == self._arrived or self._picture.batching:
            return
        arrived = view.arrived
        for workflow in arrived[self._arrived :]:
            row = self._picture.workflows[workflow]
            seconds = self._picture.clean_seconds[row["stages_from"] : row["stages_to"]]
            ratios = speed_ratios(seconds)
            self._ratios += ratios.sum(axis=0)
            self._stages += (ratios > 0.0).sum(axis=0)
        self._arrived = len(arrived)

    def charge(self, ws: Workspace) -> None:
        """Set the prices of devices in a workspace; the workflows' weights must be set."""
        value = (self._ratios / np.maximum(1, self._stages)) ** 2
        weights = ws.workflows["weight"]
        counted = max(1, np.count_nonzero(weights))
        ws.devices["price"] = self._price * weights.sum() / counted * value
        ws.devices["toll"] = self._thrift * value


def speed_ratios(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (n, D) the shortest time of a stage / its time on a device, 0..1.

    0: the device cannot run it, or it takes no device time (tools).

    Args:
        seconds: (n, D) seconds of stages on devices; inf: cannot run.
    """
    runs = np.isfinite(seconds) & (seconds > 0.0)
    shortest = np.where(runs, seconds, np.inf).min(axis=1, keepdims=True)
    return np.divide(shortest, seconds, out=np.zeros_like(seconds), where=runs)
