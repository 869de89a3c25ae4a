"""The compiled batching device against the validator, which simulates each token in Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fate_gym.catalog import Model
from fate_gym.kernel.estimate import end_estimates
from fate_gym.kernel.schema import new_log
from fate_gym.problem import (
    Cluster,
    Device,
    Edge,
    Failures,
    Options,
    Outage,
    Problem,
    Stage,
    Workflow,
)
from fate_gym.sim import Simulator
from fate_gym.validator import validate
from policies import make_policy
from tests.kernel.test_engine import Anything
from tests.strategies import problems

SERVING = [
    {"prefill": "chunked"},
    {"prefill": "first", "token_budget": 2048},
    {"prefill": "chunked", "token_budget": 300, "max_sequences": 8},
    {"prefill": "first", "max_sequences": 1},
]
POLICIES = ["eft", "round_robin", "heft_boosted", "min_min", "mooncake", "random"]
_MOST_TOKENS = 6000
"""The validator simulates each of these tokens."""


def batching(problem: Problem, **serving: Any) -> Problem:
    """Return the problem on batching devices."""
    cluster = problem.cluster.model_copy(update={"execution": "batching", **serving})
    return problem.model_copy(update={"cluster": cluster})


def chats(queries: int = 1, output: int = 40, **options: Any) -> Problem:
    """Return eight stages of one model on two devices of a node, in pairs of two turns."""
    stages = [
        Stage(
            id=f"s{i}", model="Qwen2.5-7B", queries=queries, prompt_tokens=700,
            output_tokens=output, prefix_tokens=300, prefix_group="system",
        )
        for i in range(8)
    ]  # fmt: skip
    edges = [
        Edge(parent=f"s{i}", child=f"s{i + 4}", bytes=1e4, inherited_tokens=740) for i in range(4)
    ]
    return Problem(
        cluster=Cluster(
            id="pair",
            devices=tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(2)),
            execution="batching",
        ),
        workflows=(Workflow(id="w", stages=tuple(stages), edges=tuple(edges)),),
        options=Options(**options),
    )


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(
    problem=problems(),
    serving=st.sampled_from(SERVING),
    policy=st.sampled_from(POLICIES),
    seed=st.integers(0, 3),
)
def test_times_are_those_of_the_token_stepping_validator(
    problem: Problem, serving: dict[str, Any], policy: str, seed: int
) -> None:
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    assume(tokens <= _MOST_TOKENS)
    trace = Simulator(batching(problem, **serving)).run(make_policy(policy), seed=seed)
    assert validate(trace) == []


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
@given(problem=problems(kind="pressure"), seed=st.integers(0, 2**32))
def test_rankings_that_end_are_replayed(problem: Problem, seed: int) -> None:
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    assume(tokens <= _MOST_TOKENS)
    trace = Simulator(batching(problem)).run(Anything(), seed=seed)
    assert validate(trace) == []


@pytest.mark.parametrize("serving", SERVING)
@pytest.mark.parametrize("policy", ["eft", "fate", "fate_rollout"])
def test_planners_leave_valid_schedules(policy: str, serving: dict[str, Any]) -> None:
    problem = batching(chats(uncertainty=0.2, length_uncertainty=0.3), **serving)
    assert validate(Simulator(problem).run(make_policy(policy), seed=1)) == []


def test_a_query_alone_takes_what_it_takes_on_an_exclusive_device() -> None:
    problem = chats(output=200)
    stage = problem.workflows[0].stages[0]
    alone = problem.model_copy(update={"workflows": (Workflow(id="w", stages=(stage,)),)})
    exclusive = alone.model_copy(
        update={"cluster": alone.cluster.model_copy(update={"execution": "exclusive"})}
    )
    rows = [Simulator(one).run(make_policy("eft")).shards[0] for one in (alone, exclusive)]
    # The prompt has made the first token: there is one step less.
    step = rows[1]["decode_s"] / stage.output_tokens
    assert rows[0]["end"] == pytest.approx(rows[1]["end"] - step, rel=1e-4)
    assert rows[0]["first"] == pytest.approx(rows[1]["first"], rel=1e-9)


def test_together_is_faster_than_one_after_the_other() -> None:
    problem = chats(output=300)
    exclusive = problem.model_copy(
        update={"cluster": problem.cluster.model_copy(update={"execution": "exclusive"})}
    )
    makespans = [Simulator(one).run(make_policy("eft")).makespan for one in (problem, exclusive)]
    assert makespans[0] < 0.6 * makespans[1]


def test_tokens_are_the_limit_of_a_roofline() -> None:
    trace = Simulator(chats(queries=100, output=100)).run(make_policy("eft"))
    problem = trace.problem
    model = problem.model_facts["Qwen2.5-7B"]
    peak = sum(problem.gpu_facts["A100-80"].tflops * 1e12 for _ in problem.cluster.devices)
    tokens = sum(stage.queries * stage.output_tokens for stage in problem.workflows[0].stages)
    assert trace.makespan > 2 * model.layer_params * tokens / peak


@pytest.mark.parametrize("queries", [1, 30])
@pytest.mark.parametrize("serving", SERVING)
def test_the_estimated_end_comes_true_if_nobody_else_comes(
    serving: dict[str, Any], queries: int
) -> None:
    simulator = Simulator(batching(chats(queries), **serving))
    for number in range(4):
        stage = simulator.ready[0]
        ends = np.empty(2)
        end_estimates(simulator.compiled.arrays, simulator.state, stage, ends)
        cost = simulator.view().estimate(stage, 0)
        assert cost.end == pytest.approx(ends[0], rel=1e-12)
        assert cost.busy > 0 and cost.delay >= 0
        copy = simulator.copy()
        copy.place(stage, [0])
        while copy.state.stages["status"][stage] != 3:
            before = copy.ready
            copy.wait()
            assert copy.ready[: len(before)] == before
        assert copy.state.stages["end"][stage] == pytest.approx(ends[0], rel=1e-9)
        simulator.place(stage, [0])
        if number == 1:
            simulator.wait()


def test_what_others_lose_is_the_delay() -> None:
    simulator = Simulator(chats(output=200))
    first, second = simulator.ready[:2]
    alone = simulator.view().estimate(first, 0).end
    simulator.place(first, [0])
    cost = simulator.view().estimate(second, 0)
    simulator.place(second, [0])
    while simulator.state.stages["status"][first] != 3:
        simulator.wait()
    assert simulator.state.stages["end"][first] - alone == pytest.approx(cost.delay, rel=1e-9)


def test_a_fork_knows_no_actual_lengths() -> None:
    """With another seed of lengths, the fork of the same moment is the same."""
    forks = []
    for seed in (1, 2):
        simulator = Simulator(chats(output=200, length_uncertainty=0.5), seed=seed)
        for stage in simulator.ready[:2]:
            simulator.place(stage, [0])
        fork = simulator.view().fork()
        fork.seed = 0
        forks.append(fork)
    assert forks[0].lanes.tobytes() == forks[1].lanes.tobytes()
    assert forks[0].batches.tobytes() == forks[1].batches.tobytes()


def test_evictions_are_never_lost() -> None:
    """Nobody knows beforehand how often shards are preempted, and evict when they come back."""
    tight = [Device(id=f"d{i}", gpu="A10G") for i in range(2)]
    problem = chats(queries=12, output=900, length_uncertainty=0.8)
    cluster = problem.cluster.model_copy(
        update={"devices": tuple(tight), "memory_utilisation": 0.75}
    )
    problem = problem.model_copy(update={"cluster": cluster})
    whole = Simulator(problem).run(make_policy("eft"), seed=2)
    assert whole.shards["preempted"].sum() > 0
    assert len(whole.evictions) > 2
    small = Simulator(problem)
    small.log = new_log(small.log.shards.size, 1)
    assert small.run(make_policy("eft"), seed=2).same_schedule(whole)
    assert validate(whole) == []


def test_what_a_stage_that_lost_a_shard_computes_is_not_kept() -> None:
    big = {"layers": 32, "hidden": 4096, "kv_heads": 32, "head_dim": 128, "weight_gb": 6.0}
    models = tuple(Model(name=name, params_b=3.0, **big) for name in ("A", "B"))
    stages = (
        Stage(id="split", model="A", queries=2, prompt_tokens=3000, output_tokens=200),
        Stage(id="child", model="A", prompt_tokens=10, output_tokens=1),
        Stage(id="behind", model="B", prompt_tokens=3000, output_tokens=1),
    )
    outage = Outage(device="d0", at=5.0, seconds=1.0)
    problem = Problem(
        cluster=Cluster(
            id="pair",
            devices=tuple(Device(id=f"d{i}", gpu="T4") for i in range(2)),
            execution="batching",
        ),
        models=models,
        workflows=(
            Workflow(
                id="w",
                stages=stages,
                edges=(Edge(parent="split", child="child", bytes=1.0, inherited_tokens=3000),),
            ),
        ),
        options=Options(max_shards=2, failures=Failures(outages=(outage,))),
    )
    simulator = Simulator(problem)
    simulator.place(0, (0, 1))
    simulator.place(2, (1,))
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (1,))
        else:
            simulator.wait()
    trace = simulator.trace()
    lost, survivor, behind = trace.shards[:3]
    assert (lost["lost"], survivor["lost"]) == (1, 0)
    # What the survivor has computed would not fit beside what follows: it made no room for it.
    assert behind["start"] == survivor["end"]
    assert not (trace.evictions["shard"] == 2).any()
    assert validate(trace) == []
