"""The validator against traces computed by hand, and against faults planted in them.

The numbers come from a GPU and a model with round facts: 5e13 effective FLOP/s, 5e11 effective
bytes/s, 10 GB; 1e9 parameters, 5 GB of weights, 1e5 bytes of KV a token, and
4 x layers x hidden = 4e4.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fate_gym import catalog
from fate_gym.catalog import Execution, Gpu, Model
from fate_gym.problem import Cluster, Device, Edge, Link, Options, Problem, Stage, Workflow
from fate_gym.sim.trace import OUTAGE_ROW
from fate_gym.validator import assert_valid, validate

SHARD_FIELDS = [
    ("stage", "i4"), ("slot", "i4"), ("device", "i4"), ("queries", "i4"), ("waves", "i4"),
    ("lost", "i4"), ("source", "i4"),
    ("committed", "f8"), ("start", "f8"), ("load_s", "f8"), ("transfer_s", "f8"),
    ("prefill_s", "f8"), ("decode_s", "f8"), ("noise", "f8"), ("length", "f8"), ("end", "f8"),
    ("prefix_hit", "f8"), ("prefix_new", "f8"), ("context_hit", "f8"), ("context_new", "f8"),
    ("copied", "f8"), ("bytes_moved", "f8"),
]  # fmt: skip
EVICTION_FIELDS = [
    ("shard", "i4"), ("device", "i4"), ("kind", "i1"), ("key", "i4"), ("bytes", "f8"),
]  # fmt: skip

GPU = Gpu(
    name="Round", memory_gb=10, bandwidth_gb_s=1000, tflops=100, pcie=3, watts=1, usd_per_hour=1,
    mfu=0.5, mbu=0.5,
)  # fmt: skip
SHAPE: dict[str, Any] = {"layers": 10, "hidden": 1000, "kv_heads": 10, "head_dim": 250}
MODEL = Model(name="M", params_b=1, weight_gb=5, **SHAPE)
OTHER = Model(name="M2", params_b=1, weight_gb=4, heads=2, vocab=100_000, **SHAPE)


def prefill(tokens: float, pairs: float) -> float:
    """M on Round: 5e13 FLOP/s, 4e13 in attention, 5e11 and 1e12 bytes/s.

    Between GEMMs 2 x 10 x (2 x 1000 + 2 x (1000 + 2500)) = 180,000 bytes a token move.
    """
    linear = max(2e9 * (tokens + 200) / 5e13, 5e9 / 5e11)
    return linear + 4e4 * pairs / 4e13 + 1.8e5 * tokens / 1e12 + 0.0015 + 0.0075


def step(queries: int, context: float) -> float:
    """One decode step of M on Round, which reads the KV of attention at 2.5e11 bytes/s."""
    linear = max(2e9 * (queries + 200) / 5e13, 5e9 / 5e11)
    return linear + queries * context * 1e5 / 2.5e11 + 1.8e5 * queries / 1e12 + 0.0015


@pytest.fixture(autouse=True)
def round_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Execution(
        mfu_ramp_tokens=200, linear_passes=2, attention_passes=1, linear_layer_s=0.0001,
        attention_layer_s=0.00005, attention_mfu_ratio=0.8, attention_mbu_ratio=0.5,
        prefill_launch_s=0.0075, load_init_s=0.5,
        pcie3_gb_s=12, pcie4_gb_s=25, pcie5_gb_s=50, nvlink_efficiency=0.8,
        pcie_peer_efficiency=0.9, peer_latency_s=0.01, memory_utilisation=1.0, max_batch=256,
        token_budget=8192, all_reduce_s=0.001,
        gather_s=0.25,
    )  # fmt: skip
    monkeypatch.setattr(catalog, "execution", lambda: facts)


def trace_of(
    problem: Problem,
    shards: list[dict[str, float]],
    *,
    ready: list[float],
    end: list[float],
    evictions: list[tuple[int, int, int, int, float]] | None = None,
    models: list[str] | None = None,
    prefixes: list[tuple[str, str]] | None = None,
) -> SimpleNamespace:
    """A trace from the rows given; what is left out is 0 (waves, noise, length: 1, source: -1)."""
    defaults = {name: 0.0 for name, _ in SHARD_FIELDS}
    defaults |= {"waves": 1, "noise": 1.0, "length": 1.0, "source": -1}
    rows = [tuple((defaults | row)[name] for name, _ in SHARD_FIELDS) for row in shards]
    workflow_of = [i for i, w in enumerate(problem.workflows) for _ in w.stages]
    arrival = np.array([w.arrival for w in problem.workflows])
    last = [max(e for e, w in zip(end, workflow_of, strict=True) if w == i) for i in
            range(len(arrival))]  # fmt: skip
    return SimpleNamespace(
        problem=problem,
        policy="by hand",
        seed=0,
        stage_ids=[(w.id, s.id) for w in problem.workflows for s in w.stages],
        model_names=models or [],
        prefix_keys=prefixes or [],
        device_ids=[device.id for device in problem.cluster.devices],
        shards=np.array(rows, dtype=SHARD_FIELDS),
        evictions=np.array(evictions or [], dtype=EVICTION_FIELDS),
        stage_ready=np.array(ready),
        stage_end=np.array(end),
        workflow_arrival=arrival,
        workflow_end=np.array(last),
        workflow_of=np.array(workflow_of),
        retentions=[],
        stage_vanished=np.zeros(len(workflow_of), dtype=bool),
        draws=np.full(len(workflow_of), np.nan),
        outages=np.zeros(0, OUTAGE_ROW),
        decision_seconds=np.array([0.5, 0.25]),
        counters={},
        makespan=max(end) - arrival.min(),
        latencies=np.array(last) - arrival,
        planning_seconds=0.75,
    )


def mixed_trace() -> SimpleNamespace:
    """Tool -> split model stage -> {model stage with hits -> tool, fixed stage elsewhere}."""
    cluster = Cluster(
        id="three",
        devices=(
            Device(id="d0", gpu="Round", node="n0", peer_gb_s=10, load_gb_s=5),
            Device(id="d1", gpu="Round", node="n0", peer_gb_s=20, load_gb_s=5),
            Device(id="d2", node="n1"),
        ),
        network_gb_s=1,
        network_latency_s=0.001,
    )
    workflow = Workflow(
        id="w",
        arrival=1.0,
        stages=(
            Stage(id="t", tool_seconds=2.0),
            Stage(
                id="a", model="M", queries=4, prefix_group="g", prefix_tokens=100,
                prompt_tokens=50, output_tokens=10,
            ),
            Stage(
                id="b", model="M", queries=2, prefix_group="g", prefix_tokens=100,
                prompt_tokens=20, output_tokens=10,
            ),
            Stage(id="c", seconds_on={"d2": 3.0}),
            Stage(id="e", tool_seconds=1.0),
        ),
        edges=(
            Edge(parent="t", child="a", bytes=2.4e9),
            Edge(parent="a", child="b", bytes=4e9, inherited_tokens=60),
            Edge(parent="a", child="c", bytes=1e9),
            Edge(parent="b", child="e", bytes=1.2e9),
            Edge(parent="t", child="e", bytes=5e9),
        ),
    )  # fmt: skip
    problem = Problem.build(cluster, [workflow], gpus=[GPU], models=[MODEL])
    pre_a0, pre_a1 = prefill(250, 100 * 50 + 3 * 50 * 125), prefill(150, 100 * 50 + 50 * 125)
    pre_b = prefill(130, 2 * 65 * (180 - 32.5))
    a0_end = 3.0 + 1.5 + pre_a0 + 10 * step(3, 155)
    a_end = a0_end + 0.25
    b_end = a_end + 0.31 + pre_b + 10 * step(2, 185)
    e_end = b_end + 0.11 + 1.0
    c_end = a_end + 1.002 + 3.0
    shards: list[dict[str, float]] = [
        {"stage": 0, "device": -1, "queries": 1, "committed": 1, "start": 1, "decode_s": 2,
         "end": 3},
        # Three of four queries: 1.8e9 bytes from the host at 12 GB/s. T = 100 + 3 x 50;
        # pairs of tokens 100 x 50 + 3 x 50 x 125. Decode: weights and 3 x 155 tokens.
        {"stage": 1, "device": 0, "queries": 3, "committed": 3, "start": 3, "load_s": 1.5,
         "transfer_s": 0.16, "prefill_s": pre_a0, "decode_s": 10 * step(3, 155), "end": a0_end,
         "prefix_new": 100, "bytes_moved": 1.8e9},
        {"stage": 1, "slot": 1, "device": 1, "queries": 1, "committed": 3, "start": 3,
         "load_s": 1.5, "transfer_s": 0.06, "prefill_s": pre_a1, "decode_s": 10 * step(1, 155),
         "end": 3 + 1.5 + pre_a1 + 10 * step(1, 155), "prefix_new": 100, "bytes_moved": 0.6e9},
        # One of a's four contexts is here: 60 x 1/4 = 15 tokens cached, t = 20 + 60 - 15.
        # 3e9 bytes come from d0 at min(10, 20) GB/s.
        {"stage": 2, "device": 1, "queries": 2, "committed": a_end, "start": a_end,
         "transfer_s": 0.31, "prefill_s": pre_b, "decode_s": 10 * step(2, 185), "end": b_end,
         "prefix_hit": 100, "context_hit": 30, "context_new": 90, "bytes_moved": 3e9},
        # Both devices of n0 share one link to d2: 0.75 + 0.25 s and two latencies.
        {"stage": 3, "device": 2, "queries": 1, "committed": a_end, "start": a_end,
         "transfer_s": 1.002, "decode_s": 3, "end": c_end, "bytes_moved": 1e9},
        # From d1 at its PCIe bandwidth; from the other tool for free.
        {"stage": 4, "device": -1, "queries": 1, "committed": b_end, "start": b_end,
         "transfer_s": 0.11, "decode_s": 1, "end": e_end, "bytes_moved": 1.2e9},
    ]  # fmt: skip
    return trace_of(
        problem, shards, ready=[1, 3, a_end, a_end, b_end], end=[3, a_end, b_end, c_end, e_end],
        models=["M"], prefixes=[("M", "g")],
    )  # fmt: skip


def one_device(stages: tuple[Stage, ...], edges: tuple[Edge, ...] = ()) -> Problem:
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="Round", load_gb_s=5),))
    workflow = Workflow(id="w", stages=stages, edges=edges)
    return Problem.build(cluster, [workflow], gpus=[GPU], models=[MODEL, OTHER])


def pressure_trace() -> SimpleNamespace:
    """A prefix, a context and weights are evicted, in this order; then the weights come back."""
    problem = one_device(
        (
            Stage(id="s1", model="M", prefix_group="g", prefix_tokens=10000, prompt_tokens=10,
                  output_tokens=10),
            Stage(id="s2", model="M", queries=2, prompt_tokens=20000, output_tokens=10000),
            Stage(id="s3", model="M", prompt_tokens=100, output_tokens=100),
            Stage(id="s4", model="M2", prompt_tokens=15000, output_tokens=5000),
        ),
        (Edge(parent="s2", child="s3", bytes=1e9, inherited_tokens=5000),),
    )  # fmt: skip
    # s1: attention 10000 x 5000 + 10 x 10005 = 50100050; contexts of 10000 + 10 + 5 tokens.
    pre1, dec1 = prefill(10010, 50100050), 10 * step(1, 10015)
    end1 = 1.5 + pre1 + dec1
    # s2: 3e9 bytes a query, 5e9 free beside the weights: one query a wave. 5 + 1 + 3 GB fit.
    pre2, dec2 = prefill(40000, 40000 * 10000), 10000 * 2 * step(1, 25000)
    end2 = end1 + pre2 + dec2
    # s4: 4 GB of weights and 2 GB of KV meet 5 + 1 + 3 GB: all of it has to go. Of M2's 1e9
    # parameters 1e8 are the embedding, which is not read, and 1e8 the output projection. Its
    # attention is 500 wide, and 2 x 10 x (2 x 1000 + 2 x (500 + 2500)) bytes a token move.
    pre4 = 2 * (8e8 * 15000 + 1e8) * 15200 / (15000 * 5e13) + 2e4 * 15000 * 7500 / 4e13
    pre4 += 1.6e5 * 15000 / 1e12 + 0.0015 + 0.0075
    dec4 = 5000 * (3.8e9 / 5e11 + 17500e5 / 2.5e11 + 1.6e5 / 1e12 + 0.0015)
    end4 = end2 + 4 / 5 + 0.5 + pre4 + dec4
    # s3: ready when s2 ends, its turn comes when s4 is done; nothing of s2 is left here.
    pre3, dec3 = prefill(5100, 5100 * 2550), 100 * step(1, 5150)
    end3 = end4 + 1.5 + pre3 + dec3
    rows: list[dict[str, float]] = [
        {"stage": 0, "queries": 1, "load_s": 1.5, "prefill_s": pre1, "decode_s": dec1,
         "end": end1, "prefix_new": 10000},
        {"stage": 1, "queries": 2, "waves": 2, "start": end1, "prefill_s": pre2,
         "decode_s": dec2, "end": end2},
        {"stage": 3, "queries": 1, "start": end2, "load_s": 1.3, "prefill_s": pre4,
         "decode_s": dec4, "end": end4},
        {"stage": 2, "queries": 1, "committed": end2, "start": end4, "load_s": 1.5,
         "prefill_s": pre3, "decode_s": dec3, "end": end3, "context_new": 5000},
    ]  # fmt: skip
    return trace_of(
        problem, rows, ready=[0, 0, end2, 0], end=[end1, end2, end3, end4],
        evictions=[(2, 0, 0, 0, 1e9), (2, 0, 1, 1, 3e9), (2, 0, 2, 0, 5e9)],
        models=["M", "M2"], prefixes=[("M", "g")],
    )  # fmt: skip


def shrink_trace() -> SimpleNamespace:
    """The own prefix entry is never evicted, but shrinks to what its stage needs."""
    problem = one_device(
        (
            Stage(id="long", model="M", prefix_group="g", prefix_tokens=30000),
            Stage(id="wide", model="M", prefix_group="g", prefix_tokens=100,
                  prompt_tokens=30000, output_tokens=10000),
            Stage(id="next", model="M", prefix_group="g", prefix_tokens=200),
        ),
    )  # fmt: skip
    pre1 = prefill(30000, 30000 * 15000)
    end1 = 1.5 + pre1
    # 5 + 3 + 4 GB do not fit into 10; with 100 tokens of prefix they do.
    pre2, dec2 = prefill(30000, 30000 * 15100), 10000 * step(1, 35100)
    end2 = end1 + pre2 + dec2
    # 100 of 200 tokens are left.
    pre3 = prefill(100, 100 * 150)
    end3 = end2 + pre3
    rows: list[dict[str, float]] = [
        {"stage": 0, "queries": 1, "load_s": 1.5, "prefill_s": pre1, "end": end1,
         "prefix_new": 30000},
        {"stage": 1, "queries": 1, "start": end1, "prefill_s": pre2, "decode_s": dec2,
         "end": end2, "prefix_hit": 100},
        {"stage": 2, "queries": 1, "start": end2, "prefill_s": pre3, "end": end3,
         "prefix_hit": 100, "prefix_new": 100},
    ]  # fmt: skip
    return trace_of(
        problem, rows, ready=[0, 0, 0], end=[end1, end2, end3], models=["M"],
        prefixes=[("M", "g")],
    )  # fmt: skip


def classical_trace() -> SimpleNamespace:
    """Data leave A when x ends at 2, are on B at 2 + 6/2 = 5; B is busy until 4."""
    problem = Problem.classical(
        {"x": {"A": 2.0, "B": 3.0}, "y": {"A": 3.0, "B": 3.0}, "z": {"B": 4.0}},
        {("x", "y"): 6.0},
        link_bytes_s={("B", "A"): 2.0},
    )
    rows: list[dict[str, float]] = [
        {"stage": 0, "device": 0, "queries": 1, "decode_s": 2, "end": 2},
        {"stage": 2, "device": 1, "queries": 1, "decode_s": 4, "end": 4},
        {"stage": 1, "device": 1, "queries": 1, "committed": 2, "start": 4, "transfer_s": 1,
         "decode_s": 3, "end": 8, "bytes_moved": 6},
    ]  # fmt: skip
    return trace_of(problem, rows, ready=[0, 2, 0], end=[2, 8, 4])


TRACES: dict[str, Callable[[], SimpleNamespace]] = {
    "mixed": mixed_trace,
    "pressure": pressure_trace,
    "shrink": shrink_trace,
    "classical": classical_trace,
}


@pytest.mark.parametrize("name", TRACES)
def test_hand_computed_trace_is_valid(name: str) -> None:
    assert validate(TRACES[name]()) == []
    assert_valid(TRACES[name]())


@pytest.mark.parametrize("field", [name for name, _ in SHARD_FIELDS])
@pytest.mark.parametrize("name", TRACES)
def test_a_wrong_value_in_any_row_is_found(name: str, field: str) -> None:
    for row in range(len(TRACES[name]().shards)):
        for factor, more in ((2, 1), (0.5, -1), (1.001, 1e-3)):
            trace = TRACES[name]()
            before = trace.shards[field][row]
            trace.shards[field][row] = factor * before + more
            if trace.shards[field][row] != before:
                assert validate(trace), (row, field)


@pytest.mark.parametrize("field", [name for name, kind in SHARD_FIELDS if kind == "f8"])
def test_nan_is_found(field: str) -> None:
    trace = mixed_trace()
    trace.shards[field][3] = math.nan
    assert validate(trace)


@pytest.mark.parametrize("field", [name for name, _ in EVICTION_FIELDS])
def test_a_wrong_eviction_is_found(field: str) -> None:
    for row in range(3):
        trace = pressure_trace()
        trace.evictions[field][row] += 10
        assert any(f"eviction {row}" in fault for fault in validate(trace))


def test_missing_and_swapped_evictions_are_found() -> None:
    trace = pressure_trace()
    trace.evictions = trace.evictions[:2]
    assert any("expected 3 rows, got 2" in fault for fault in validate(trace))
    trace = pressure_trace()
    trace.evictions = trace.evictions[[1, 0, 2]]
    assert len(validate(trace)) >= 2


def turns_trace() -> SimpleNamespace:
    """Two tools of 2 s and one of 1 s: the last workflow is the first, the others follow it."""
    flows = [
        Workflow(id="c", follows="b", think_seconds=1.0, stages=(Stage(id="t", tool_seconds=1.0),)),
        Workflow(id="b", follows="a", think_seconds=0.5, stages=(Stage(id="t", tool_seconds=2.0),)),
        Workflow(id="a", arrival=3.0, stages=(Stage(id="t", tool_seconds=2.0),)),
    ]
    problem = Problem.build(Cluster(id="one", devices=(Device(id="d"),)), flows)
    row = {"device": -1, "queries": 1}
    shards = [
        row | {"stage": stage, "committed": at, "start": at, "decode_s": s, "end": at + s}
        for stage, at, s in ((2, 3.0, 2.0), (1, 5.5, 2.0), (0, 8.5, 1.0))
    ]
    trace = trace_of(problem, shards, ready=[8.5, 5.5, 3.0], end=[9.5, 7.5, 5.0])
    trace.workflow_arrival = np.array([8.5, 5.5, 3.0])
    trace.latencies = trace.workflow_end - trace.workflow_arrival
    trace.makespan = 6.5
    return trace


def test_turns_arrive_after_one_another() -> None:
    assert validate(turns_trace()) == []


@pytest.mark.parametrize("turn", range(3))
def test_a_wrong_arrival_is_found(turn: int) -> None:
    trace = turns_trace()
    trace.workflow_arrival[turn] -= 0.25
    assert any("workflow_arrival" in fault for fault in validate(trace))


@pytest.mark.parametrize("seconds", [-0.25, 0.25])
def test_a_turn_that_comes_at_the_wrong_time_is_found(seconds: float) -> None:
    """The whole of the trace is as if it had arrived then."""
    trace = turns_trace()
    for name in ("committed", "start", "end"):
        trace.shards[name][2] += seconds
    for name in ("stage_ready", "stage_end", "workflow_end", "workflow_arrival"):
        getattr(trace, name)[0] += seconds
    trace.makespan += seconds
    assert any("ready" in fault for fault in validate(trace))


def test_a_turn_before_the_one_that_it_follows_is_found() -> None:
    trace = turns_trace()
    trace.shards = trace.shards[[1, 0, 2]]
    assert any("before what it awaits ran" in fault for fault in validate(trace))


@pytest.mark.parametrize(
    "field",
    ["stage_ready", "stage_end", "workflow_arrival", "workflow_end", "workflow_of", "latencies"],
)
@pytest.mark.parametrize("name", TRACES)
def test_a_wrong_total_is_found(name: str, field: str) -> None:
    for i in range(len(getattr(TRACES[name](), field))):
        trace = TRACES[name]()
        values = np.array(getattr(trace, field))
        values[i] += 1
        setattr(trace, field, values)
        assert any(field in fault or "latency" in fault for fault in validate(trace))
    trace = TRACES[name]()
    setattr(trace, field, getattr(trace, field)[:-1])
    assert any(field in fault for fault in validate(trace))


@pytest.mark.parametrize("field", ["stage_ids", "model_names", "prefix_keys", "device_ids"])
def test_wrong_numbering_is_found(field: str) -> None:
    names = getattr(mixed_trace(), field)
    for wrong in (names[:-1], [*names, names[0]]):
        trace = mixed_trace()
        setattr(trace, field, wrong)
        assert any(field in fault for fault in validate(trace))


@pytest.mark.parametrize("field", ["makespan", "planning_seconds"])
def test_a_wrong_property_is_found(field: str) -> None:
    trace = mixed_trace()
    setattr(trace, field, getattr(trace, field) + 1e-3)
    assert [fault for fault in validate(trace) if field in fault]


def test_negative_decision_time_is_found() -> None:
    trace = mixed_trace()
    trace.decision_seconds = np.array([-0.5, 1.25])
    assert validate(trace) == ["trace: decision_seconds: negative or not finite"]


@pytest.mark.parametrize("name", TRACES)
def test_missing_doubled_and_reordered_rows_are_found(name: str) -> None:
    count = len(TRACES[name]().shards)
    orders = [[i for i in range(count) if i != gone] for gone in range(count)]
    orders += [[*range(count), again] for again in range(count)]
    orders += [list(reversed(range(count)))]
    for order in orders:
        trace = TRACES[name]()
        trace.shards = trace.shards[order]
        assert validate(trace), order


def test_messages_name_stage_device_expected_and_got() -> None:
    trace = mixed_trace()
    trace.shards["transfer_s"][3] = 0.5
    (fault,) = validate(trace)
    assert fault == "workflow 'w', stage 'b', device 'd1': transfer_s: expected 0.31, got 0.5"
    with pytest.raises(AssertionError, match="1 violations"):
        assert_valid(trace)


def test_a_commit_between_events_is_found() -> None:
    trace = classical_trace()
    # y could wait until B is free at 4, but nothing happens at 3.
    trace.shards["committed"][2] = 4.0
    assert validate(trace) == []
    trace.shards["committed"][2] = 3.0
    (fault,) = validate(trace)
    assert "no event" in fault


def test_a_commit_before_the_stage_is_ready_is_found() -> None:
    trace = classical_trace()
    trace.shards["committed"][2] = 0.0
    assert any("ready only at 2.0" in fault for fault in validate(trace))


def test_a_device_that_cannot_host_the_stage_is_found() -> None:
    trace = mixed_trace()
    trace.shards["device"][3] = 2
    assert "cannot host" in validate(trace)[0]


def test_too_many_shards_are_found() -> None:
    trace = mixed_trace()
    problem = trace.problem
    trace.problem = problem.model_copy(update={"options": Options(max_shards=1)})
    assert any("more than max_shards" in fault for fault in validate(trace))


def test_noise_stretches_device_time_and_tool_seconds_alone() -> None:
    cluster = Cluster(id="c", devices=(Device(id="d"),), network_gb_s=1, network_latency_s=0.001)
    workflow = Workflow(
        id="w",
        stages=(Stage(id="f", seconds_on={"d": 2.0}), Stage(id="t", tool_seconds=1.0)),
        edges=(Edge(parent="f", child="t", bytes=2e9),),
    )
    problem = Problem.build(cluster, [workflow], options=Options(uncertainty=0.5))
    rows: list[dict[str, float]] = [
        {"stage": 0, "queries": 1, "decode_s": 2, "noise": 1.5, "end": 3},
        # 2 GB over the network of a device without a GPU, after one latency.
        {"stage": 1, "device": -1, "queries": 1, "committed": 3, "start": 3, "transfer_s": 2.01,
         "decode_s": 1, "noise": 2, "end": 3 + 2.01 + 2, "bytes_moved": 2e9},
    ]  # fmt: skip
    trace = trace_of(problem, rows, ready=[0, 3], end=[3, 7.01])
    assert validate(trace) == []
    certain = copy.copy(trace)
    certain.problem = problem.model_copy(update={"options": Options()})
    assert any("noise: expected 1.0" in fault for fault in validate(certain))
    for bad in (0.0, -1.0, math.inf, math.nan):
        trace.shards["noise"][0] = bad
        assert validate(trace)


def test_links_override_bandwidth_and_latency_both_ways() -> None:
    devices = (Device(id="d0", node="n0"), Device(id="d1", node="n0"), Device(id="d2", node="n1"))
    cluster = Cluster(
        id="c",
        devices=devices,
        links=(Link(a="d2", b="d0", gb_s=4, latency_s=0.5),),
        network_gb_s=1,
        network_latency_s=0.25,
    )
    workflow = Workflow(
        id="w",
        stages=tuple(Stage(id=f"s{i}", seconds_on={f"d{i}": 1.0}) for i in range(3)),
        edges=(Edge(parent="s0", child="s2", bytes=2e9), Edge(parent="s1", child="s2", bytes=1e8)),
    )
    problem = Problem.build(cluster, [workflow])
    rows: list[dict[str, float]] = [
        {"stage": 0, "device": 0, "queries": 1, "decode_s": 1, "end": 1},
        {"stage": 1, "device": 1, "queries": 1, "decode_s": 1, "end": 1},
        # 0.5 + 2/4 s on d0's own link beside 0.25 + 0.1 s on the link from n0.
        {"stage": 2, "device": 2, "queries": 1, "committed": 1, "start": 1, "transfer_s": 1,
         "decode_s": 1, "end": 3, "bytes_moved": 2.1e9},
    ]  # fmt: skip
    assert validate(trace_of(problem, rows, ready=[0, 0, 1], end=[1, 1, 3])) == []


def test_experts_touched_by_a_wave_and_a_short_last_wave() -> None:
    # 0.75 of the weights lie in 4 experts of which a token uses 1 (total 4e9, active 1.75e9:
    # shared 1e9 and 0.75e9 an expert); no KV, so that a wave holds max_batch = 256 queries.
    mixture = Model(
        name="MoE", params_b=4, active_b=1.75, weight_gb=8, layers=10, hidden=1000, kv_heads=0,
        head_dim=0, experts=4, experts_per_token=1,
    )  # fmt: skip
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="Round", load_gb_s=8),))
    workflow = Workflow(
        id="w",
        stages=(Stage(id="s", model="MoE", queries=257, prompt_tokens=1, output_tokens=2),),
    )
    slow = GPU.model_copy(update={"bandwidth_gb_s": 250.0})
    problem = Problem.build(cluster, [workflow], gpus=[slow], models=[mixture])
    # 8e9 bytes of weights, three quarters of them in experts, at 1.25e11 bytes/s: reading takes
    # longer than computing. 80,000 bytes a token move between GEMMs at 2.5e11 bytes/s.
    full = 8e9 / 1.25e11 * (1 - 0.75 * 0.75**256) + 8e4 * 256 / 2.5e11 + 0.0015
    last = 8e9 / 1.25e11 * (0.25 + 0.75 * 0.25) + 8e4 / 2.5e11 + 0.0015
    prefill = 8e9 / 1.25e11 + 4e4 * 257 * 0.5 / 4e13 + 8e4 * 257 / 2.5e11 + 0.0015 + 0.0075
    decode = 2 * (full + last)
    end = 1.5 + prefill + decode
    row: dict[str, float] = {
        "queries": 257, "waves": 2, "load_s": 1.5, "prefill_s": prefill, "decode_s": decode,
        "end": end,
    }  # fmt: skip
    trace = trace_of(problem, [row], ready=[0], end=[end], models=["MoE"])
    assert validate(trace) == []
