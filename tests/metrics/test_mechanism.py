"""Mechanism metrics on traces with known answers, and on simulated runs."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fate_gym.catalog import Gpu, Model
from fate_gym.kernel.schema import (
    EVICT_CONTEXT,
    EVICT_PREFIX,
    EVICT_WEIGHTS,
    EvictionRow,
    ShardRow,
)
from fate_gym.metrics.mechanism import (
    busy_seconds,
    mechanism_metrics,
    regretted_evictions,
    scarce_occupancy,
)
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import CompiledProblem, Simulator, Trace, compile_problem

SHAPE: dict[str, Any] = {"layers": 10, "hidden": 1000, "kv_heads": 10, "head_dim": 250}
RATES: dict[str, Any] = {"bandwidth_gb_s": 1000, "tflops": 100, "pcie": 3, "mfu": 0.5, "mbu": 0.5}
SMALL = Gpu(name="small", memory_gb=10, watts=100, usd_per_hour=1.8, **RATES)
LARGE = Gpu(name="large", memory_gb=20, watts=300, usd_per_hour=3.6, **RATES)
MODELS = [
    Model(name="M", params_b=1, weight_gb=5, **SHAPE),
    Model(name="N", params_b=1, weight_gb=6, **SHAPE),
    Model(name="XL", params_b=1, weight_gb=12, **SHAPE),
]
# d0 can run anything, d1 to d3 all but XL; "free" has no GPU.
CLUSTER = Cluster(
    id="c",
    devices=(
        Device(id="d0", gpu="large"),
        *(Device(id=f"d{i}", gpu="small") for i in (1, 2, 3)),
        Device(id="free"),
    ),
)


def stage(name: str, model: str, **changes: Any) -> Stage:
    return Stage(id=name, model=model, prompt_tokens=100, output_tokens=10, **changes)


def compiled_problem(*stages: Stage, edges: tuple[Edge, ...] = ()) -> CompiledProblem:
    workflow = Workflow(id="w", stages=stages, edges=edges)
    return compile_problem(Problem.build(CLUSTER, [workflow], gpus=[SMALL, LARGE], models=MODELS))


@pytest.fixture
def compiled() -> CompiledProblem:
    """Compile stages 0-4: a, b (M, one prefix group), c (N), d (XL), t (tool); a -> b inherits."""
    return compiled_problem(
        stage("a", "M", prefix_group="g", prefix_tokens=50),
        stage("b", "M", prefix_group="g", prefix_tokens=50),
        stage("c", "N"),
        stage("d", "XL"),
        Stage(id="t", tool_seconds=1.0),
        edges=(Edge(parent="a", child="b", inherited_tokens=20),),
    )


def shards_of(*rows: dict[str, float]) -> np.ndarray[Any, Any]:
    shards = np.zeros(len(rows), ShardRow.dtype)
    shards["noise"] = shards["length"] = 1.0
    for shard, row in zip(shards, rows, strict=True):
        for name, value in row.items():
            shard[name] = value
        inputs = max(shard["load_s"], shard["transfer_s"])
        shard["first"] = shard["start"] + (inputs + shard["prefill_s"]) * shard["noise"]
    return shards


def evictions_of(*rows: tuple[int, int, int, int]) -> np.ndarray[Any, Any]:
    evictions = np.zeros(len(rows), EvictionRow.dtype)
    for eviction, (shard, device, kind, key) in zip(evictions, rows, strict=True):
        for name, value in (("shard", shard), ("device", device), ("kind", kind), ("key", key)):
            eviction[name] = value
    return evictions


def trace_of(
    compiled: CompiledProblem,
    *rows: dict[str, float],
    evictions: tuple[tuple[int, int, int, int], ...] = (),
    **changes: Any,
) -> Trace:
    shards = shards_of(*rows)
    simulator = Simulator(compiled)
    simulator.reset(0)
    end = max((row.get("end", 0.0) for row in rows), default=0.0)
    return replace(
        simulator.trace(),
        shards=shards,
        evictions=evictions_of(*evictions),
        workflow_end=np.array([end]),
        **changes,
    )


def test_sums_rates_and_costs(compiled: CompiledProblem) -> None:
    trace = trace_of(
        compiled,
        {
            "stage": 0, "device": 0, "start": 0, "end": 10, "load_s": 2, "transfer_s": 3,
            "prefill_s": 1, "decode_s": 1, "noise": 2, "prefix_new": 50, "bytes_moved": 7,
        },
        {
            "stage": 1, "device": 0, "start": 10, "end": 20, "transfer_s": 4, "prefill_s": 2,
            "decode_s": 4, "prefix_hit": 30, "copied": 20, "prefix_new": 20, "context_hit": 15,
            "context_new": 5,
        },
        {
            "stage": 1, "slot": 1, "device": 1, "start": 12, "end": 16, "load_s": 3, "decode_s": 1,
            "prefix_new": 50, "context_new": 20, "bytes_moved": 1,
        },
        {
            "stage": 4, "device": -1, "start": 0, "end": 40, "transfer_s": 6, "decode_s": 34,
            "noise": 5, "bytes_moved": 2,
        },
        decision_seconds=np.array([0.001, 0.002, 0.003]),
        counters={"solver_calls": 4},
    )  # fmt: skip
    metrics = mechanism_metrics(trace, compiled)
    assert metrics == pytest.approx(
        {
            "model_loads": 2,
            "load_seconds": 2 * 2 + 3,
            "prefix_hit_rate": 30 / 150,
            "context_hit_rate": 15 / 40,
            "copied_prefix_tokens": 20,
            "bytes_moved": 10,
            "transfer_wait_seconds": (3 - 2) * 2 + 4 + 0 + 6,
            "prefill_seconds": 1 * 2 + 2,
            "decode_seconds": 1 * 2 + 4 + 1,
            "preemptions": 0,
            "device_utilisation": 24 / (40 * 5),
            "evictions": 0,
            "regretted_evictions": 0,
            "scarce_occupancy": 1.0,
            "usd": (20 * 3.6 + 4 * 1.8) / 3600,
            "usd_reserved": 40 * (3.6 + 3 * 1.8) / 3600,
            "energy_joules": 20 * 300 + 4 * 100,
            "stages_vanished": 0,
            "lost_shards": 0,
            "lost_seconds": 0,
            "device_failures": 0,
            "shards_per_stage": 1.5,
            "decisions": 3,
            "decision_ms_p50": 2.0,
            "decision_ms_p99": 2.98,
            "planning_seconds": 0.006,
            "policy_solver_calls": 4,
        }
    )
    assert {type(value) for value in metrics.values()} == {float}
    assert busy_seconds(trace).tolist() == [20, 4, 0, 0, 0]


def test_rates_without_anything_to_count_are_nan(compiled: CompiledProblem) -> None:
    metrics = mechanism_metrics(trace_of(compiled), compiled)
    undefined = {name for name, value in metrics.items() if np.isnan(value)}
    assert undefined == {
        "prefix_hit_rate", "context_hit_rate", "device_utilisation", "scarce_occupancy",
        "shards_per_stage", "decision_ms_p50", "decision_ms_p99",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("later", "regretted"),
    [
        ({"stage": 0, "device": 1, "load_s": 1}, [True, False, False]),
        ({"stage": 0, "device": 2, "load_s": 1}, [False, False, False]),
        ({"stage": 2, "device": 1, "load_s": 1}, [False, False, False]),
        ({"stage": 0, "device": 1}, [False, False, False]),
        ({"stage": 1, "device": 1, "prefix_new": 10}, [False, True, False]),
        ({"stage": 1, "device": 1, "prefix_hit": 50}, [False, False, False]),
        ({"stage": 2, "device": 1, "prefix_new": 10}, [False, False, False]),
        ({"stage": 1, "device": 1, "context_new": 20}, [False, False, True]),
        ({"stage": 1, "device": 1, "context_hit": 20}, [False, False, False]),
        ({"stage": 1, "device": 3, "context_new": 20}, [False, False, False]),
    ],
)
def test_an_eviction_is_regretted_when_the_thing_is_made_again_there(
    compiled: CompiledProblem, later: dict[str, float], regretted: list[bool]
) -> None:
    everything = {"stage": 1, "device": 1, "load_s": 1, "prefix_new": 50, "context_new": 20}
    cause = {"stage": 2, "device": 1}
    of_a = ((1, 1, EVICT_WEIGHTS, 0), (1, 1, EVICT_PREFIX, 0), (1, 1, EVICT_CONTEXT, 0))
    # What was made before the eviction does not count, what is made after it does.
    trace = trace_of(compiled, everything, cause, later, evictions=of_a)
    assert regretted_evictions(trace, compiled).tolist() == regretted
    assert mechanism_metrics(trace, compiled)["regretted_evictions"] == sum(regretted)


def test_scarce_devices_and_who_sits_on_them(compiled: CompiledProblem) -> None:
    # XL fits d0 alone, one device in five: d0 is scarce, and the others can run all but XL.
    def occupancy(*rows: tuple[int, int, float]) -> float:
        shards = [{"stage": s, "device": d, "start": 0.0, "end": end} for s, d, end in rows]
        return scarce_occupancy(trace_of(compiled, *shards), compiled)

    assert occupancy((3, 0, 6.0), (0, 0, 2.0), (2, 1, 50.0)) == pytest.approx(0.25)
    assert occupancy((3, 0, 6.0), (0, 1, 2.0)) == 0.0
    assert np.isnan(occupancy((0, 1, 2.0)))


def test_without_scarce_stages_there_are_no_scarce_devices() -> None:
    compiled = compiled_problem(stage("a", "M"))
    trace = trace_of(compiled, {"stage": 0, "device": 0, "end": 1.0})
    assert np.isnan(scarce_occupancy(trace, compiled))


def test_a_run_that_swaps_models_regrets_each_swap_but_the_last() -> None:
    # M (5 GB) and N (6 GB) do not fit a 9 GB device together; a chain M N M N on one device.
    names = ["a", "b", "c", "d"]
    compiled = compiled_problem(
        *(stage(name, model) for name, model in zip(names, "MNMN", strict=True)),
        edges=tuple(Edge(parent=p, child=c) for p, c in itertools.pairwise(names)),
    )
    simulator = Simulator(compiled)
    simulator.reset(0)
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (1,))
        else:
            simulator.wait()
    trace = simulator.trace()
    metrics = mechanism_metrics(trace, compiled)
    assert metrics["model_loads"] == 4
    assert metrics["evictions"] == 3
    assert regretted_evictions(trace, compiled).tolist() == [True, True, False]
    assert metrics["device_utilisation"] == pytest.approx(1 / 5)
    assert metrics["load_seconds"] == pytest.approx(
        2 * compiled.load_seconds[0, 1] + 2 * compiled.load_seconds[1, 1]
    )
    total = metrics["load_seconds"] + metrics["prefill_seconds"] + metrics["decode_seconds"]
    assert total == pytest.approx(trace.makespan)


def test_gpus_that_work_as_one_cost_and_draw_as_many() -> None:
    cluster = Cluster(
        id="c",
        devices=(Device(id="d", gpu="large", tensor_parallel=3), Device(id="e", gpu="small")),
    )
    workflow = Workflow(id="w", stages=(stage("a", "M"),))
    problem = Problem.build(cluster, [workflow], gpus=[SMALL, LARGE], models=MODELS)
    compiled = compile_problem(problem)
    metrics = mechanism_metrics(trace_of(compiled, {"device": 0, "end": 10.0}), compiled)
    assert metrics["usd"] == pytest.approx(10 * 3 * 3.6 / 3600)
    assert metrics["usd_reserved"] == pytest.approx(10 * (3 * 3.6 + 1.8) / 3600)
    assert metrics["energy_joules"] == pytest.approx(10 * 3 * 300)
