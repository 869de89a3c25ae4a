"""Compile everything once: ``python -m fate_gym.sim.warmup``.

Compiled code is kept on disk (`fate_gym.compiled`); after this no run pays for compiling.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from time import perf_counter
from typing import Any

from fate_gym.compiled import cache_root
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow

ENVIRONMENT = "environment"
SHARED = ("list scheduling",)
"""The families whose compiled code the others are built on."""
PARTS = (("fate", "reference"), ("heuristic", "proxy", "learned", ENVIRONMENT))


def small_problem() -> Problem:
    """A problem that touches every kind of stage; small enough to take no time."""
    devices = tuple(Device(id=f"d{i}", gpu="A100-80", node=f"n{i // 2}") for i in range(3))
    shape: dict[str, Any] = {
        "prefix_group": "g",
        "prefix_tokens": 64,
        "prompt_tokens": 64,
        "output_tokens": 8,
    }
    stages = (
        Stage(id="a", model="Llama-3.1-8B", queries=4, **shape),
        Stage(id="tool", tool_seconds=0.5),
        Stage(id="b", model="Llama-3.1-8B", queries=4, **shape),
        Stage(id="c", model="Phi-3-mini", queries=2, **shape),
    )
    edges = (
        Edge(parent="a", child="tool", bytes=1e3),
        Edge(parent="a", child="b", bytes=1e6, inherited_tokens=32),
        Edge(parent="tool", child="c", bytes=1e3),
        Edge(parent="b", child="c", bytes=1e6),
    )
    return Problem.build(
        Cluster(id="warm-up", devices=devices), [Workflow(id="w", stages=stages, edges=edges)]
    )


def play(families: Sequence[str] | None = None) -> None:
    """Run the policies of some families, or all and the environment, on the small problem."""
    # By name, because the simulator knows neither policies nor environment.
    registry = import_module("policies.registry")
    simulator = import_module("fate_gym.sim.simulator").Simulator(small_problem())
    for name, spec in registry.policy_specs().items():
        if families is not None and spec.family not in families:
            continue
        policy = registry.make_policy(name)
        simulator.run(policy)
        if hasattr(policy, "play"):
            simulator.reset()
            policy.play(simulator)
    if families is None or ENVIRONMENT in families:
        _step_environments()


def _step_environments() -> None:
    environments = import_module("fate_gym.env")
    for dag in (False, True):
        env = environments.WorkflowSchedulingEnv(small_problem(), dag=dag)
        observation, _ = env.reset(seed=0)
        env.step(int(observation["action_mask"].argmax()))
        lanes = environments.WorkflowSchedulingVectorEnv(2, small_problem(), dag=dag)
        observation, _ = lanes.reset(seed=0)
        lanes.step(observation["action_mask"].argmax(axis=1))


def main() -> int:
    """Compile on two processes what the parts do not share, then see that all is there."""
    start = perf_counter()
    play(SHARED)
    with ProcessPoolExecutor(len(PARTS), mp_context=get_context("spawn")) as pool:
        list(pool.map(play, PARTS))
    play()
    print(f"compiled code is in {cache_root()} ({perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
