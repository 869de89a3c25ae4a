"""What a policy is: the two calls that the simulator makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fate_gym.sim.view import DecisionView


@dataclass(frozen=True, slots=True)
class Assignment:
    """Run ready stage ``stage`` on ``devices``; without ``counts`` in proportion to speed.

    Attributes:
        stage: stage number.
        devices: distinct device numbers, at most ``max_shards``.
        counts: queries of each device, positive, summing to the stage's queries.
    """

    stage: int
    devices: tuple[int, ...]
    counts: tuple[int, ...] | None = None


@runtime_checkable
class Policy(Protocol):
    """Decides where ready stages run. Keeps nothing from one run to the next after `reset`."""

    name: str

    def reset(self, view: DecisionView, seed: int) -> None:
        """Called once before a run. ``seed`` is for the policy's own random choices."""
        ...

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Assign ready stages; called at every event that leaves some ready.

        The assignments take effect in order, then the policy is asked again while stages are
        ready. An empty answer means: wait for the next event.
        """
        ...
