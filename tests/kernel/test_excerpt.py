"""A play of an excerpt is a play of the whole, as far as its stages go."""

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
from tests.kernel.test_placements import candidates
from tests.strategies import problems

ALL = 10**6
RULES = (
    Rules(UPWARD_RANK, STATE, 1, 1),
    Rules(UPWARD_RANK, STRICT, 1, 1),
    Rules(FCFS, STATE, 0, 2),
)


def somewhere(problem: Problem, steps: int, seed: int) -> Simulator:
    """A run after some random placements."""
    simulator = Simulator(problem, seed=seed)
    shards = simulator.compiled.shape[-1]
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        if simulator.done:
            break
        if not simulator.ready or rng.random() < 0.3:
            if not simulator.view().can_wait:
                break
            simulator.wait()
            continue
        stage = int(rng.choice(simulator.ready))
        found = [c for c in candidates(simulator, stage, shards) if c is not None]
        if not found:
            break
        simulator.place(stage, *found[rng.integers(len(found))])
    return simulator


def ends(p: ProblemArrays, state: StateArrays, rules: Rules) -> dict[int, float]:
    """The end of each stage that a play of the rules brings to one."""
    log: LogArrays = new_log(0, 0)
    choices = new_placements(p.stages.size, p.max_shards, p.devices.size)
    before = state.stages["status"] == DONE
    play(p, state, log, rules, choices, new_state(p), log)
    ended = np.flatnonzero((state.stages["status"] == DONE) & ~before)
    return dict(zip(ended.tolist(), state.stages["end"][ended].tolist(), strict=True))


@settings(max_examples=60)
@given(problems() | problems("pressure", most=20), st.integers(0, 25), st.integers(0, 2**32))
def test_plays_end_as_those_of_the_whole(problem: Problem, steps: int, seed: int) -> None:
    simulator = somewhere(problem, steps, seed)
    p = simulator.compiled.arrays
    excerpt = Excerpt(p, ALL)
    excerpt.renew(simulator.state)
    for rules in RULES:
        whole = ends(p, simulator.view().fork(), rules)
        part = ends(excerpt.problem, excerpt.state.copy(), rules)
        assert {int(excerpt.stages[s]): end for s, end in part.items()} == whole


@settings(max_examples=30)
@given(problems(), st.integers(0, 25), st.integers(0, 2**32), st.integers(1, 5))
def test_a_small_excerpt_has_no_stage_without_its_parents(
    problem: Problem, steps: int, seed: int, most: int
) -> None:
    simulator = somewhere(problem, steps, seed)
    excerpt = Excerpt(simulator.compiled.arrays, most)
    excerpt.renew(simulator.state)
    status = simulator.state.stages["status"]
    chosen = excerpt.stages.tolist()
    left = int((status[chosen] < 2).sum())
    arrived = simulator.view().arrived
    known = np.isin(simulator.compiled.workflow_of, arrived) & (status < 2)
    assert left == excerpt.unplaced == min(most, int(known.sum()))
    assert excerpt.cut == int(known.sum()) - left
    parents = zip(simulator.compiled.edge_parent, simulator.compiled.edge_child, strict=True)
    for parent, child in parents:
        if child in chosen and status[child] < DONE:
            assert parent in chosen
    # What is in it comes to an end.
    played = ends(excerpt.problem, excerpt.state.copy(), RULES[0])
    if not problem.options.failures:
        assert len(played) == int((status[chosen] < DONE).sum())


def test_excerpts_of_later_moments_use_the_same_room(chain: Problem) -> None:
    simulator = Simulator(chain)
    excerpt = Excerpt(simulator.compiled.arrays, ALL)
    excerpt.renew(simulator.state)
    problem = excerpt.problem
    simulator.place(simulator.ready[0], (0,))
    simulator.wait()
    assert not excerpt.renew(simulator.state)
    assert excerpt.problem is problem


@pytest.fixture
def chain() -> Problem:
    """Three stages, one behind the other, on two machines."""
    seconds = {name: {"a": 1.0, "b": 2.0} for name in "xyz"}
    return Problem.classical(seconds, {("x", "y"): 1.0, ("y", "z"): 1.0})
