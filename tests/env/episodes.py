"""Helpers that play episodes, for the tests of the environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import Observation, WorkflowSchedulingEnv
from fate_gym.problem import Problem

Step = tuple[Observation, float, bool, dict[str, Any]]


def legal_action(mask: NDArray[Any], rng: np.random.Generator) -> int:
    """Draw one of the legal actions."""
    return int(rng.choice(np.flatnonzero(mask)))


def play(
    env: WorkflowSchedulingEnv,
    rng: np.random.Generator,
    *,
    illegal: float = 0.0,
    each: Callable[[Observation, dict[str, Any]], None] | None = None,
    waits: float = 0.2,
) -> list[Step]:
    """Take random actions until the episode ends; return all steps.

    Args:
        env: the environment, after a reset.
        rng: generator of the actions.
        illegal: share of actions drawn from all numbers, including some outside the action space.
        each: called with the observation and the info after every step.
        waits: share of actions that wait, where that is legal.
    """
    steps: list[Step] = []
    ended = env.ended
    size = int(env.action_space.n)  # type: ignore[attr-defined]
    while not ended:
        mask = env.action_masks()
        if rng.random() < illegal:
            action = int(rng.integers(-2, size + 3))
        elif mask[-1] and rng.random() < waits:
            action = size - 1
        else:
            action = legal_action(mask, rng)
        observation, reward, ended, truncated, info = env.step(action)
        assert not truncated
        legal = 0 <= action < size and bool(mask[action])
        assert info["invalid_action"] == (not legal)
        if each is not None:
            each(observation, info)
        steps.append((observation, float(reward), ended, info))
    return steps


def batching(problem: Problem, **serving: Any) -> Problem:
    """Return the problem on batching devices."""
    cluster = problem.cluster.model_copy(update={"execution": "batching", **serving})
    return problem.model_copy(update={"cluster": cluster})


def same(a: Any, b: Any) -> bool:
    """Return whether two observations or infos are equal, bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and np.array_equal(a, b))
    return bool(a == b)
