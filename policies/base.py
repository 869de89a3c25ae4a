"""Types and helpers that policies build on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.placements import Placements
from fate_gym.sim import (
    Assignment,
    Candidate,
    Decision,
    DecisionView,
    ExplainingPolicy,
    Explanation,
    Policy,
    Retention,
)

__all__ = [
    "Assignment",
    "Candidate",
    "Decision",
    "DecisionView",
    "ExplainingPolicy",
    "Explanation",
    "OneAtATime",
    "Policy",
    "Retention",
    "assignments",
    "candidates_of",
]


class OneAtATime:
    """A heuristic that places the first ready stage (first come, first served), then the next.

    Subclasses choose the devices. The simulator asks again as long as stages are ready, so each
    choice sees the effect of the one before.
    """

    name: str = ""

    def reset(self, view: DecisionView, seed: int) -> None:
        """Do nothing: no state is kept from one run to the next."""

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the stage that has been ready longest."""
        stage = view.ready[0]
        return [Assignment(stage, (self.choose(view, stage),))]

    def choose(self, view: DecisionView, stage: int) -> int:
        """The device for one ready stage."""
        raise NotImplementedError


def assignments(placements: Placements, which: slice | NDArray[np.int64]) -> list[Assignment]:
    """Convert some rows of a placement table to assignments."""
    rows = placements.rows[which]
    stages, widths = rows["stage"].tolist(), rows["width"].tolist()
    devices, counts = placements.devices[which].tolist(), placements.counts[which].tolist()
    return [
        Assignment(stages[i], tuple(devices[i][:k]), tuple(counts[i][:k]) if k > 1 else None)
        for i, k in enumerate(widths)
    ]


def candidates_of(
    placements: Placements, stages: NDArray[np.int64] | None = None
) -> list[Candidate]:
    """Convert the rows of a placement table to candidates; skip rows without stage or device.

    Args:
        placements: the table.
        stages: (n,) the problem's stage number for each of the table's; None: they are the same.
    """
    count = placements.count
    rows = placements.rows[:count]
    numbers, widths = rows["stage"].tolist(), rows["width"].tolist()
    devices, values = placements.devices[:count].tolist(), rows["value"].tolist()
    return [
        Candidate(
            number if stages is None else int(stages[number]),
            tuple(devices[i][: widths[i]]),
            values[i],
        )
        for i, number in enumerate(numbers)
        if number >= 0 and widths[i] > 0
    ]
