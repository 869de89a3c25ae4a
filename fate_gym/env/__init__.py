"""What an agent sees: the Gymnasium environment, single and in batches (docs/environment.md).

Importing this package imports none of it; the names below come when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fate_gym.env.adapter import PolicyAdapter
    from fate_gym.env.env import WorkflowSchedulingEnv
    from fate_gym.env.episode import EnvState
    from fate_gym.env.observer import Observer
    from fate_gym.env.output import Observation
    from fate_gym.env.source import ProblemSource
    from fate_gym.env.vector import WorkflowSchedulingVectorEnv
    from fate_gym.env.wrappers import (
        FlatObservation,
        GraphObservation,
        MaskedObservation,
        ReferenceReward,
    )

_HOME = {
    "EnvState": "episode",
    "FlatObservation": "wrappers",
    "GraphObservation": "wrappers",
    "MaskedObservation": "wrappers",
    "Observation": "output",
    "Observer": "observer",
    "PolicyAdapter": "adapter",
    "ProblemSource": "source",
    "ReferenceReward": "wrappers",
    "WorkflowSchedulingEnv": "env",
    "WorkflowSchedulingVectorEnv": "vector",
}

__all__ = [
    "EnvState",
    "FlatObservation",
    "GraphObservation",
    "MaskedObservation",
    "Observation",
    "Observer",
    "PolicyAdapter",
    "ProblemSource",
    "ReferenceReward",
    "WorkflowSchedulingEnv",
    "WorkflowSchedulingVectorEnv",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"fate_gym.env.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
