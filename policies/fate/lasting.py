"""Model loads that outlast the work they are made for: later work shares their cost.

Plays end with the known work. If that pays for a whole load, a short request never loads a model
that other devices have: it waits for one of them, and so does the next one, and in a stream of
requests hardly any model gets a second copy. But weights that are not evicted stay and serve later
requests too. So once a run turns out to be a stream (`policies.fate.arrivals`), the planner charges
known work for only a share of a load, on devices that have room for all the models seen so far.
Elsewhere a load evicts other weights and is charged in full. Nothing else is assumed about future
arrivals.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import ProblemArrays


class LastingLoads:
    """The load times charged to known work, updated as workflows arrive.

    Args:
        picture: the problem as the planner sees it.
        load_share: share of a lasting load that is charged to known work (0..1).

    Attributes:
        seconds: (M, D) seconds charged for loading each model on each device.
        lasting: whether any charge is less than the actual load time.
    """

    def __init__(self, picture: ProblemArrays, load_share: float) -> None:
        self._picture, self._share = picture, load_share
        self.seconds = picture.load_seconds.copy()
        self._seen = np.zeros(picture.models.size, np.bool_)
        self.lasting = False

    def update(self, new: Iterable[slice], stream: bool) -> None:
        """Take account of workflows that have arrived.

        Args:
            new: the stages of each of them.
            stream: whether the run has turned out to be a stream.
        """
        for stages in new:
            models = self._picture.stages["model"][stages]
            self._seen[models[models >= 0]] = True
        if stream:
            lasting = self._seen[:, None] & self._roomy()[None, :]
            full = self._picture.load_seconds
            self.seconds = np.where(lasting, self._share * full, full)
            self.lasting = self._share < 1.0 and bool(lasting.any())

    def _roomy(self) -> NDArray[np.bool_]:
        """Find the devices (D,) with room for all models seen so far that fit on them singly."""
        weights, memory = self._picture.models["weight_bytes"], self._picture.devices["memory"]
        fits = weights[:, None] <= memory[None, :]
        return np.where(self._seen[:, None] & fits, weights[:, None], 0.0).sum(axis=0) <= memory
