"""What `reserve` did can be taken back, whatever was evicted, grown or queued for it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.compiled import compiled
from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.sim.engine import reserve
from fate_gym.sim.layout import NO_LOG, Array, Buffer, problem_view, state_view
from fate_gym.sim.scratch import restore
from tests.sim.test_candidates import candidates
from tests.strategies import problems


@compiled
def _restore(
    problem: Buffer, state: Buffer, scratch: Buffer, s: int, devices: Array, k: int
) -> None:
    p = problem_view(problem)
    restore(p, state_view(state, p), state_view(scratch, p), s, devices, k)


@settings(max_examples=80)
@given(problems() | problems("pressure", most=20), st.integers(0, 20), st.integers(0, 2**32))
def test_a_scratch_state_is_the_state_again(problem: Problem, steps: int, seed: int) -> None:
    simulator = Simulator(problem, seed=seed)
    buffer, shards = simulator.compiled.buffer, simulator.compiled.shape[-1]
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        if simulator.done:
            break
        if not simulator.ready:
            simulator.wait()
            continue
        stage = int(rng.choice(simulator.ready))
        found = [c for c in candidates(simulator, stage, shards) if c is not None]
        if not found:
            break
        simulator.place(stage, *found[rng.integers(len(found))])
    before = simulator.state.copy()
    scratch = before.copy()
    for stage in simulator.ready:
        for candidate in candidates(simulator, stage, shards):
            if candidate is None:
                continue
            devices, counts = np.array(candidate[0]), np.array(candidate[1])
            reserve(buffer, scratch, NO_LOG, stage, devices, counts, devices.size)
            assert (scratch != before).any()
            _restore(buffer, before, scratch, stage, devices, devices.size)
            np.testing.assert_array_equal(scratch, before)
    np.testing.assert_array_equal(simulator.state, before)
