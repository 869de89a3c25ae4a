"""Simple heuristics: first come, first served, each with its own rule for choosing the device."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from policies.base import DecisionView, OneAtATime


class Random(OneAtATime):
    """Any device that can host the stage, with equal chances."""

    name = "random"

    def reset(self, view: DecisionView, seed: int) -> None:
        """Start the policy's own random numbers."""
        self._rng = np.random.default_rng(seed)

    def choose(self, view: DecisionView, stage: int) -> int:
        return int(self._rng.choice(view.eligible(stage)))


class RoundRobin(OneAtATime):
    """Devices in turn, skipping those that cannot host the stage. Results are relative to this."""

    name = "round_robin"

    def reset(self, view: DecisionView, seed: int) -> None:
        """Start with the first device."""
        self._next = 0

    def choose(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        later = eligible[eligible >= self._next]
        device = int(later[0] if later.size else eligible[0])
        self._next = device + 1
        return device


class LeastLoaded(OneAtATime):
    """The device whose queue drains first; ties: the first."""

    name = "least_loaded"

    def choose(self, view: DecisionView, stage: int) -> int:
        return _least_loaded(view, view.eligible(stage))


class PowerOfTwo(OneAtATime):
    """Of two devices drawn at random, the one whose queue drains first.

    Source: Mitzenmacher 2001, "The power of two choices in randomized load balancing"
    (doi 10.1109/71.963420).
    """

    name = "power_of_two"

    def reset(self, view: DecisionView, seed: int) -> None:
        """Start the policy's own random numbers."""
        self._rng = np.random.default_rng(seed)

    def choose(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        drawn = self._rng.choice(eligible, size=min(2, eligible.size), replace=False)
        return _least_loaded(view, drawn)


class FastestDevice(OneAtATime):
    """The device that runs the stage in the least time, regardless of its queue.

    Ties: the least loaded.
    """

    name = "fastest_device"

    def choose(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        clean = view.clean_seconds(stage)[eligible]
        return _least_loaded(view, eligible[clean == clean.min()])


class LocalityFirst(OneAtATime):
    """The device that holds most bytes of the inputs; ties (and no inputs): the least loaded."""

    name = "locality_first"

    def choose(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        local = view.local_bytes(stage)[eligible]
        return _least_loaded(view, eligible[local == local.max()])


class ResidentFirst(OneAtATime):
    """The least loaded of the devices that hold the model, or of all if none does."""

    name = "resident_first"

    def choose(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        holders = eligible[view.resident(stage)[eligible]]
        return _least_loaded(view, holders if holders.size else eligible)


class PrefixAffinity(OneAtATime):
    """The device that caches most of the stage's prefix; ties (and no hit): the least loaded."""

    name = "prefix_affinity"

    def choose(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        cached = view.cached_prefix_tokens(stage)[eligible]
        return _least_loaded(view, eligible[cached == cached.max()])


def _least_loaded(view: DecisionView, devices: NDArray[np.int64]) -> int:
    return int(devices[view.drain_estimates()[devices].argmin()])
