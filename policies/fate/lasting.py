"""Model loads that outlast the work they are made for: later work shares their cost.

Plays end with the known work. If that pays for a whole load, a short request never loads a model
that other devices have: it waits for one of them, and so does the next one, and in a stream of
requests hardly any model gets a second copy. But weights that are not evicted stay and serve later
requests too. So once a run turns out to be a stream (work has arrived at two different times), the
planner charges known work for only a share of a load, on devices that have room for all the models
seen so far. Elsewhere a load evicts other weights and is charged in full. Nothing else is assumed
about future arrivals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.schema import ProblemArrays
from policies.base import DecisionView


class LastingLoads:
    """The load times charged to known work, updated as workflows arrive.

    Args:
        picture: the problem as the planner sees it.
        load_share: share of a lasting load that is charged to known work (0..1).

    Attributes:
        seconds: (M, D) seconds charged for loading each model on each device.
        lasting: whether any charge is less than the actual load time.
        stream: whether work has arrived at two different times.
    """

    def __init__(self, picture: ProblemArrays, load_share: float) -> None:
        self._picture, self._share = picture, load_share
        self.seconds = picture.load_seconds.copy()
        self._seen = np.zeros(picture.models.size, np.bool_)
        self._arrived, self._first = 0, np.inf
        self.lasting = self.stream = False

    def update(self, view: DecisionView) -> None:
        """Take account of the workflows that have arrived since the last call."""
        if view.state.arrived_count == self._arrived:
            return
        arrived = view.arrived
        picture, times = self._picture, view.state.workflows["arrived_at"]
        if self._arrived == 0:
            self._first = float(times[arrived[0]])
        for workflow in arrived[self._arrived :]:
            row = picture.workflows[workflow]
            models = picture.stages["model"][row["stages_from"] : row["stages_to"]]
            self._seen[models[models >= 0]] = True
        self._arrived = len(arrived)
        self.stream = float(times[arrived[-1]]) > self._first
        if self.stream:
            lasting = self._seen[:, None] & self._roomy()[None, :]
            full = picture.load_seconds
            self.seconds = np.where(lasting, self._share * full, full)
            self.lasting = self._share < 1.0 and bool(lasting.any())

    def _roomy(self) -> NDArray[np.bool_]:
        """Find the devices (D,) with room for all models seen so far that fit on them singly."""
        weights, memory = self._picture.models["weight_bytes"], self._picture.devices["memory"]
        fits = weights[:, None] <= memory[None, :]
        return np.where(self._seen[:, None] & fits, weights[:, None], 0.0).sum(axis=0) <= memory
