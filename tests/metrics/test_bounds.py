"""Bounds against exact answers, and against every schedule of tiny instances.

The two oracles below are plain Python written from docs/execution-model.md; they share no code
with the bounds or with the simulator.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fate_gym.catalog import Gpu, Model
from fate_gym.metrics import bounds
from fate_gym.metrics.bounds import (
    BoundInputs,
    LowerBounds,
    lower_bounds,
    problem_bounds,
    work_bound,
)
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator, compile_problem

SLACK = 1 + 1e-9
seconds = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, 7.0])


@dataclass
class Instance:
    """Shards of n queries cost ``fixed + n · rate``; devices never forget a model."""

    rate: list[list[float]]
    fixed: list[list[float]]
    load: list[list[float]]
    model: list[int]
    queries: list[int]
    edges: list[tuple[int, int]]
    workflow: list[int]
    arrival: list[float]
    most: int
    gather: float
    tool: dict[int, float] = field(default_factory=dict)
    follows: list[int] = field(default_factory=list)
    think: list[float] = field(default_factory=list)

    def bounds(self) -> LowerBounds:
        queries = np.array(self.queries, dtype=float)
        floor = np.array(self.fixed) + queries[:, None] * np.array(self.rate)
        tool = np.zeros(len(queries))
        for stage, duration in self.tool.items():
            floor[stage] = np.inf
            tool[stage] = duration
        edges = np.array(self.edges, dtype=np.int64).reshape(-1, 2)
        inputs = BoundInputs(
            floor_seconds=floor,
            tool_seconds=tool,
            load_seconds=np.array(self.load),
            model_of=np.array(self.model),
            workflow_of=np.array(self.workflow),
            arrival=np.array(self.arrival),
            follows=np.array(self.follows or [-1] * len(self.arrival)),
            think_seconds=np.array(self.think or [0.0] * len(self.arrival)),
            edge_parent=edges[:, 0],
            edge_child=edges[:, 1],
            most_shards=np.minimum(self.queries, self.most),
            gather_seconds=self.gather,
        )
        return lower_bounds(inputs)

    def splits(self, stage: int) -> list[dict[int, int]]:
        """Return every placement of a stage: queries by device."""
        devices = [d for d in range(len(self.load[0])) if math.isfinite(self.rate[stage][d])]
        counts = itertools.product(range(self.queries[stage] + 1), repeat=len(devices))
        return [
            {d: n for d, n in zip(devices, split, strict=True) if n}
            for split in counts
            if sum(split) == self.queries[stage] and 1 <= sum(map(bool, split)) <= self.most
        ]

    def before(self, workflow: int) -> list[int]:
        """Return the stages of the workflow that a workflow follows."""
        first = self.follows[workflow] if self.follows else -1
        return [s for s, w in enumerate(self.workflow) if w == first]

    def arrived(self, workflow: int, end: Mapping[int, float]) -> float:
        """Return when a workflow arrives, given the ends of stages."""
        ends = [end[s] + self.think[workflow] for s in self.before(workflow)]
        return max([self.arrival[workflow], *ends])

    def schedules(self) -> list[list[float]]:
        """Return the stage ends of all orders of commits and placements, each as early as possible.

        No policy can take some of these orders, but a bound that holds for all is valid, too.
        """
        found: list[list[float]] = []
        parents: list[list[int]] = [[] for _ in self.model]
        for a, b in self.edges:
            parents[b].append(a)

        def place(end: dict[int, float], drain: list[float], loaded: frozenset[object]) -> None:
            if len(end) == len(self.model):
                found.append([end[s] for s in range(len(end))])
                return
            for s in range(len(self.model)):
                before = self.before(self.workflow[s])
                if s in end or any(one not in end for one in [*before, *parents[s]]):
                    continue
                arrived = self.arrived(self.workflow[s], end)
                ready = max([arrived, *(end[parent] for parent in parents[s])])
                if s in self.tool:
                    place(end | {s: ready + self.tool[s]}, drain, loaded)
                    continue
                for split in self.splits(s):
                    drains, now_loaded = list(drain), set(loaded)
                    for d, n in split.items():
                        turn = max(ready, drains[d])
                        if self.model[s] >= 0 and (self.model[s], d) not in loaded:
                            turn += self.load[self.model[s]][d]
                            now_loaded.add((self.model[s], d))
                        drains[d] = turn + self.fixed[s][d] + n * self.rate[s][d]
                    last = max(drains[d] for d in split) + (len(split) - 1) * self.gather
                    place(end | {s: last}, drains, frozenset(now_loaded))

        place({}, [0.0] * len(self.load[0]), frozenset())
        return found


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    stages, devices, models = 3, 2, draw(st.integers(1, 2))

    def table(rows: int, values: st.SearchStrategy[float]) -> list[list[float]]:
        return [[draw(values) for _ in range(devices)] for _ in range(rows)]

    model = [draw(st.integers(-1, models - 1)) for _ in range(stages)]
    rate = table(stages, st.sampled_from([0.0, 0.5, 1.0, 4.0]))
    for row in rate:
        if draw(st.integers(0, 3)) == 0:
            row[draw(st.integers(0, devices - 1))] = math.inf
    workflow = sorted(draw(st.integers(0, 1)) for _ in range(stages))
    workflow = [w - workflow[0] for w in workflow]
    tools = draw(st.dictionaries(st.integers(0, stages - 1), seconds, max_size=1))
    flows = workflow[-1] + 1
    # The first of two may also follow the second.
    turned = draw(st.sampled_from([[-1, -1], [-1, -1], [-1, 0], [1, -1]])) if flows > 1 else [-1]
    return Instance(
        rate=rate,
        fixed=table(stages, st.sampled_from([0.0, 1.0])),
        load=table(models, st.sampled_from([0.5, 2.0, 5.0])),
        model=[-1 if s in tools else m for s, m in enumerate(model)],
        queries=[draw(st.integers(1, 3)) for _ in range(stages)],
        edges=[
            (a, b)
            for a, b in itertools.combinations(range(stages), 2)
            if workflow[a] == workflow[b] and draw(st.booleans())
        ],
        workflow=workflow,
        arrival=[draw(seconds) for _ in range(flows)],
        follows=turned,
        think=[draw(seconds) for _ in range(flows)],
        most=draw(st.integers(1, 2)),
        gather=draw(st.sampled_from([0.0, 0.25])),
        tool=tools,
    )


@given(instances())
def test_no_schedule_beats_the_bounds(instance: Instance) -> None:
    bound = instance.bounds()
    for end in instance.schedules():
        ends = dict(enumerate(end))
        arrival = np.array([instance.arrived(w, ends) for w in range(len(instance.arrival))])
        assert bound.makespan <= (max(end) - arrival.min()) * SLACK + 1e-12
        for w, lower in enumerate(bound.latency):
            last = max(end[s] for s in range(len(end)) if instance.workflow[s] == w)
            assert lower <= (last - arrival[w]) * SLACK + 1e-12


@given(instances())
def test_makespan_is_the_largest_bound_and_covers_every_workflow(instance: Instance) -> None:
    bound = instance.bounds()
    assert bound.makespan == max(bound.work, bound.critical_path, bound.window)
    if max(instance.follows) >= 0:
        return
    offset = np.array(instance.arrival) - min(instance.arrival)
    if len(offset) == 1:
        assert bound.latency[0] == pytest.approx(bound.makespan)
    assert np.all(bound.latency >= 0)
    assert bound.critical_path <= (bound.latency + offset).max() * SLACK


def single(**changes: object) -> Instance:
    base: dict[str, object] = {
        "rate": [[2.0, 4.0]],
        "fixed": [[0.0, 0.0]],
        "load": [[1.0, 1.0]],
        "model": [0],
        "queries": [3],
        "edges": [],
        "workflow": [0],
        "arrival": [0.0],
        "most": 1,
        "gather": 0.0,
    }
    return Instance(**(base | changes))  # type: ignore[arg-type]


def test_a_lone_stage_takes_its_load_and_its_best_device() -> None:
    assert single().bounds().critical_path == pytest.approx(1 + 6)
    # Shards of 2 and 1 queries: both devices end at 1 + 4, the bound is tight.
    assert single(most=2).bounds().critical_path == pytest.approx(1 + 4)
    assert single(most=2, gather=0.5).bounds().critical_path == pytest.approx(1 + 4.5)
    assert single(most=2, gather=9.0).bounds().critical_path == pytest.approx(1 + 6)


def test_time_counts_from_the_first_arrival() -> None:
    late = single(arrival=[100.0]).bounds()
    assert late.makespan == pytest.approx(7)
    assert late.latency == pytest.approx([7])


def test_a_turn_follows_the_bound_on_the_one_before() -> None:
    """It meets models that are loaded: its latency is that of its work alone."""
    turns = single(
        rate=[[2.0, 4.0]] * 2, fixed=[[0.0, 0.0]] * 2, model=[0, 0], queries=[3, 3],
        workflow=[0, 1], arrival=[5.0, 0.0], follows=[-1, 0], think=[0.0, 10.0],
    ).bounds()  # fmt: skip
    # From 5: load 1 and run 6, think 10, run 6.
    assert turns.makespan == pytest.approx(7 + 10 + 6)
    assert turns.latency == pytest.approx([7, 6])


def test_a_chain_pays_for_each_model_once() -> None:
    chain = single(
        rate=[[1.0]] * 3, fixed=[[0.0]] * 3, load=[[10.0], [20.0]], model=[0, 1, 0],
        queries=[1] * 3, edges=[(0, 1), (1, 2)], workflow=[0] * 3,
    )  # fmt: skip
    assert chain.bounds().critical_path == pytest.approx(10 + 1 + 20 + 1 + 1)


def test_a_model_that_waits_for_another_workflow_may_be_loaded_by_it() -> None:
    stream = single(
        rate=[[1.0]] * 2, fixed=[[0.0]] * 2, load=[[10.0]], model=[0, 0], queries=[1, 1],
        workflow=[0, 1], arrival=[0.0, 50.0],
    )  # fmt: skip
    assert stream.bounds().latency == pytest.approx([11, 1])


def test_a_window_counts_the_work_between_two_chains() -> None:
    """Six stages between a source and a sink, on two devices: neither path nor work sees it."""
    middle = range(1, 7)
    fan = Instance(
        rate=[[2.0, 2.0]] * 8,
        fixed=[[0.0, 0.0]] * 8,
        load=[[5.0, 5.0]],
        model=[-1] * 8,
        queries=[1] * 8,
        edges=[(0, s) for s in middle] + [(s, 7) for s in middle],
        workflow=[0] * 8,
        arrival=[3.0],
        most=1,
        gather=0.0,
    )
    bounds = fan.bounds()
    assert (bounds.critical_path, bounds.work) == (pytest.approx(6), pytest.approx(8))
    assert bounds.window == pytest.approx(2 + 6 + 2)
    assert bounds.makespan == bounds.latency[0] == bounds.window


@pytest.mark.parametrize("outside", [False, True])
def test_a_load_counts_in_a_window_if_it_cannot_come_before(outside: bool) -> None:
    """With a stage of the model at the source it may have been loaded there."""
    fan = Instance(
        rate=[[2.0], [2.0], [2.0], [2.0]],
        fixed=[[0.0]] * 4,
        load=[[4.0]],
        model=[0 if outside else -1, 0, 0, -1],
        queries=[1] * 4,
        edges=[(0, 1), (0, 2), (1, 3), (2, 3)],
        workflow=[0] * 4,
        arrival=[0.0],
        most=1,
        gather=0.0,
    )
    assert fan.bounds().window == pytest.approx(12)
    assert min(max(end) for end in fan.schedules()) == pytest.approx(12)


def test_a_tool_counts_in_the_path_and_not_in_the_work() -> None:
    instance = single(
        rate=[[2.0], [1.0]], fixed=[[0.0]] * 2, load=[[1.0]], model=[0, -1], queries=[3, 1],
        edges=[(1, 0)], workflow=[0, 0], tool={1: 30.0},
    )  # fmt: skip
    assert instance.bounds().work == pytest.approx(7)
    assert instance.bounds().critical_path == pytest.approx(37)


# --- the work bound --------------------------------------------------------------------------

costs_of = st.integers(1, 6).flatmap(
    lambda rows: st.lists(
        st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 5.0, math.inf]), min_size=3, max_size=3)
        .filter(lambda row: any(map(math.isfinite, row))),
        min_size=rows, max_size=rows,
    )
)  # fmt: skip


def plain_program(costs: np.ndarray) -> float:
    """Solve the textbook linear program, with dense matrices."""
    rows, devices = costs.shape
    usable = np.isfinite(costs)
    cost = np.where(usable, costs, 0.0)
    deal = np.kron(np.eye(rows), np.ones(devices))
    load = np.hstack([np.diag(row) for row in cost])
    result = linprog(
        np.append(np.zeros(rows * devices), 1.0),
        A_ub=np.column_stack([load, -np.ones(devices)]),
        b_ub=np.zeros(devices),
        A_eq=np.column_stack([deal, np.zeros(rows)]),
        b_eq=np.ones(rows),
        bounds=[(0, None if ok else 0) for ok in usable.ravel()] + [(0, None)],
    )
    return float(result.fun)


@given(costs_of)
def test_work_is_the_optimum_of_the_linear_program(rows: list[list[float]]) -> None:
    costs = np.array(rows)
    assert work_bound(costs) == pytest.approx(plain_program(costs), rel=1e-6)


@given(costs_of)
def test_no_assignment_of_whole_stages_beats_the_work_bound(rows: list[list[float]]) -> None:
    costs = np.array(rows)
    best = min(
        max(sum(costs[s, d] for s, d in enumerate(to) if d == device) for device in range(3))
        for to in itertools.product(range(3), repeat=len(rows))
    )
    assert work_bound(costs) <= best * SLACK


def test_two_machines_have_a_closed_form() -> None:
    costs = np.array([[1.0, 3.0], [2.0, 2.0], [4.0, 1.0]])
    # The bound is piecewise linear in the price of device 0; its kinks are where a row is torn.
    kinks = [b / (a + b) for a, b in costs] + [0.0, 1.0]
    best = max(sum(min(w * a, (1 - w) * b) for a, b in costs) for w in kinks)
    assert work_bound(costs) == pytest.approx(best)


def test_rows_that_are_free_somewhere_and_no_rows_at_all() -> None:
    assert work_bound(np.array([[0.0, 5.0], [4.0, 4.0]])) == pytest.approx(2.0)
    assert work_bound(np.zeros((0, 2))) == 0.0


def test_rounded_rows_give_a_bound_that_is_valid_and_nearly_as_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    prefill, decode = rng.uniform(0.1, 3, (60, 1)), rng.uniform(0.5, 50, (60, 1))
    costs = prefill * rng.uniform(0.1, 5, 4) + decode * rng.uniform(0.1, 5, 4)
    exact = work_bound(costs)
    monkeypatch.setattr(bounds, "_MOST_PATTERNS", 10)
    assert 0.98 * exact <= work_bound(costs) <= exact * SLACK


def test_a_thousand_stages_on_twelve_devices_take_a_moment() -> None:
    rng = np.random.default_rng(1)
    prefill, decode = rng.uniform(0.1, 3, (1000, 1)), rng.uniform(0.5, 50, (1000, 1))
    kinds = rng.uniform(0.1, 5, (2, 5))[:, np.arange(12) % 5]
    costs = prefill * kinds[0] + decode * kinds[1]
    work_bound(costs[:10])
    start = time.process_time()
    work_bound(costs)
    assert time.process_time() - start < 0.5  # 0.02 s on a quiet core


# --- the rate floor --------------------------------------------------------------------------


def shard_seconds(n: int, batch: int, step: tuple[float, float, float, float]) -> float:
    """Return prefill (all cached that can be) + decode of n queries in waves of ``batch``."""
    waves = [batch] * (n // batch) + ([n % batch] if n % batch else [])
    prefill = step_seconds(20 * n, step) - step[2] * 20 * n
    return prefill + 50 * sum(step_seconds(x, step) for x in waves)


def step_seconds(x: int, step: tuple[float, float, float, float]) -> float:
    compute, weights, context, overhead = step
    return max(compute * (x + 200), weights) + context * x + overhead


STEP = (0.00001, 0.02, 0.0004, 0.0015)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.tuples(*[st.floats(0, 1)] * 4),
)
@settings(max_examples=200)
def test_the_rate_floor_holds_for_every_shard(
    queries: int, batch: int, step: tuple[float, float, float, float]
) -> None:
    m = min(queries, batch)
    prefill = step_seconds(20 * queries, step) - step[2] * 20 * queries
    floor = prefill + 50 * queries * step_seconds(m, step) / m
    for n in range(1, queries + 1):
        assert shard_seconds(n, batch, step) >= n / queries * floor * (1 - 1e-9)


def test_the_cost_of_all_queries_is_no_rate_floor_where_waves_are_cut_short() -> None:
    whole = shard_seconds(9, 8, STEP)
    assert shard_seconds(8, 8, STEP) < 8 / 9 * whole


# --- with the simulator ----------------------------------------------------------------------

GPU = Gpu(
    name="Small", memory_gb=10, bandwidth_gb_s=1000, tflops=100, pcie=3, watts=1, usd_per_hour=1,
    mfu=0.5, mbu=0.5,
)  # fmt: skip
MODEL = Model(
    name="M", params_b=1, weight_gb=5, layers=10, hidden=1000, kv_heads=10, head_dim=250
)  # fmt: skip


def problem(
    *stages: Stage,
    edges: tuple[Edge, ...] = (),
    execution: Literal["exclusive", "batching"] = "exclusive",
    **options: object,
) -> Problem:
    devices = tuple(Device(id=f"d{i}", gpu="Small") for i in range(3))
    cluster = Cluster(id="c", devices=devices, execution=execution)
    workflow = Workflow(id="w", stages=stages, edges=edges)
    return Problem.build(
        cluster, [workflow], gpus=[GPU], models=[MODEL], options=Options.model_validate(options)
    )


def model_stage(name: str, **changes: object) -> Stage:
    base = {"id": name, "model": "M", "prompt_tokens": 100, "output_tokens": 50}
    return Stage.model_validate(base | changes)


def makespans(of: Problem) -> list[float]:
    """Return simulated makespans of all even placements of all stages, in stage order."""
    compiled = compile_problem(of)
    found = []
    sets = [devices for k in (1, 2, 3) for devices in itertools.combinations(range(3), k)]
    for choice in itertools.product(sets, repeat=of.stage_count):
        simulator = Simulator(compiled)
        simulator.reset(0)
        stages = [stage for workflow in of.workflows for stage in workflow.stages]
        if any(
            len(c) > min(of.options.max_shards, s.queries)
            for c, s in zip(choice, stages, strict=True)
        ):
            continue
        while not simulator.done:
            if not simulator.ready:
                simulator.wait()
                continue
            stage = simulator.ready[0]
            simulator.place(stage, choice[stage])
        found.append(simulator.trace().makespan)
    return found


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_the_simulator_never_beats_the_bound_and_comes_near_it(
    execution: Literal["exclusive", "batching"],
) -> None:
    of = problem(
        model_stage("a", queries=6, prefix_group="g", prefix_tokens=500),
        model_stage("b", queries=2, prefix_group="g", prefix_tokens=500),
        model_stage("c", queries=4, prompt_tokens=50),
        edges=(Edge(parent="a", child="c", bytes=1e6, inherited_tokens=150),),
        execution=execution,
    )
    best = min(makespans(of))
    bound = problem_bounds(compile_problem(of))
    assert 0.6 * best <= bound.makespan <= best * SLACK
    assert bound.latency == pytest.approx([bound.makespan])
    # Iterations that stages share cost less for each: no work bound is known.
    assert np.isnan(bound.work) == (execution == "batching")


def test_a_split_that_saves_a_wave_does_not_beat_the_bound() -> None:
    # Reading weights makes a step on "wide", of one query or of a full wave of 256. Computing makes
    # a step on "quick", for each query. The 257th query costs "wide" as much as the 256 before it.
    wide = GPU.model_copy(update={"name": "wide", "bandwidth_gb_s": 100.0})
    quick = GPU.model_copy(update={"name": "quick", "bandwidth_gb_s": 1e4, "tflops": 0.04})
    model = MODEL.model_copy(update={"kv_heads": 0})
    cluster = Cluster(
        id="c", devices=tuple(Device(id=name, gpu=name) for name in ("wide", "quick"))
    )
    stage = model_stage("a", queries=257, prompt_tokens=1, output_tokens=9000)
    of = Problem.build(
        cluster, [Workflow(id="w", stages=(stage,))], gpus=[wide, quick], models=[model]
    )
    compiled = compile_problem(of)
    simulator = Simulator(compiled)
    simulator.reset(0)
    simulator.place(0, (0, 1), (256, 1))
    while not simulator.done:
        simulator.wait()
    assert problem_bounds(compiled).makespan <= simulator.trace().makespan * SLACK


def test_noise_leaves_no_bound() -> None:
    bound = problem_bounds(compile_problem(problem(model_stage("a"), uncertainty=0.1)))
    assert np.isnan([bound.work, bound.critical_path, bound.makespan, *bound.latency]).all()
    assert bound.latency.shape == (1,)


def test_a_classical_instance_has_the_classical_bounds() -> None:
    of = Problem.classical(
        {"a": {"x": 2, "y": 3}, "b": {"x": 4, "y": 1}, "c": {"x": 2, "y": 2}},
        {("a", "b"): 10.0, ("b", "c"): 10.0},
    )
    bound = problem_bounds(compile_problem(of))
    assert bound.critical_path == pytest.approx(2 + 1 + 2)
    assert bound.work == pytest.approx(plain_program(np.array([[2.0, 3], [4, 1], [2, 2]])))
