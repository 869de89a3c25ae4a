"""The Gymnasium environment, single and vectorised (docs/environment.md)."""

from fate_gym.env.adapter import PolicyAdapter
from fate_gym.env.env import WorkflowSchedulingEnv
from fate_gym.env.episode import EnvState
from fate_gym.env.objectives import StepRewards
from fate_gym.env.observer import Observer
from fate_gym.env.output import Observation
from fate_gym.env.source import ProblemSource
from fate_gym.env.vector import VectorEnvState, WorkflowSchedulingVectorEnv
from fate_gym.env.wrappers import (
    FlatObservation,
    FlatVectorObservation,
    GraphObservation,
    MaskedObservation,
    ReferenceReward,
)

__all__ = [
    "EnvState",
    "FlatObservation",
    "FlatVectorObservation",
    "GraphObservation",
    "MaskedObservation",
    "Observation",
    "Observer",
    "PolicyAdapter",
    "ProblemSource",
    "ReferenceReward",
    "StepRewards",
    "VectorEnvState",
    "WorkflowSchedulingEnv",
    "WorkflowSchedulingVectorEnv",
]
