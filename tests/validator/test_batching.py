"""Batching devices: the validator against traces computed by hand.

The numbers are round, as in `test_validator.py`: 5e13 effective FLOP/s, 4e13 in attention, 5e11
effective bytes/s, 2.5e11 in attention, 10 GB; 1e9 parameters, 5 GB of weights that load in 1.5 s,
and 1e5 bytes of KV a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fate_gym import catalog
from fate_gym.catalog import Execution, Gpu, Model
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.problem.problem import Failures, Outage
from fate_gym.sim.trace import OUTAGE_ROW
from fate_gym.validator import validate
from tests.validator.stepping import least_loaded, play

WHOLE = ("stage", "slot", "device", "queries", "waves", "lost", "preempted", "source")
REAL = (
    "committed", "start", "load_s", "transfer_s", "prefill_s", "decode_s", "noise", "length",
    "first", "end", "prefix_hit", "prefix_new", "context_hit", "context_new", "copied",
    "bytes_moved",
)  # fmt: skip
EVICTION = [("shard", "i4"), ("device", "i4"), ("kind", "i4"), ("key", "i4"), ("bytes", "f8")]
LAUNCH, LOAD = 0.0075, 1.5

GPU = Gpu(
    name="Round", memory_gb=10, bandwidth_gb_s=1000, tflops=100, pcie=3, watts=1, usd_per_hour=1,
    mfu=0.5, mbu=0.5,
)  # fmt: skip
SHAPE: dict[str, Any] = {"layers": 10, "hidden": 1000, "kv_heads": 10, "head_dim": 250}
MODEL = Model(name="M", params_b=1, weight_gb=5, **SHAPE)
OTHER = Model(name="N", params_b=1, weight_gb=5, **SHAPE)

Rows = list[dict[str, float]]


@pytest.fixture(autouse=True)
def round_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Execution(
        mfu_ramp_tokens=200, linear_passes=2, attention_passes=1, linear_layer_s=0.0001,
        attention_layer_s=0.00005, attention_mfu_ratio=0.8, attention_mbu_ratio=0.5,
        prefill_launch_s=LAUNCH, load_init_s=0.5, all_reduce_s=0.0, token_budget=8192,
        pcie3_gb_s=12, pcie4_gb_s=25, pcie5_gb_s=50, nvlink_efficiency=0.8,
        pcie_peer_efficiency=0.9, peer_latency_s=0.01, memory_utilisation=1.0, max_batch=256,
        gather_s=0.25,
    )  # fmt: skip
    monkeypatch.setattr(catalog, "execution", lambda: facts)


def it(tokens: int, *, pairs: float = 0, context: float = 0) -> float:
    """An iteration of so many tokens, pairs of prompts, and tokens of context of who decodes."""
    linear = max(2e9 * (tokens + 200) / 5e13, 5e9 / 5e11)
    attention = 4e4 * pairs / 4e13 + context * 1e5 / 2.5e11
    return linear + attention + 1.8e5 * tokens / 1e12 + 0.0015


def borders(start: float, seconds: Iterable[float]) -> list[float]:
    """The ends of iterations one after the other."""
    return list(accumulate(seconds, initial=start))[1:]


def one_device(
    *workflows: tuple[float, tuple[Stage, ...]],
    edges: tuple[Edge, ...] = (),
    options: Options | None = None,
    **serving: Any,
) -> Problem:
    """Workflows (arrival, stages) on one device that batches; ``edges`` are of the first."""
    devices = (Device(id="d", gpu="Round", load_gb_s=5),)
    cluster = Cluster(id="one", devices=devices, execution="batching", **serving)
    return Problem.build(
        cluster,
        [
            Workflow(id=f"w{i}", arrival=at, stages=stages, edges=() if i else edges)
            for i, (at, stages) in enumerate(workflows)
        ],
        options=options,
        gpus=[GPU],
        models=[MODEL, OTHER],
    )


def trace_of(
    problem: Problem,
    rows: Rows,
    *,
    evictions: list[tuple[int, int, int, int, float]] | None = None,
    ready: list[float] | None = None,
    outages: Iterable[tuple[int, float, float]] = (),
) -> SimpleNamespace:
    """A trace of stages that have one shard each; durations follow from moments and loads."""
    defaults = {"queries": 1, "waves": 1, "noise": 1, "length": 1, "source": -1}
    filled = [dict.fromkeys((*WHOLE, *REAL), 0.0) | defaults | row for row in rows]
    for row in filled:
        inputs = row["start"] + max(row["load_s"], row["transfer_s"])
        row["prefill_s"], row["decode_s"] = row["first"] - inputs, row["end"] - row["first"]
    dtype = [(name, "i4") for name in WHOLE] + [(name, "f8") for name in REAL]
    count = sum(len(w.stages) for w in problem.workflows)
    end = [max(row["end"] for row in filled if row["stage"] == s) for s in range(count)]
    workflow_of = [i for i, w in enumerate(problem.workflows) for _ in w.stages]
    arrival = np.array([w.arrival for w in problem.workflows])
    last = np.array(
        [
            max(e for e, of in zip(end, workflow_of, strict=True) if of == i)
            for i in range(len(arrival))
        ]
    )
    stages = [stage for workflow in problem.workflows for stage in workflow.stages]
    keys = [(stage.model, stage.prefix_group) for stage in stages if stage.prefix_group]
    return SimpleNamespace(
        problem=problem,
        stage_ids=[(w.id, s.id) for w in problem.workflows for s in w.stages],
        model_names=list(dict.fromkeys(stage.model for stage in stages if stage.model)),
        prefix_keys=list(dict.fromkeys(keys)),
        device_ids=[device.id for device in problem.cluster.devices],
        shards=np.array(
            [tuple(row[name] for name in (*WHOLE, *REAL)) for row in filled], dtype=dtype
        ),
        evictions=np.array(evictions or [], dtype=EVICTION),
        stage_ready=np.array(ready or [arrival[i] for i in workflow_of]),
        stage_end=np.array(end),
        workflow_arrival=arrival,
        workflow_end=last,
        workflow_of=np.array(workflow_of),
        retentions=[],
        stage_vanished=np.zeros(count, dtype=bool),
        draws=np.full(count, np.nan),
        outages=np.array(list(outages), OUTAGE_ROW),
        decision_seconds=np.zeros(0),
        makespan=last.max() - arrival.min(),
        latencies=last - arrival,
        planning_seconds=0.0,
    )


def query(name: str, prompt: int, output: int, **more: Any) -> Stage:
    return Stage(id=name, prompt_tokens=prompt, output_tokens=output, **({"model": "M"} | more))


def alone() -> SimpleNamespace:
    """A load, a prompt that yields the first token, two more steps."""
    problem = one_device((0.0, (query("a", 50, 3),)))
    first, _, end = borders(
        LOAD + LAUNCH, (it(50, pairs=50 * 25), it(1, context=51), it(1, context=52))
    )
    return trace_of(problem, [{"load_s": LOAD, "first": first, "end": end}])


def without_output() -> SimpleNamespace:
    """It ends with its prompt."""
    problem = one_device((0.0, (query("a", 50, 0),)))
    end = LOAD + LAUNCH + it(50, pairs=50 * 25)
    return trace_of(problem, [{"load_s": LOAD, "first": end, "end": end}])


def overlap(prefill: str) -> SimpleNamespace:
    """A prompt of 100 tokens comes while another query decodes; an iteration has 60 tokens.

    The second is admitted at the border after its arrival, and joins at the one after next: its
    launch takes less than an iteration.
    """
    begin = LOAD + LAUNCH
    head = borders(begin, (it(50, pairs=1250), *(it(1, context=50 + i) for i in (1, 2, 3))))
    arrival = head[1] + 0.001
    stages = (query("a", 50, 7),), (query("b", 100, 2),)
    problem = one_device(
        (0.0, stages[0]), (arrival, stages[1]), prefill=prefill, token_budget=60, max_sequences=60
    )
    # The first has made 4 tokens at head[3], where the second joins, and needs 3 steps.
    if prefill == "chunked":
        tail = borders(
            head[3],
            (
                it(60, pairs=100 * 50 * 0.59, context=54),
                it(42, pairs=100 * 50 * 0.41, context=55),
                it(2, context=56 + 101),
            ),
        )
        firsts, ends = (head[0], tail[1]), (tail[2], tail[2])
    else:
        tail = borders(
            head[3],
            (
                it(100, pairs=100 * 50),
                it(2, context=54 + 101),
                it(1, context=55),
                it(1, context=56),
            ),
        )
        firsts, ends = (head[0], tail[0]), (tail[3], tail[1])
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": firsts[0], "end": ends[0]},
            {"stage": 1, "committed": arrival, "start": head[2], "first": firsts[1],
             "end": ends[1]},
        ],
    )  # fmt: skip


def two_in_a_row(
    first: Stage, second: Stage, *, load: float = 0.0, **serving: Any
) -> SimpleNamespace:
    """Two queries of (30000, 2) tokens, the second of which has to wait for the end of the first.

    The budget is wide enough for a prompt.
    """
    problem = one_device((0.0, (first, second)), token_budget=30000, **serving)
    steps = it(30000, pairs=30000 * 15000), it(1, context=30001)
    first_a, end_a = borders(LOAD + LAUNCH, steps)
    first_b, end_b = borders(end_a + load + LAUNCH, steps)
    rows: Rows = [
        {"load_s": LOAD, "first": first_a, "end": end_a},
        {"stage": 1, "start": end_a, "load_s": load, "first": first_b, "end": end_b},
    ]
    # The weights of another model leave when its own come.
    return trace_of(problem, rows, evictions=[(1, 0, 2, 0, 5e9)] if load else None)


def blocked_by_memory() -> SimpleNamespace:
    """KV of 50000 tokens fits beside the weights."""
    return two_in_a_row(query("a", 30000, 2), query("b", 30000, 2))


def blocked_by_another_model() -> SimpleNamespace:
    return two_in_a_row(query("a", 30000, 2), query("b", 30000, 2, model="N"), load=LOAD)


def blocked_by_sequences() -> SimpleNamespace:
    small = query("a", 1000, 2), query("b", 1000, 2)
    problem = one_device((0.0, small), max_sequences=1)
    steps = it(1000, pairs=1000 * 500), it(1, context=1001)
    first_a, end_a = borders(LOAD + LAUNCH, steps)
    first_b, end_b = borders(end_a + LAUNCH, steps)
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": first_a, "end": end_a},
            {"stage": 1, "start": end_a, "first": first_b, "end": end_b},
        ],
    )


def two_waves() -> SimpleNamespace:
    """One query of 30002 tokens fits at a time; nobody passes the shard."""
    problem = one_device(
        (0.0, (query("a", 30000, 2, queries=2), query("b", 10, 1))), token_budget=30000
    )
    steps = it(30000, pairs=30000 * 15000), it(1, context=30001)
    first_a, middle = borders(LOAD + LAUNCH, steps)
    # The query behind is admitted with the last wave and joins with it, and its prompt has no
    # place in the budget of the first iteration.
    start = middle + LAUNCH
    ends = borders(start, (steps[0], it(11, pairs=50, context=30001)))
    return trace_of(
        problem,
        [
            {"queries": 2, "waves": 2, "load_s": LOAD, "first": first_a, "end": ends[1]},
            {"stage": 1, "start": middle, "first": ends[1], "end": ends[1]},
        ],
    )


def shared_prefix() -> SimpleNamespace:
    """Twice 30000 tokens would not fit; the second finds what the first is about to compute."""
    more: dict[str, Any] = {"prefix_group": "g", "prefix_tokens": 30000}
    problem = one_device(
        (0.0, (query("a", 100, 1, **more), query("b", 50, 1, **more))), token_budget=40000
    )
    pairs = 30000 * 15000 + 100 * (30100 - 50) + 50 * (30050 - 25)
    end = LOAD + LAUNCH + it(30150, pairs=pairs)
    return trace_of(
        problem,
        [
            # The second waits for the load of the first.
            {"load_s": LOAD, "first": end, "end": end, "prefix_new": 30000},
            {"stage": 1, "first": end, "end": end, "prefix_hit": 30000},
        ],
    )


def inherited_context() -> SimpleNamespace:
    """One of the parent's two contexts' worth is taken over by each of the child's queries."""
    problem = one_device(
        (0.0, (query("a", 100, 1, queries=2), query("b", 10, 1))),
        edges=(Edge(parent="a", child="b", bytes=1.0, inherited_tokens=60),),
    )
    end_a = LOAD + LAUNCH + it(200, pairs=2 * 100 * 50)
    end_b = end_a + LAUNCH + it(10, pairs=10 * (70 - 5))
    return trace_of(
        problem,
        [
            {"queries": 2, "load_s": LOAD, "first": end_a, "end": end_a},
            {"stage": 1, "committed": end_a, "start": end_a, "first": end_b, "end": end_b,
             "context_hit": 60},
        ],
        ready=[0.0, end_a],
    )  # fmt: skip


def noisy() -> SimpleNamespace:
    """Each token counts with the noise of its shard, loads and launches with that of theirs."""
    problem = one_device(
        (0.0, (query("a", 60, 3), query("b", 40, 2))), options=Options(uncertainty=0.5)
    )
    # The second waits for the load and its own, longer launch: it joins a step later.
    loaded = LOAD * 0.5
    own = it(60, pairs=60 * 30) * 0.5, it(1, context=61) * 0.5
    first_a, joined = borders(loaded + LAUNCH * 0.5, own)
    seconds = it(41, pairs=40 * 20, context=62) * (0.5 * 1 + 2 * 40) / 41
    first_b, end_b = borders(joined, (seconds, it(1, context=41) * 2))
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": first_a, "end": first_b, "noise": 0.5},
            {"stage": 1, "first": first_b, "end": end_b, "noise": 2},
        ],
    )


def preemption() -> SimpleNamespace:
    """The first makes more than was expected, and takes the memory of the second.

    24990 + 24990 + 2 x 2 tokens leave room for 16; the second grows in its turn, and must go.
    """
    problem = one_device(
        (0.0, (query("a", 24990, 2), query("b", 24990, 2))),
        token_budget=60000,
        options=Options(length_uncertainty=0.5),
    )
    prompts = 24990 * 12495
    begin = borders(
        LOAD + LAUNCH,
        (it(2 * 24990, pairs=2 * prompts), it(2, context=2 * 24991), it(1, context=24992)),
    )
    # The first, of 3 tokens, grows at begin[1], the second is preempted with 2 tokens. Its prompt
    # is then of 24992, and yields the third.
    start_b = begin[2] + LAUNCH
    end_b = start_b + it(24992, pairs=24992 * 12496)
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": begin[0], "end": begin[2], "length": 1.5},
            {"stage": 1, "first": begin[0], "end": end_b, "length": 1.5, "preempted": 1},
        ],
    )  # fmt: skip


def failure() -> SimpleNamespace:
    """The device fails in the middle of a step, while a second query waits in its queue."""
    steps = it(50, pairs=1250), *(it(1, context=50 + i) for i in (1, 2, 3))
    head = borders(LOAD + LAUNCH, steps)
    down = (head[1] + head[2]) / 2
    up = down + 1.0
    problem = one_device(
        (0.0, (query("a", 50, 5), query("b", 50, 5))),
        max_sequences=1,
        options=Options(failures=Failures(outages=(Outage(device="d", at=down, seconds=1.0),))),
    )
    # Both again, from the load on.
    first_a, *_, end_a = borders(up + LOAD + LAUNCH, (*steps, it(1, context=54)))[:5]
    first_b, *_, end_b = borders(end_a + LAUNCH, (*steps, it(1, context=54)))[:5]
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": head[0], "end": down, "lost": 1},
            {"stage": 1, "start": down, "first": down, "end": down, "lost": 1},
            {"committed": up, "start": up, "load_s": LOAD, "first": first_a, "end": end_a},
            {"stage": 1, "committed": up, "start": end_a, "first": first_b, "end": end_b},
        ],
        ready=[down, down],
        outages=[(0, down, up)],
    )


def nearly_there(late: float) -> SimpleNamespace:
    """The inputs of a second query are there a moment after those of the first, on a device that
    rests until then: within a nanosecond they join together."""
    problem = one_device((0.0, (query("a", 50, 2),)), (LOAD + late, (query("b", 40, 1),)))
    begin = LOAD + LAUNCH
    if late <= 1e-9:
        first_a, end_a = borders(begin, (it(90, pairs=1250 + 800), it(1, context=51)))
        end_b = first_a
    else:
        first_a, end_a = borders(begin, (it(50, pairs=1250), it(41, pairs=800, context=51)))
        end_b = end_a
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": first_a, "end": end_a},
            {"stage": 1, "committed": LOAD + late, "start": LOAD + late, "first": end_b,
             "end": end_b},
        ],
    )  # fmt: skip


def nearly_at_a_border(late: float) -> SimpleNamespace:
    """A query comes a moment after a border: within a nanosecond it is admitted there, and has
    joined by the next one; else it is admitted at the next one and joins at the one behind it."""
    begin = LOAD + LAUNCH
    head = borders(begin, (it(50, pairs=1250), it(1, context=51), it(1, context=52)))
    arrival = head[0] + late
    problem = one_device((0.0, (query("a", 50, 5),)), (arrival, (query("b", 40, 1),)))
    if late <= 1e-9:
        start, joined, made = arrival, head[1], 2
    else:
        start, joined, made = head[1], head[2], 3
    steps = [it(41, pairs=800, context=50 + made)]
    steps += [it(1, context=50 + i) for i in range(made + 1, 5)]
    tail = borders(joined, steps)
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": head[0], "end": tail[-1]},
            {"stage": 1, "committed": arrival, "start": start, "first": tail[0], "end": tail[0]},
        ],
    )


def fixed_stage() -> SimpleNamespace:
    """Given seconds run by themselves: after who runs, before who waits."""
    stages = query("a", 50, 1), Stage(id="f", seconds_on={"d": 2.0}), query("b", 50, 1)
    problem = one_device((0.0, stages))
    end_a = LOAD + LAUNCH + it(50, pairs=1250)
    end_f = end_a + 2.0
    end_b = end_f + LAUNCH + it(50, pairs=1250)
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": end_a, "end": end_a},
            {"stage": 1, "start": end_a, "first": end_a, "end": end_f},
            {"stage": 2, "start": end_f, "first": end_b, "end": end_b},
        ],
    )


def copied_prefix() -> SimpleNamespace:
    """1e8 bytes of KV over a link of 10 GB/s: 0.02 s, beside a load of 1.5 s."""
    more: dict[str, Any] = {"prefix_group": "g", "prefix_tokens": 1000}
    devices = tuple(Device(id=d, gpu="Round", load_gb_s=5, peer_gb_s=10) for d in ("d0", "d1"))
    end_a = LOAD + LAUNCH + it(1050, pairs=1000 * 500 + 50 * 1025)
    problem = Problem.build(
        Cluster(id="two", devices=devices, execution="batching"),
        [
            Workflow(id="v", stages=(query("a", 50, 1, **more),)),
            Workflow(id="w", arrival=end_a, stages=(query("b", 40, 1, **more),)),
        ],
        gpus=[GPU],
        models=[MODEL],
    )
    end_b = end_a + LOAD + LAUNCH + it(40, pairs=40 * 1020)
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": end_a, "end": end_a, "prefix_new": 1000},
            {"stage": 1, "device": 1, "committed": end_a, "start": end_a, "load_s": LOAD,
             "transfer_s": 0.02, "first": end_b, "end": end_b, "prefix_hit": 1000,
             "copied": 1000, "source": 0, "bytes_moved": 1e8},
        ],
    )  # fmt: skip


def growth() -> SimpleNamespace:
    """24001 tokens are cached and 25992 reserved; what grows by 16 does not fit beside them."""
    problem = one_device(
        (0.0, (query("a", 24000, 1), query("b", 25990, 2), query("c", 10, 1))),
        edges=(Edge(parent="a", child="c", bytes=0.0, inherited_tokens=10),),
        options=Options(length_uncertainty=0.5),
        max_sequences=1,
        token_budget=30000,
    )
    end_a = LOAD + LAUNCH + it(24000, pairs=24000 * 12000)
    steps = it(25990, pairs=25990 * 12995), *(it(1, context=25990 + i) for i in range(1, 20))
    first_b, *_, end_b = borders(end_a + LAUNCH, steps)
    end_c = end_b + LAUNCH + it(20, pairs=20 * 10)
    return trace_of(
        problem,
        [
            {"load_s": LOAD, "first": end_a, "end": end_a},
            {"stage": 1, "start": end_a, "first": first_b, "end": end_b, "length": 10},
            {"stage": 2, "committed": end_a, "start": end_b, "first": end_c, "end": end_c,
             "context_new": 10},
        ],
        evictions=[(1, 0, 1, 0, 24001e5)],
        ready=[0.0, 0.0, end_a],
    )  # fmt: skip


TRACES: dict[str, Callable[[], SimpleNamespace]] = {
    "alone": alone,
    "without output": without_output,
    "chunked": lambda: overlap("chunked"),
    "first": lambda: overlap("first"),
    "memory": blocked_by_memory,
    "model": blocked_by_another_model,
    "sequences": blocked_by_sequences,
    "waves": two_waves,
    "prefix": shared_prefix,
    "context": inherited_context,
    "noise": noisy,
    "preemption": preemption,
    "growth": growth,
    "failure": failure,
    "inputs within a nanosecond": lambda: nearly_there(0.5e-9),
    "inputs after a nanosecond": lambda: nearly_there(2e-9),
    "commit within a nanosecond": lambda: nearly_at_a_border(0.5e-9),
    "commit after a nanosecond": lambda: nearly_at_a_border(2e-9),
    "fixed": fixed_stage,
    "copy": copied_prefix,
}


@pytest.mark.parametrize("name", TRACES)
def test_hand_computed_trace_is_valid(name: str) -> None:
    assert validate(TRACES[name]()) == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in TRACES if name != "copy"])
def test_the_same_is_played_without_a_trace(name: str) -> None:
    trace = TRACES[name]()
    rows = {int(row["stage"]): row for row in trace.shards}
    played = play(
        trace.problem,
        least_loaded,
        noise=lambda stage, _: float(rows[stage]["noise"]),
        length=lambda stage: float(rows[stage]["length"]),
        outages=[tuple(outage) for outage in trace.outages.tolist()],
    )
    assert len(played.shards) == len(trace.shards)
    for field in (*WHOLE, *REAL):
        kept = trace.shards["lost"] == 0
        assert played.shards[field][kept] == pytest.approx(trace.shards[field][kept], rel=1e-9)
    assert played.evictions.tolist() == trace.evictions.tolist()


@pytest.mark.parametrize("field", [*WHOLE, *REAL])
@pytest.mark.parametrize("name", ["chunked", "waves", "prefix", "growth", "preemption", "copy"])
def test_a_wrong_value_is_found(name: str, field: str) -> None:
    for row in range(len(TRACES[name]().shards)):
        trace = TRACES[name]()
        trace.shards[field][row] = 2 * trace.shards[field][row] + 3
        assert validate(trace), row  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [name for name, _ in EVICTION])
def test_a_wrong_eviction_is_found(field: str) -> None:
    trace = blocked_by_another_model()
    trace.evictions[field] += 10
    assert validate(trace)  # type: ignore[arg-type]
