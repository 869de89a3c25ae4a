"""What has arrived: the stages that are new to a planner, and whether the run is a stream."""

from __future__ import annotations

import numpy as np

from policies.base import DecisionView


class Arrivals:
    """The workflows that have arrived so far in one run.

    Attributes:
        stream: whether work has arrived at two different times.
    """

    def __init__(self) -> None:
        self._count, self._first = 0, np.inf
        self.stream = False

    def update(self, view: DecisionView) -> list[slice]:
        """Return the stages of each workflow that has arrived since the last call."""
        if view.state.arrived_count == self._count:
            return []
        arrived, rows = view.arrived, view.compiled.arrays.workflows
        times = view.state.workflows["arrived_at"]
        if self._count == 0:
            self._first = float(times[arrived[0]])
        new = arrived[self._count :]
        self._count = len(arrived)
        self.stream = float(times[arrived[-1]]) > self._first
        return [slice(rows["stages_from"][w], rows["stages_to"][w]) for w in new]
