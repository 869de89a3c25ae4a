"""A play of an excerpt equals a play of the whole problem, for the excerpt's stages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.kernel.placements import new_placements
from fate_gym.kernel.schema import DONE, LogArrays, ProblemArrays, StateArrays, new_log, new_state
from fate_gym.problem import Problem
from fate_gym.sim import Excerpt, Simulator
from policies.list_scheduling.play import play
from policies.list_scheduling.rules import FCFS, STATE, STRICT, UPWARD_RANK, Rules
from tests.kernel.walks import somewhere
from tests.strategies import problems

WAITING = 0.3
RULES = (
    Rules(UPWARD_RANK, STATE, 1, 1),
    Rules(UPWARD_RANK, STRICT, 1, 1),
    Rules(FCFS, STATE, 0, 2),
)


def ends(p: ProblemArrays, state: StateArrays, rules: Rules) -> dict[int, float]:
    """Play by the rules; return the end of each stage that ends in the play."""
    log: LogArrays = new_log(0, 0)
    choices = new_placements(p.stages.size, p.max_shards, p.devices.size)
    before = state.stages["status"] == DONE
    play(p, state, log, rules, choices, new_state(p), log, np.inf)
    ended = np.flatnonzero((state.stages["status"] == DONE) & ~before)
    return dict(zip(ended.tolist(), state.stages["end"][ended].tolist(), strict=True))


@settings(max_examples=60)
@given(problems() | problems("pressure", most=20), st.integers(0, 25), st.integers(0, 2**32))
def test_plays_end_as_those_of_the_whole(problem: Problem, steps: int, seed: int) -> None:
    simulator = somewhere(problem, steps, seed, WAITING)
    p = simulator.compiled.arrays
    excerpt = Excerpt(p)
    excerpt.renew(simulator.state)
    for rules in RULES:
        whole = ends(p, simulator.view().fork(), rules)
        part = ends(excerpt.problem, excerpt.state.copy(), rules)
        assert {int(excerpt.stages[s]): end for s, end in part.items()} == whole


@settings(max_examples=30)
@given(problems(), st.integers(0, 25), st.integers(0, 2**32))
def test_it_follows_a_run(problem: Problem, steps: int, seed: int) -> None:
    """Renewed at every step it is what a new one would be, but for stages that have ended."""
    simulator = Simulator(problem, seed=seed)
    p = simulator.compiled.arrays
    kept = Excerpt(p)
    for step in range(steps):
        simulator = somewhere(problem, step, seed, WAITING)
        kept.renew(simulator.state)
        fresh = Excerpt(p)
        fresh.renew(simulator.state)
        assert set(fresh.stages) <= set(kept.stages)
        ended = [
            {int(excerpt.stages[s]): end for s, end in played.items()}
            for excerpt in (kept, fresh)
            for played in [ends(excerpt.problem, excerpt.state.copy(), RULES[0])]
        ]
        assert ended[0] == ended[1]


def test_excerpts_of_later_moments_use_the_same_room(chain: Problem) -> None:
    simulator = Simulator(chain)
    excerpt = Excerpt(simulator.compiled.arrays)
    assert excerpt.renew(simulator.state)
    problem = excerpt.problem
    simulator.place(simulator.ready[0], (0,))
    simulator.wait()
    assert not excerpt.renew(simulator.state)
    assert excerpt.problem is problem


@pytest.fixture
def chain() -> Problem:
    """Return a chain of three stages on two machines."""
    seconds = {name: {"a": 1.0, "b": 2.0} for name in "xyz"}
    return Problem.classical(seconds, {("x", "y"): 1.0, ("y", "z"): 1.0})
