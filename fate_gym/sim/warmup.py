"""Compile everything once: ``python -m fate_gym.sim.warmup``.

Compiled code is kept on disk (`fate_gym.compiled`); after this no run pays for compiling.
"""

from __future__ import annotations

import sys
from importlib import import_module
from time import perf_counter
from typing import Any

from fate_gym.compiled import cache_root
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow


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


def main() -> int:
    """Run every registered policy on a small problem."""
    # By name, because the simulator does not know the policies.
    registry = import_module("policies.registry")
    simulator_module = import_module("fate_gym.sim.simulator")
    start = perf_counter()
    simulator = simulator_module.Simulator(small_problem())
    for name in registry.policy_names():
        policy = registry.make_policy(name)
        simulator.run(policy)
        if hasattr(policy, "play"):
            simulator.reset()
            policy.play(simulator)
    print(f"compiled code is in {cache_root()} ({perf_counter() - start:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
