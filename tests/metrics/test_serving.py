"""Serving metrics against runs that record every token."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fate_gym.metrics.mechanism import busy_seconds, mechanism_metrics
from fate_gym.metrics.serving import (
    meets_slo,
    serving_by_workflow,
    serving_metrics,
    stage_times,
    summarised,
)
from fate_gym.problem import Cluster, Device, Edge, Problem, Slo, Stage, Workflow
from fate_gym.sim import CompiledProblem, Simulator, Trace, compile_problem
from fate_gym.validator.batching.engine import Engine
from policies import make_policy
from tests.strategies import certain, problems
from tests.validator.test_stepping import run

SLOW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def tokens_of(seed: int) -> tuple[Any, dict[int, dict[int, list[float]]]]:
    """Draw a run on batching devices, with the time at which each token was there.

    By row of the shard and wave, in the order of the waves.
    """
    made: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    known: list[Any] = []  # keeps waves alive: their ids name them
    finish = Engine.finish

    def noting(engine: Engine) -> None:
        steps, chunks = list(engine.steps), list(engine.chunks)
        finish(engine)
        for wave in [*steps, *(wave for wave in chunks if wave.done >= wave.tokens)]:
            known.append(wave)
            made[wave.job.row["index"]][id(wave)].append(engine.border)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "finish", noting)
        return run(seed), made


def judged(problem: Problem, ttft_s: float | None, tpot_s: float | None) -> Problem:
    """Return the problem with objectives for its first workflow."""
    first, *others = problem.workflows
    first = first.model_copy(update={"slo": Slo(ttft_s=ttft_s, tpot_s=tpot_s)})
    return problem.model_copy(update={"workflows": (first, *others)})


def same(found: float, expected: float) -> bool:
    return found == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True)


@SLOW
@given(st.integers(0, 2**32))
def test_times_are_those_of_the_tokens(seed: int) -> None:
    trace, made = tokens_of(seed)
    compiled = compile_problem(trace.problem)
    times = stage_times(trace, compiled)
    stages = [stage for workflow in trace.problem.workflows for stage in workflow.stages]
    numbers = {name: number for number, name in enumerate(trace.stage_ids)}
    for number, stage in enumerate(stages):
        workflow = trace.problem.workflows[trace.workflow_of[number]]
        if stage.kind != "model":
            assert np.isnan([times.ttft[number], times.tpot[number], times.call[number]]).all()
            continue
        ends = [
            float(trace.stage_end[numbers[workflow.id, edge.parent]])
            for edge in workflow.edges
            if edge.child == stage.id
        ]
        ready = max([workflow.arrival, *ends])
        assert same(times.call[number], trace.stage_end[number] - ready)
        shards = [
            list(made[row].values())
            for row, shard in enumerate(trace.shards)
            if shard["stage"] == number and not shard["lost"]
        ]
        if stage.output_tokens == 0:
            assert np.isnan([times.ttft[number], times.tpot[number]]).all()
            continue
        assert same(times.ttft[number], min(w[0] for waves in shards for w in waves) - ready)
        count = len(shards[0][0])
        assert all(len(wave) == count for waves in shards for wave in waves)
        slowest = max((waves[-1][-1] - waves[0][0]) / max(count - 1, 1) for waves in shards)
        assert same(times.tpot[number], slowest if count > 1 else math.nan)


@SLOW
@given(st.integers(0, 2**32), st.sampled_from([None, 0.3, 3.0]), st.sampled_from([0.01, 0.1]))
def test_objectives_are_met_by_requests_within_both(
    seed: int, ttft_s: float | None, tpot_s: float
) -> None:
    trace = run(seed)
    trace.problem = judged(trace.problem, ttft_s, tpot_s)
    compiled = compile_problem(trace.problem)
    times = stage_times(trace, compiled)
    met = meets_slo(trace, times)
    requests = []
    for number in range(len(times.ttft)):
        if trace.workflow_of[number] == 0 and not np.isnan(times.ttft[number]):
            late = ttft_s is not None and times.ttft[number] > ttft_s
            slow = not np.isnan(times.tpot[number]) and times.tpot[number] > tpot_s
            requests.append(not late and not slow)
            assert met[number] == requests[-1]
        else:
            assert np.isnan(met[number])
    metrics = serving_metrics(trace, compiled)
    share = np.mean(requests) if requests else np.nan
    assert same(metrics["slo_attainment"], float(share))
    rate = sum(requests) / trace.makespan if requests else np.nan
    assert same(metrics["goodput_per_s"], float(rate))
    first, *others = serving_by_workflow(trace, compiled)
    assert same(first["slo_met"], float(share))
    assert all(np.isnan(row["slo_met"]) for row in others)


@SLOW
@given(st.integers(0, 2**32))
def test_occupancy_and_utilisation_of_batching_devices(seed: int) -> None:
    trace = run(seed)
    compiled = compile_problem(trace.problem)
    shards = trace.shards[trace.shards["device"] >= 0]
    each = np.ceil(shards["queries"] / shards["waves"]) * (shards["end"] - shards["start"])
    busy = busy_seconds(trace)
    metrics = serving_metrics(trace, compiled)
    assert metrics["batch_occupancy"] * busy.sum() == pytest.approx(each.sum())
    share = busy.sum() / (trace.makespan * len(busy))
    assert share <= 1.0 + 1e-12
    # Every moment at which something runs counts, and counts once.
    for device, seconds in enumerate(busy.tolist()):
        rows = shards[shards["device"] == device]
        cuts = np.unique(np.concatenate([rows["start"], rows["end"], [0.0]]))
        middle = (cuts[1:] + cuts[:-1]) / 2
        runs = ((rows["start"] <= middle[:, None]) & (middle[:, None] < rows["end"])).any(axis=1)
        assert seconds == pytest.approx(np.diff(cuts)[runs].sum())


@settings(max_examples=25, deadline=None)
@given(problems(), st.integers(0, 2**32))
def test_on_exclusive_devices(problem: Problem, seed: int) -> None:
    """First tokens are there with the prefill; the queries of one shard are in service."""
    compiled = compile_problem(certain(problem))
    trace = Simulator(compiled).run(make_policy("eft"), seed=seed)
    times = stage_times(trace, compiled)
    output = compiled.arrays.stages["output_tokens"]
    for shard in trace.shards:
        stage = shard["stage"]
        if shard["device"] < 0 or compiled.model_of[stage] < 0 or output[stage] == 0:
            continue
        inputs = max(shard["load_s"], shard["transfer_s"])
        first = shard["start"] + inputs + shard["prefill_s"]
        waited = first - trace.stage_ready[stage]
        assert times.ttft[stage] <= waited + 1e-9 * (1.0 + first)
        if output[stage] > 1:
            assert times.tpot[stage] >= shard["decode_s"] / (output[stage] - 1) - 1e-9 * first
    # NaN where everything takes no time.
    assert not mechanism_metrics(trace, compiled)["device_utilisation"] > 1.0 + 1e-12


def chat(execution: str) -> tuple[Trace, CompiledProblem]:
    """Return a problem of two users of one device, with four turns each."""
    stages = [
        Stage(id=f"t{i}", model="Llama-3.1-8B", prompt_tokens=500, output_tokens=100)
        for i in range(4)
    ]
    edges = [Edge(parent=f"t{i}", child=f"t{i + 1}", inherited_tokens=600) for i in range(3)]
    workflows = [
        Workflow(id=f"w{i}", stages=stages, edges=edges, slo=Slo(ttft_s=0.5, tpot_s=0.02))
        for i in range(2)
    ]
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="H100-SXM"),), execution=execution)  # type: ignore[arg-type]
    compiled = compile_problem(Problem.build(cluster, workflows))
    return Simulator(compiled).run(make_policy("eft")), compiled


def test_users_who_share_a_batch_wait_less_for_first_tokens() -> None:
    alone, together = (serving_metrics(*chat(kind)) for kind in ("exclusive", "batching"))
    assert together["ttft_p95"] < alone["ttft_p95"]
    assert together["batch_occupancy"] > 1.5
    assert alone["batch_occupancy"] == pytest.approx(1.0)
    # Their tokens take turns with prompts of the other.
    assert together["tpot_mean"] > 0.9 * alone["tpot_mean"]


def test_a_lost_shard_does_not_make_a_stage_ready_later() -> None:
    trace, compiled = chat("batching")
    before = stage_times(trace, compiled)
    shards = np.concatenate([trace.shards[:1], trace.shards])
    shards["lost"][0] = 1
    # The stage is ready again when its device fails, a second before it starts again.
    ready = trace.stage_ready.copy()
    ready[shards["stage"][0]] = 123.0
    again = replace(trace, shards=shards, stage_ready=ready)
    after = stage_times(again, compiled)
    assert after.ttft == pytest.approx(before.ttft)
    assert after.call == pytest.approx(before.call)


def test_without_anything_to_count_there_is_no_number() -> None:
    summary = summarised("x", np.array([np.nan, np.nan]))
    assert list(summary) == ["x_mean", "x_p50", "x_p95", "x_p99"]
    assert np.isnan(list(summary.values())).all()
    assert summarised("x", np.array([1.0, np.nan, 3.0]))["x_p50"] == 2.0
    trace, compiled = chat("batching")
    workflows = [w.model_copy(update={"slo": None}) for w in trace.problem.workflows]
    problem = trace.problem.model_copy(update={"workflows": tuple(workflows)})
    metrics = serving_metrics(replace(trace, problem=problem), compiled)
    assert np.isnan([metrics["slo_attainment"], metrics["goodput_per_s"]]).all()
