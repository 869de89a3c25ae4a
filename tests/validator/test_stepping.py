"""Runs by the validator's own stepping: the validator accepts them, and invariants hold.

The stages are short and their prompts long, so that a device runs out of memory, sequences and
budget: whatever the section "The batching device" of docs/execution-model.md knows occurs.
"""

from __future__ import annotations

import random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fate_gym.catalog import Gpu, Model
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.problem.problem import Failures, Outage
from fate_gym.validator import validate
from fate_gym.validator.world import Node
from tests.validator.stepping import Player, Share, play

GPU = Gpu(
    name="Small", memory_gb=10, bandwidth_gb_s=1000, tflops=100, pcie=4, watts=1, usd_per_hour=1,
    mfu=0.5, mbu=0.5,
)  # fmt: skip
SHAPE: dict[str, Any] = {"layers": 10, "hidden": 1000, "kv_heads": 10, "head_dim": 250}
MODELS = [Model(name=name, params_b=1, weight_gb=4, **SHAPE) for name in ("M", "N")]
"""50,000 tokens fit beside the weights."""


def crowd(seed: int) -> Problem:
    """Draw some workflows of short stages on two devices.

    Half of the problems are tight: single queries, of which some fill the memory together, so that
    one that grows takes it from another.
    """
    rng = random.Random(seed)
    tight = rng.random() < 0.5
    workflows = []
    for number in range(rng.randint(2, 8)):
        count = rng.randint(1, 4)
        stages = [_stage(rng, f"s{i}", tight=tight) for i in range(count)]
        edges = [
            Edge(
                parent=f"s{i}", child=f"s{i + 1}", bytes=rng.choice([0.0, 1e6, 3e8]),
                inherited_tokens=0 if tight else rng.choice([0, 100, 5000]),
            )
            for i in range(count - 1)
            if rng.random() < 0.8
        ]  # fmt: skip
        arrival = rng.choice([0.0, rng.uniform(0, 6)])
        workflows.append(
            Workflow(id=f"w{number}", arrival=arrival, stages=tuple(stages), edges=tuple(edges))
        )
    cluster = Cluster(
        id="two",
        devices=tuple(Device(id=f"d{i}", gpu="Small", node=f"n{i}") for i in range(2)),
        network_gb_s=rng.choice([0.1, 10.0]),
        execution="batching",
        prefill=rng.choice(["chunked", "first"]),
        token_budget=rng.choice([8, 512, 8192]),
        max_sequences=8 if tight else rng.choice([1, 4, 8]),
    )
    options = Options(
        uncertainty=rng.choice([0.0, 0.5]),
        length_uncertainty=1.0 if tight else rng.choice([0.0, 1.0]),
        contention=rng.random() < 0.3,
    )
    return Problem.build(cluster, workflows, options=options, gpus=[GPU], models=MODELS)


def _stage(rng: random.Random, name: str, *, tight: bool) -> Stage:
    if rng.random() < 0.1:
        return Stage(id=name, tool_seconds=rng.choice([0.0, 0.1]))
    if rng.random() < 0.1:
        return Stage(id=name, seconds_on={"d0": 0.2, "d1": 0.0})
    if tight:
        prefix = rng.choice([0, 0, 20])
        return Stage(
            id=name,
            model="M",
            prefix_group="g" if prefix else None,
            prefix_tokens=prefix,
            prompt_tokens=rng.choice([16630, 24950]),
            output_tokens=20,
        )
    prefix = rng.choice([0, 0, 2000, 6000])
    return Stage(
        id=name,
        model="M" if rng.random() < 0.9 else "N",
        queries=rng.choice([1, 1, 2, 9]),
        prefix_group=rng.choice(["g", "h"]) if prefix else None,
        prefix_tokens=prefix,
        prompt_tokens=rng.choice([1, 50, 3000, 16640, 24970]),
        output_tokens=rng.choice([0, 1, 20, 60]),
    )


def anywhere(rng: random.Random) -> Any:
    """Split stages at random over the devices, some with a prefix copied from the other one."""

    def rule(player: Player, node: Node, devices: Any) -> list[Share]:
        first, *others = rng.sample(list(devices), len(devices))
        source = rng.choice([-1, 1 - first]) if node.model else -1
        n = node.stage.queries
        if others and n > 1 and rng.random() < 0.3:
            return [Share(first, n - 1, source), Share(others[0], 1)]
        return [Share(first, n, source)]

    return rule


def run(seed: int) -> Any:
    """Run a crowd with draws, and in some cases with failures of the second device."""
    rng = random.Random(seed)
    lengths = [rng.lognormvariate(0, 1) for _ in range(40)]
    noise = [rng.lognormvariate(0, 0.5) for _ in range(120)]
    problem, outages = crowd(seed), []
    if rng.random() < 0.3:
        outages = [(1, 0.5, 1.0), (1, 2.5, 3.0)]
        given = [Outage(device="d1", at=down, seconds=up - down) for _, down, up in outages]
        options = problem.options.model_copy(update={"failures": Failures(outages=tuple(given))})
        problem = problem.model_copy(update={"options": options})
    return play(
        problem,
        anywhere(rng),
        noise=lambda stage, device: noise[3 * stage + device],
        length=lambda stage: lengths[stage],
        outages=outages,
    )


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=25)
@given(st.integers(0, 2**32))
def test_what_was_played_is_valid(seed: int) -> None:
    assert validate(run(seed)) == []
