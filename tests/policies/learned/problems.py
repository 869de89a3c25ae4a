"""Small problems and observations for the tests of agents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.env.options import EnvOptions
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies.learned.agent import PointerAgent

OPTIONS = EnvOptions(window=4, max_shards=2)


def smoke() -> list[Problem]:
    """Return two tiny real workflows on eight GPUs."""
    suite = load_suite("smoke")
    return build_suite(suite, load_cluster(suite.cluster), seed=0)


def stream(noise: float = 0.0) -> Problem:
    """Return three workflows that arrive over time."""
    first = smoke()[0]
    workflows = tuple(
        first.workflows[0].model_copy(update={"id": f"w{i}", "arrival": 3.0 * i}) for i in range(3)
    )
    return first.model_copy(
        update={
            "workflows": workflows,
            "options": first.options.model_copy(update={"uncertainty": noise}),
        }
    )


def two_speeds(stages: int = 6) -> Problem:
    """Return equal stages, a fast device and a slow one, so that good decisions are obvious."""
    return Problem.build(
        Cluster(
            id="two",
            devices=(
                Device(id="fast", gpu="H100-SXM", node="n0"),
                Device(id="slow", gpu="A10G", node="n1"),
            ),
        ),
        [
            Workflow(
                id="w",
                stages=tuple(
                    Stage(
                        id=f"s{i}",
                        model="Llama-3.1-8B",
                        queries=4,
                        prompt_tokens=800,
                        output_tokens=100,
                    )
                    for i in range(stages)
                ),
            )
        ],
    )


def observations(
    problem: Problem, count: int = 12, seed: int = 0, **options: Any
) -> list[dict[str, NDArray[Any]]]:
    """Return the observations of an agent that acts at random."""
    env = WorkflowSchedulingEnv(problem, **(OPTIONS.model_dump() | options))
    observation, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        found.append(observation)
        action = rng.choice(np.flatnonzero(observation["action_mask"]))
        observation, _, ended, _, _ = env.step(action)
        if ended:
            observation, _ = env.reset()
    return found


def random_weights(seed: int = 0, hidden: int = 8, rounds: int = 2) -> dict[str, NDArray[Any]]:
    """Return the parameters of an untrained pointer network, by name."""
    from fate_gym.env.features import DEVICE_WIDTH, GLOBAL_WIDTH, STAGE_WIDTH
    from policies.learned.pointer import CANDIDATE_INPUTS

    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, width in (
        ("stage_in", STAGE_WIDTH),
        ("device_in", DEVICE_WIDTH),
        ("context_in", GLOBAL_WIDTH + 2 * hidden),
        ("candidate_in", CANDIDATE_INPUTS),
        ("wait_in", 3 * hidden),
        ("value_in", 3 * hidden),
        *((f"own.{r}", hidden) for r in range(rounds)),
    ):
        shapes |= {f"{name}.weight": (hidden, width), f"{name}.bias": (hidden,)}
    for name in ("from_stage", "from_device", "from_context"):
        shapes[f"{name}.weight"] = (hidden, hidden)
    for r in range(rounds):
        for name in ("from_slot", "from_place", "from_all"):
            shapes[f"{name}.{r}.weight"] = (hidden, hidden)
    for name in ("score", "wait_out"):
        shapes |= {f"{name}.weight": (1, hidden), f"{name}.bias": (1,)}
    return {
        name: rng.normal(scale=0.4, size=shape).astype(np.float32) for name, shape in shapes.items()
    }


def random_agent(seed: int = 0) -> PointerAgent:
    return PointerAgent(OPTIONS, random_weights(seed))
