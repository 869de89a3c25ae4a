"""`reserve` can be undone, whatever was evicted, grown or queued for it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.kernel.commit import reserve
from fate_gym.kernel.schema import NO_LOG
from fate_gym.kernel.undo import take_back
from fate_gym.problem import Problem
from tests.kernel.test_placements import candidates
from tests.kernel.walks import somewhere
from tests.strategies import problems


@settings(max_examples=80)
@given(problems() | problems("pressure", most=20), st.integers(0, 20), st.integers(0, 2**32))
def test_a_scratch_state_is_the_state_again(problem: Problem, steps: int, seed: int) -> None:
    simulator = somewhere(problem, steps, seed)
    arrays, shards = simulator.compiled.arrays, simulator.compiled.shape[-1]
    before = simulator.state.copy()
    scratch = before.copy()
    for stage in simulator.ready:
        for candidate in candidates(simulator, stage, shards):
            if candidate is None:
                continue
            devices, counts = np.array(candidate[0]), np.array(candidate[1])
            reserve(arrays, scratch, NO_LOG, stage, devices, counts, devices.size, 0)
            assert (scratch.buffer != before.buffer).any()
            take_back(arrays, before, scratch, stage, devices, devices.size)
            np.testing.assert_array_equal(scratch.buffer, before.buffer)
    np.testing.assert_array_equal(simulator.state.buffer, before.buffer)
