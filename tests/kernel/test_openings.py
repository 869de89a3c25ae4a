"""Stages that `starts_now` names do start now; open devices."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import Simulator
from fate_gym.sim.policy import Assignment
from tests.kernel.batching.test_engine import SERVING, batching
from tests.strategies import problems

Execution = Literal["exclusive", "batching"]


class Watched:
    """Places the ready stages at random, and records `starts_now` for each shard."""

    name = "watched"

    def reset(self, view: Any, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.said: list[bool] = []

    def decide(self, view: Any) -> list[Assignment]:
        stage = view.ready[0]
        device = int(self._rng.choice(view.eligible(stage)))
        starts = bool(view.starts_now(stage)[device])
        assert not starts or view.open_devices()[device]
        assert view.any_open == view.open_devices().any()
        self.said.append(starts)
        return [Assignment(stage, (device,))]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(), serving=st.sampled_from(SERVING), both=st.booleans())
def test_what_starts_now_waits_for_nobody_to_end(
    problem: Problem, serving: dict[str, Any], both: bool
) -> None:
    options = problem.options.model_copy(update={"failures": None})
    problem = problem.model_copy(update={"options": options})
    if both:
        problem = batching(problem, **serving)
    policy = Watched()
    shards = Simulator(problem).run(policy).shards
    shards = shards[shards["device"] >= 0]
    assert len(shards) == len(policy.said)
    for shard, starts in zip(shards, policy.said, strict=True):
        before = (shards["device"] == shard["device"]) & (shards["committed"] <= shard["committed"])
        running = before & (shards["start"] <= shard["committed"])
        running &= shards["end"] > shard["committed"]
        waited = shards["end"][running] < shard["start"] - 1e-9
        assert not (starts and waited.any())


def chat(model: str = "Qwen2.5-7B", queries: int = 1) -> Stage:
    return Stage(
        id=f"{model}-{queries}", model=model, queries=queries, prompt_tokens=500, output_tokens=500
    )


def one_device(*stages: Stage, **serving: Any) -> Simulator:
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="A100-80"),), **serving)
    workflows = tuple(Workflow(id=f"w{i}", stages=(one,)) for i, one in enumerate(stages))
    simulator = Simulator(Problem.build(cluster, workflows))
    simulator.reset(0)
    return simulator


def test_an_exclusive_device_is_open_as_long_as_it_runs_nothing() -> None:
    simulator = one_device(chat(), chat())
    assert simulator.view().starts_now(1).tolist() == [True]
    simulator.place(0, (0,))
    assert not simulator.view().any_open
    assert simulator.view().starts_now(1).tolist() == [False]


@pytest.mark.parametrize(
    ("other", "starts"),
    [(chat(), True), (chat(queries=4), False), (chat("Llama-3.1-8B"), False)],
)
def test_a_batch_takes_its_own_model_as_long_as_there_is_room(other: Stage, starts: bool) -> None:
    simulator = one_device(chat(), other, execution="batching", max_sequences=4)
    simulator.place(0, (0,))
    view = simulator.view()
    assert view.open_devices().tolist() == [True]
    assert view.starts_now(1).tolist() == [starts]


def test_nobody_joins_behind_a_stage_that_waits() -> None:
    simulator = one_device(
        chat(), chat("Llama-3.1-8B"), chat(), execution="batching", max_sequences=4
    )
    simulator.place(0, (0,))
    assert simulator.view().starts_now(2).tolist() == [True]
    simulator.place(1, (0,))
    assert not simulator.view().any_open
    assert simulator.view().starts_now(2).tolist() == [False]


def test_those_that_wait_for_the_border_count() -> None:
    """The first runs, the second waits for the end of an iteration; there is room for one more."""
    simulator = one_device(*[chat()] * 4, execution="batching", max_sequences=3)
    simulator.place(0, (0,))
    for stage in (1, 2):
        assert simulator.view().starts_now(stage).tolist() == [True]
        simulator.place(stage, (0,))
    assert simulator.view().starts_now(3).tolist() == [False]
