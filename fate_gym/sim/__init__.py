"""The simulator: what happens when a policy decides (docs/execution-model.md)."""

from fate_gym.sim.compile import CompiledProblem, compile_problem
from fate_gym.sim.excerpt import Excerpt
from fate_gym.sim.policy import (
    Assignment,
    Candidate,
    CountingPolicy,
    Decision,
    ExplainingPolicy,
    Explanation,
    PlayingPolicy,
    Policy,
    Retention,
)
from fate_gym.sim.recorder import Recorder
from fate_gym.sim.simulator import Simulator
from fate_gym.sim.trace import Trace
from fate_gym.sim.view import DecisionView

__all__ = [
    "Assignment",
    "Candidate",
    "CompiledProblem",
    "CountingPolicy",
    "Decision",
    "DecisionView",
    "Excerpt",
    "ExplainingPolicy",
    "Explanation",
    "PlayingPolicy",
    "Policy",
    "Recorder",
    "Retention",
    "Simulator",
    "Trace",
    "compile_problem",
]
