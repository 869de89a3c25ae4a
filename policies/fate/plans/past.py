"""Latencies of ended workflows, for objectives over all workflows."""

from __future__ import annotations

from bisect import insort

import numpy as np

from policies.base import DecisionView
from policies.fate.plans.objective import TAIL_SHARE
from policies.fate.plans.schema import Workspace


class Past:
    """The latencies of ended workflows, each computed once."""

    def __init__(self) -> None:
        self._under_way: list[int] = []
        self._negative: list[float] = []

    def look_up(self, view: DecisionView, ws: Workspace) -> None:
        """Fill ``past`` with the worst latencies of ended workflows, and the counts."""
        arrived = view.arrived
        self._under_way += arrived[len(self._under_way) + len(self._negative) :]
        states, stages = view.state.workflows, view.state.stages
        rows = view.compiled.arrays.workflows
        under_way = []
        for w in self._under_way:
            if states["left"][w] > 0:
                under_way.append(w)
                continue
            own = slice(rows["stages_from"][w], rows["stages_to"][w])
            insort(self._negative, float(states["arrived_at"][w] - stages["end"][own].max()))
        self._under_way = under_way
        count = min(len(self._negative), int(np.ceil(TAIL_SHARE * len(arrived))))
        ws.past[:count] = np.negative(self._negative[:count])
        ws.past_count, ws.ended_count = count, len(self._negative)
