"""What every policy builds on."""

from __future__ import annotations

from collections.abc import Sequence

from fate_gym.sim import Assignment, Decision, DecisionView, Policy, Retention

__all__ = ["Assignment", "Decision", "DecisionView", "OneAtATime", "Policy", "Retention"]


class OneAtATime:
    """A heuristic that places the first ready stage (first come, first served), then the next.

    Subclasses choose the devices. The simulator asks again as long as stages are ready, so each
    choice sees the effect of the one before.
    """

    name: str = ""

    def reset(self, view: DecisionView, seed: int) -> None:
        """Nothing is kept from one run to the next."""

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the stage that has been ready longest."""
        stage = view.ready[0]
        return [Assignment(stage, (self.choose(view, stage),))]

    def choose(self, view: DecisionView, stage: int) -> int:
        """The device for one ready stage."""
        raise NotImplementedError
