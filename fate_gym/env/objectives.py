"""The rewards of an environment: named ones, functions, or a vector of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fate_gym.env.schema import LATENCY, MAKESPAN, SHAPED, SHAPED_LATENCY


class StepRewards(NamedTuple):
    """The value of each named reward for one step."""

    makespan: Any
    latency: Any
    shaped: Any
    shaped_latency: Any


RewardName = Literal["makespan", "latency", "shaped", "shaped_latency"]
RewardFunction = Callable[[StepRewards, Any], Any]
"""Function of the named rewards of a step and the environment after it; returns a reward.

For the native vector environment the rewards and the result are arrays with one element per lane.
"""
RewardPart = RewardName | RewardFunction
Reward = RewardPart | tuple[RewardPart, ...]

CODES: dict[str, int] = {
    "makespan": MAKESPAN,
    "latency": LATENCY,
    "shaped": SHAPED,
    "shaped_latency": SHAPED_LATENCY,
}


class RewardPlan:
    """How the rewards of a step are computed.

    Attributes:
        objectives: the objectives that compiled code computes, as in `fate_gym.env.schema`.
        plain: whether the reward is exactly one of these.
    """

    def __init__(self, reward: Reward) -> None:
        self._parts = reward if isinstance(reward, tuple) else (reward,)
        self._vector = isinstance(reward, tuple)
        self._calls = any(callable(part) for part in self._parts)
        named = [CODES[part] for part in self._parts if isinstance(part, str)]
        self.objectives = tuple(CODES.values()) if self._calls else tuple(named)
        self.plain = not self._vector and not self._calls

    def space(self) -> spaces.Box | None:
        """Return the space of a reward vector, as in mo-gymnasium; None: rewards are numbers."""
        if not self._vector:
            return None
        return spaces.Box(-np.inf, np.inf, (len(self._parts),), np.float64)

    def of_step(self, rewards: NDArray[np.float64], env: Any, *, invalid: bool) -> Any:
        """Return the reward of a single environment's step.

        Args:
            rewards: (O,) values of the objectives.
            env: the environment after the step.
            invalid: the action was illegal, which costs the penalty in each objective.
        """
        if not self._calls:
            found = rewards.copy()
        elif invalid:
            found = np.full(len(self._parts), rewards[0])
        else:
            named = StepRewards(*rewards.tolist())
            found = np.array([float(self._part(part, named, env)) for part in self._parts])
        return found if self._vector else float(found[0])

    def of_lanes(
        self, rewards: NDArray[np.float64], env: Any, invalid: NDArray[np.bool_], rest: list[int]
    ) -> NDArray[np.float64]:
        """Return the rewards of a vector environment's step: (B,), or (B, parts) for a vector.

        Args:
            rewards: (B, O) values of the objectives.
            env: the environment after the step.
            invalid: (B,) the action of the lane was illegal.
            rest: lanes that have not stepped.
        """
        found = rewards
        if self._calls:
            named = StepRewards(*rewards.T.copy())
            found = np.empty((len(rewards), len(self._parts)))
            for i, part in enumerate(self._parts):
                found[:, i] = self._part(part, named, env)
            found[invalid] = rewards[invalid, :1]
            found[rest] = 0.0
        return found.copy() if self._vector else found[:, 0].copy()

    @staticmethod
    def _part(part: RewardPart, named: StepRewards, env: Any) -> Any:
        return getattr(named, part) if isinstance(part, str) else part(named, env)
