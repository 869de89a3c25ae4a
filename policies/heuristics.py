"""Simple heuristics: first come, first served, one rule for the device each."""

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
    """Devices in turn, skipping those that cannot host the stage. The reference of all results."""

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


class ResidentFirst(OneAtATime):
    """Among devices that hold the model the least loaded; if none does, the least loaded."""

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
