"""The simulator: what happens when a policy decides (docs/execution-model.md)."""

from fate_gym.sim.compile import CompiledProblem, compile_problem
from fate_gym.sim.excerpt import Excerpt
from fate_gym.sim.policy import (
    Assignment,
    CountingPolicy,
    Decision,
    PlayingPolicy,
    Policy,
    Retention,
)
from fate_gym.sim.simulator import Simulator
from fate_gym.sim.trace import Trace
from fate_gym.sim.view import DecisionView

__all__ = [
    "Assignment",
    "CompiledProblem",
    "CountingPolicy",
    "Decision",
    "DecisionView",
    "Excerpt",
    "PlayingPolicy",
    "Policy",
    "Retention",
    "Simulator",
    "Trace",
    "compile_problem",
]
