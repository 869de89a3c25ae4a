"""Execution of a sequence in a run."""

from __future__ import annotations

from fate_gym.kernel.schema import StateArrays
from policies.base import Assignment, DecisionView
from policies.references.sequences import Search, begin, lay_out, place_due


class Execution:
    """Executes the best sequence of a search.

    Args:
        search: its ``best`` is executed; its scratch tables are overwritten.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._fork: StateArrays = search.state
        lay_out(search.problem, search.best, search.tables)
        begin(search.best, search.tables)
        self._instant = -1

    def due(self, view: DecisionView) -> list[Assignment]:
        """Place the ready stages whose turn it is on their devices."""
        if view.instant == self._instant:
            return []
        self._instant = view.instant
        c = self._search
        place_due(c, view.fork(self._fork), c.best)
        assignments = []
        for stage in c.tables.started[: c.tables.placed].tolist():
            devices = c.best.devices[stage, : c.best.width[stage]]
            assignments.append(Assignment(stage, tuple(devices.tolist())))
        return assignments
