"""Actions are the candidate placements of the simulator's generator, bit for bit."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.problem import Problem
from fate_gym.sim import Assignment, Simulator
from policies.list_scheduling.orders import ready_order
from policies.list_scheduling.rules import FDWS
from tests.env.episodes import play
from tests.kernel.test_placements import candidates
from tests.strategies import problems


def assert_actions_are_candidates(env: WorkflowSchedulingEnv) -> None:
    """Check every slot and position against the generator, and the mask."""
    simulator = Simulator(env.compiled, seed=env.noise_seed)
    simulator.restore(env.state().moment.state)
    window = env.window
    # The first of those who choose in FDWS; inside one workflow that is the order of upward ranks.
    order = ready_order(env.compiled.arrays, simulator.state, FDWS)
    assert window == order[: env.env_spec.options.window].tolist()
    ready = simulator.ready
    mask = env.action_masks()
    # Where there is nothing to place, waiting ends the episode.
    assert mask[-1] == (simulator.view().can_wait or not ready)
    positions, shards = env.env_spec.positions, env.env_spec.options.max_shards
    most = env.compiled.shape[5]
    for slot in range(env.env_spec.options.window):
        base = slot * positions
        if slot >= len(window):
            assert not mask[base : base + positions].any()
            continue
        offered = candidates(simulator, window[slot], shards)
        for position, candidate in enumerate(offered):
            if candidate is None or len(candidate[0]) > most:
                assert not mask[base + position]
                continue
            assert mask[base + position]
            assignment = env.placement(base + position)
            assert assignment is not None
            assert assignment.stage == window[slot]
            assert (assignment.devices, assignment.counts) == candidate
            assert env.action_of(assignment, exact=True) == base + position


@settings(max_examples=40)
@given(problems(), st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 4))
def test_actions_are_candidates(problem: Problem, seed: int, window: int, shards: int) -> None:
    env = WorkflowSchedulingEnv(problem, window=window, max_shards=shards)
    env.reset(seed=seed)
    assert_actions_are_candidates(env)

    def check(_: object, __: object) -> None:
        if not env.ended:
            assert_actions_are_candidates(env)

    play(env, np.random.default_rng(seed), illegal=0.1, each=check)


@settings(max_examples=15)
@given(problems(), st.integers(0, 2**32))
def test_after_direct_placements(problem: Problem, seed: int) -> None:
    """What is kept from step to step follows placements that are not actions, too."""
    env = WorkflowSchedulingEnv(problem, window=3)
    env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    while not env.ended:
        assert_actions_are_candidates(env)
        view = env.view()
        if not view.ready or (view.can_wait and rng.random() < 0.2):
            env.step(int(env.action_space.n) - 1)
            continue
        stage = int(rng.choice(view.ready))
        device = int(rng.choice(view.eligible(stage)))
        env.place(Assignment(stage, (device,)))
