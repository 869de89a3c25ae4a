"""Runs after random actions, for tests of states."""

from __future__ import annotations

import numpy as np

from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from tests.kernel.test_placements import candidates


def somewhere(problem: Problem, steps: int, seed: int, waiting: float = 0.0) -> Simulator:
    """Return a run after ``steps`` random actions, waiting with probability ``waiting``.

    There are fewer actions if everything is done or nothing can be placed.
    """
    simulator = Simulator(problem, seed=seed)
    shards = simulator.compiled.shape[-1]
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        if simulator.done:
            break
        if not simulator.ready or rng.random() < waiting:
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
