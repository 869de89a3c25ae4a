"""A toll on device time in streams: what known work takes, later work cannot use.

A list schedule puts a stage where it ends first. To it, a fast device that is left idle is worth
nothing, and a prefix computed again on another device costs no more than the wait that it saves. In
a stream, later work pays for both. So once a run turns out to be one (`policies.fate.arrivals`),
the seconds that a stage would take on a device, times a toll, are added to its end where it chooses
its device.

The toll is ``thrift`` x the square of the device's relative speed for the work seen so far. With
its first power, the same work would cost the same on any device; with the square, it costs less on
slow ones, which later work wants less. Objectives do not change: the toll only decides what is
proposed.

On devices that batch there is no toll: a stage that joins a batch takes hardly any time of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import ProblemArrays


class DeviceTime:
    """The tolls of the devices of one problem, updated as workflows arrive.

    Args:
        picture: the problem as the planner sees it.
        thrift: seconds added to an end for each second of the fastest device that a stage takes.

    Attributes:
        tolls: (D,) added to a stage's end for each second that it takes on a device.
    """

    def __init__(self, picture: ProblemArrays, thrift: float) -> None:
        self._picture, self._thrift = picture, thrift
        self.tolls = np.zeros(picture.devices.size)
        self._ratios, self._stages = np.zeros(picture.devices.size), np.zeros(picture.devices.size)

    def update(self, new: Iterable[slice], stream: bool) -> None:
        """Take account of workflows that have arrived.

        Args:
            new: the stages of each of them.
            stream: whether the run has turned out to be a stream.
        """
        if self._picture.batching:
            return
        for stages in new:
            ratios = speed_ratios(self._picture.clean_seconds[stages])
            self._ratios += ratios.sum(axis=0)
            self._stages += (ratios > 0.0).sum(axis=0)
        if stream:
            self.tolls = self._thrift * (self._ratios / np.maximum(1, self._stages)) ** 2


def speed_ratios(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute (n, D) the shortest time of a stage / its time on a device, 0..1.

    0: the device cannot run it, or it takes no device time (tools).

    Args:
        seconds: (n, D) seconds of stages on devices; inf: cannot run.
    """
    runs = np.isfinite(seconds) & (seconds > 0.0)
    shortest = np.where(runs, seconds, np.inf).min(axis=1, keepdims=True)
    return np.divide(shortest, seconds, out=np.zeros_like(seconds), where=runs)
