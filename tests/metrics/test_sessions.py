"""Metrics of sessions: numbers computed by hand, and invariants of all runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fate_gym.metrics.mechanism import mechanism_metrics
from fate_gym.metrics.prefix_memory import prefix_bytes
from fate_gym.metrics.sessions import (
    prefilled_tokens,
    prefix_tokens,
    session_latencies,
    session_metrics,
    shared_keys,
    turn_ttft,
)
from fate_gym.problem import Cluster, Device, Edge, Prefix, Problem, Stage, Workflow
from fate_gym.sim import CompiledProblem, Simulator, Trace, compile_problem
from policies import make_policy
from tests.strategies import problems

SLOW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MODEL = "Llama-3.1-8B"
DEVICES = (Device(id="d0", gpu="H100-SXM"), Device(id="d1", gpu="H100-SXM"))
EXECUTIONS = pytest.mark.parametrize("execution", ["exclusive", "batching"])


def turn(session: str, number: int, prefix: int, prompt: int, output: int) -> Workflow:
    """Return a turn of one stage that extends the session's branch of the system prompt."""
    stage = Stage(
        id="answer",
        model=MODEL,
        prefix_group=session,
        prefix_tokens=prefix,
        prompt_tokens=prompt,
        output_tokens=output,
        extends_prefix=True,
    )
    return Workflow(
        id=f"{session}{number}",
        stages=(stage,),
        session=session,
        prefixes=(Prefix(group=session, parent="system", shared_tokens=1000),),
        follows=f"{session}{number - 1}" if number else None,
        think_seconds=5.0 if number else 0.0,
    )


TURNS = (turn("a", 0, 1000, 200, 100), turn("b", 0, 1000, 300, 100), turn("a", 1, 1300, 50, 50))


def played(execution: str, devices: dict[str, int]) -> tuple[Trace, CompiledProblem]:
    """Run the turns, each on its device, committed in the given order."""
    cluster = Cluster.model_validate({"id": "two", "devices": DEVICES, "execution": execution})
    compiled = compile_problem(Problem.build(cluster, TURNS))
    simulator = Simulator(compiled)
    simulator.reset(0)
    names = [workflow.id for workflow in TURNS]
    for name, device in devices.items():
        while names.index(name) not in simulator.ready:
            simulator.wait()
        simulator.place(names.index(name), (device,))
    while not simulator.done:
        simulator.wait()
    return simulator.trace(), compiled


@EXECUTIONS
def test_who_prefills_what_again(execution: str) -> None:
    trace, compiled = played(execution, {"a0": 0, "b0": 1, "a1": 1})
    # b's device computes the system prompt again, and later what was said to a on the other one.
    assert prefix_tokens(trace, compiled).again.tolist() == [0, 1000, 300]
    assert prefilled_tokens(trace, compiled).tolist() == [1200, 1300, 350]
    metrics = session_metrics(trace, compiled)
    assert metrics["again_tokens"] == 1300
    assert metrics["prefilled_tokens"] == 2850
    assert metrics["again_share"] == 1300 / 2850
    assert metrics["shared_hit_rate"] == 1000 / 3000
    assert metrics["within_hit_rate"] == 0.0


@EXECUTIONS
def test_who_stays_prefills_less_again(execution: str) -> None:
    trace, compiled = played(execution, {"a0": 0, "b0": 0, "a1": 0})
    assert prefix_tokens(trace, compiled).again.tolist() == [0, 0, 0]
    metrics = session_metrics(trace, compiled)
    assert metrics["prefilled_tokens"] == 1200 + 300 + 50
    assert metrics["shared_hit_rate"] == 2000 / 3000
    assert metrics["within_hit_rate"] == 1.0
    # The group of the system prompt is shared; no stage names it.
    keys = dict(zip(compiled.prefix_keys, shared_keys(compiled).tolist(), strict=True))
    assert keys == {(MODEL, "system"): True, (MODEL, "a"): False, (MODEL, "b"): False}


@EXECUTIONS
def test_times_of_turns_and_sessions(execution: str) -> None:
    trace, compiled = played(execution, {"a0": 0, "b0": 1, "a1": 0})
    shards = trace.shards
    assert trace.workflow_arrival[2] == trace.workflow_end[0] + 5.0
    assert turn_ttft(trace, compiled).tolist() == [
        shards["first"][0],
        shards["first"][1],
        shards["first"][2] - trace.workflow_arrival[2],
    ]
    a0, b0, a1 = trace.latencies.tolist()
    assert session_latencies(trace, compiled) == pytest.approx([a0 + a1, b0])
    metrics = session_metrics(trace, compiled)
    assert metrics["session_latency_mean"] == pytest.approx((a0 + a1 + b0) / 2)
    assert metrics["latency_p50"] == pytest.approx(sorted([a0, b0, a1])[1])


@EXECUTIONS
def test_memory_that_prefixes_take(execution: str) -> None:
    trace, compiled = played(execution, {"a0": 0, "b0": 1, "a1": 0})
    kv = compiled.arrays.models["kv"][0]
    (a0, b0, a1), end = trace.shards, trace.workflow_end.max()
    # In tokens: the system prompt from the start of each, what was said from its end.
    held = 1000 * (end - a0["start"]) + 300 * (end - a0["end"]) + 100 * (end - a1["end"])
    held += 1000 * (end - b0["start"]) + 400 * (end - b0["end"])
    memory = compiled.arrays.devices["memory"].sum()
    share = session_metrics(trace, compiled)["prefix_memory_share"]
    assert share == pytest.approx(kv * held / (memory * end))


def test_tools_before_the_first_answer_do_not_count() -> None:
    stages = (
        Stage(id="embed", model="bge-large", prompt_tokens=10),
        Stage(id="fetch", tool_seconds=7.0),
        Stage(id="late", model=MODEL, prompt_tokens=10, output_tokens=10),
        Stage(id="answer", model=MODEL, prompt_tokens=10, output_tokens=10),
    )
    edges = (Edge(parent="fetch", child="answer"), Edge(parent="answer", child="late"))
    silent = Workflow(id="silent", stages=stages[:2])
    flows = [Workflow(id="w", stages=stages, edges=edges), silent]
    compiled = compile_problem(Problem.build(Cluster(id="c", devices=DEVICES), flows))
    trace = Simulator(compiled).run(make_policy("eft"))
    first = trace.shards["first"][trace.shards["stage"] == 3]
    assert turn_ttft(trace, compiled) == pytest.approx([first[0] - 7.0, np.nan], nan_ok=True)


def test_without_sessions_and_prefixes_there_is_nothing() -> None:
    flow = Workflow(id="w", stages=(Stage(id="s", seconds_on={"p": 1.0}),))
    problem = Problem.build(Cluster(id="c", devices=(Device(id="p"),)), [flow])
    compiled = compile_problem(problem)
    metrics = session_metrics(Simulator(compiled).run(make_policy("eft")), compiled)
    known = {name: value for name, value in metrics.items() if not np.isnan(value)}
    assert known == {
        "latency_p50": 1.0, "latency_p95": 1.0, "latency_p99": 1.0,
        "prefilled_tokens": 0.0, "again_tokens": 0.0,
    }  # fmt: skip


def check(trace: Trace, compiled: CompiledProblem) -> None:
    """Check the invariants of all runs."""
    shards, tokens = trace.shards, prefix_tokens(trace, compiled)
    kept = np.where((shards["lost"] == 0) & (compiled.model_of[shards["stage"]] >= 0), 1.0, 0.0)
    assert (tokens.again <= shards["prefix_new"]).all() and (tokens.again >= 0).all()
    hit = tokens.shared_hit + tokens.within_hit
    assert hit == pytest.approx(kept * shards["prefix_hit"])
    wanted = tokens.shared_wanted + tokens.within_wanted
    assert wanted == pytest.approx(kept * (shards["prefix_hit"] + shards["prefix_new"]))
    assert (tokens.shared_hit <= tokens.shared_wanted).all()
    assert (tokens.within_hit <= tokens.within_wanted).all()
    assert tokens.again == pytest.approx(kept * _again(trace, compiled))
    assert (prefilled_tokens(trace, compiled) >= kept * shards["prefix_new"]).all()
    metrics = session_metrics(trace, compiled)
    rate = mechanism_metrics(trace, compiled)["prefix_hit_rate"]
    whole = wanted.sum()
    assert whole == 0 or rate == pytest.approx(hit.sum() / whole)
    assert not metrics["again_share"] > 1.0
    latencies = session_latencies(trace, compiled)
    own = compiled.arrays.workflows["session"]
    for number, latency in enumerate(latencies.tolist(), start=1):
        assert latency <= trace.latencies[own == number].sum() + 1e-6
        assert latency >= trace.latencies[own == number].max() - 1e-6


def _again(trace: Trace, compiled: CompiledProblem) -> np.ndarray[Any, Any]:
    """Compute the same token by token; a token is its position in its key's sequence."""
    p, known = compiled.arrays, set()
    found = np.zeros(len(trace.shards))

    def path(key: int, tokens: int) -> list[tuple[int, int]]:
        places = []
        for place in reversed(range(tokens)):
            while p.prefixes["start"][key] > place:
                key = int(p.prefixes["parent"][key])
            places.append((key, place))
        return places

    for row, shard in enumerate(trace.shards):
        stage = p.stages[shard["stage"]]
        if shard["lost"] or stage["model"] < 0 or stage["written"] < 0:
            continue
        new = [
            one
            for one in path(int(stage["prefix"]), int(stage["prefix_tokens"]))
            if one[1] >= shard["prefix_hit"]
        ]
        found[row] = sum(one in known for one in new)
        known.update(new, path(int(stage["written"]), int(stage["written_tokens"])))
    return found


def on(execution: str, problem: Problem) -> Problem:
    """Return the problem on devices of this execution."""
    cluster = problem.cluster.model_copy(update={"execution": execution})
    return problem.model_copy(update={"cluster": cluster})


@EXECUTIONS
@SLOW
@given(problems("pressure"), st.integers(0, 2**32), st.sampled_from(["eft", "random"]))
def test_every_run(execution: str, problem: Problem, seed: int, policy: str) -> None:
    compiled = compile_problem(on(execution, problem))
    check(Simulator(compiled).run(make_policy(policy), seed=seed), compiled)


@EXECUTIONS
@SLOW
@given(problems("llm"), st.integers(0, 2**32), st.sampled_from(["eft", "random"]))
def test_what_is_cached_at_the_end(
    execution: str, problem: Problem, seed: int, policy: str
) -> None:
    """As the simulator has it; entries that shrank may be smaller there."""
    compiled = compile_problem(on(execution, problem))
    simulator = Simulator(compiled)
    trace = simulator.run(make_policy(policy), seed=seed)
    p, cached = compiled.arrays, simulator.state.prefix_tokens
    kv = p.models["kv"][p.prefixes["model"]]
    held = float((np.maximum(cached - p.prefixes["start"], 0) * kv).sum())
    last = 0.0
    for _, last in prefix_bytes(trace, compiled):
        assert last >= -1.0
    assert last >= held - 1.0
