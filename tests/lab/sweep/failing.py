"""Policies that fail when they are run."""

from __future__ import annotations

from fate_gym.sim import DecisionView
from policies.heuristics import RoundRobin


class First(RoundRobin):
    """Fails at the first decision."""

    def reset(self, view: DecisionView, seed: int) -> None:
        raise RuntimeError("on purpose")


class Second(First):
    """The same, under another name."""
