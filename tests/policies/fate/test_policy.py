"""FATE as a policy: the guard's guarantee, ablations, counters."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from fate_gym.problem.sessions import apart
from fate_gym.sim import Simulator, Trace, compile_problem
from fate_gym.validator import assert_valid
from fate_gym.workloads import assign_roles, build_suite, load_cluster, load_suite, topologies
from policies import make_policy, policy_specs
from policies.fate.paper.policy import Fate
from policies.fate.rollout.policy import FateRollout
from tests.strategies import certain, problems

BASES = ("heft", "heft_boosted", "lookahead_heft_boosted")
"""The list schedules that the guard falls back on."""
MORE_BASES = (
    "eft", "lookahead_heft", "dls", "dls_boosted", "peft", "peft_boosted", "cpop", "cpop_boosted",
    "max_min", "max_min_boosted", "min_min", "min_min_boosted", "sufferage", "sufferage_boosted",
)  # fmt: skip
"""Further bases, used for single workflows."""


def alone(problem: Problem) -> Problem:
    """Return the first workflow without uncertainty: the planner knows everything that happens."""
    known = certain(problem)
    return known.model_copy(update={"workflows": (apart(known.workflows[0]),)})


def run(problem: Problem, **params: Any) -> Trace:
    return Simulator(problem).run(make_policy("fate", **params))


def real(stages: int) -> list[Problem]:
    """Return four real workflow graphs of different sizes, of at most ``stages`` stages."""
    small = sorted((len(t.types), t.name, t) for t in topologies() if len(t.types) <= stages)
    chosen = [small[i * (len(small) - 1) // 3][2] for i in range(4)]
    cluster = load_cluster("mixed_8")
    return [Problem.build(cluster, [assign_roles(topology, seed=0)]) for topology in chosen]


REAL = real(stages=40)


def on(problem: Problem, execution: str) -> Problem:
    """Return the problem on exclusive or batching devices."""
    cluster = problem.cluster.model_copy(update={"execution": execution})
    return problem.model_copy(update={"cluster": cluster})


both = pytest.mark.parametrize("execution", ["exclusive", "batching"])


@both
@settings(max_examples=30)
@given(problem=problems())
def test_never_behind_its_bases(problem: Problem, execution: str) -> None:
    simulator = Simulator(on(alone(problem), execution))
    guarded = simulator.run(make_policy("fate")).makespan
    for base in BASES + MORE_BASES:
        assert guarded <= simulator.run(make_policy(base)).makespan * (1 + 1e-9), base


@both
@pytest.mark.parametrize("problem", REAL, ids=lambda problem: problem.workflows[0].id)
def test_never_behind_its_bases_on_real_graphs(problem: Problem, execution: str) -> None:
    simulator = Simulator(on(problem, execution))
    trace = simulator.run(make_policy("fate"))
    assert_valid(trace)
    for base in BASES + MORE_BASES:
        assert trace.makespan <= simulator.run(make_policy(base)).makespan * (1 + 1e-9), base


def test_plans_are_worth_something() -> None:
    """On some real graph the planner ends before all of its bases."""
    better = 0
    for problem in REAL:
        simulator = Simulator(problem)
        trace = simulator.run(make_policy("fate"))
        bases = [simulator.run(make_policy(base)).makespan for base in BASES + MORE_BASES]
        better += trace.makespan < min(bases) * (1 - 1e-9)
        assert trace.counters["plans_taken"] <= trace.counters["plans"]
    assert better


PARTS: dict[str, dict[str, Any]] = {
    "no solver": {"cp_sat": False},
    "no guard": {"guard": False},
    "neither": {"cp_sat": False, "guard": False},
    "no horizon": {"horizon": 0.0},
    "no depth": {"depth": 0},
    "no shards": {"max_shards": 1},
    "no weights": {"residency": 0.0, "locality": 0.0, "prefix": 0.0, "reachability": 0.0},
    "no time": {"limit": 0.0},
    "no share": {"shares": [0.0]},
    "narrow": {"window": 1, "kept": 1},
}


@pytest.mark.parametrize("part", PARTS)
@settings(max_examples=6)
@given(problem=problems(), seed=st.integers(0, 2**32))
def test_every_part_can_be_left_out(part: str, problem: Problem, seed: int) -> None:
    simulator = Simulator(problem)
    trace = simulator.run(make_policy("fate", **PARTS[part]), seed=seed)
    assert simulator.done
    assert_valid(trace)
    if part == "no shards":
        assert (trace.shards["slot"] == 0).all()


def test_parts_make_a_difference() -> None:
    """Each switch changes some schedule: none is a dead letter."""
    compiled = [compile_problem(problem) for problem in REAL]

    def schedules(**params: Any) -> list[Trace]:
        # Unguarded: what the planner wants, not what the guard lets pass.
        policy = make_policy("fate", **{"guard": False, **params})
        return [Simulator(problem).run(policy) for problem in compiled]

    full = schedules()
    for params in (
        {"guard": True}, {"cp_sat": False}, {"horizon": 0.0}, {"max_shards": 1}, {"window": 1},
        {"residency": 0.0}, {"shares": [0.0]},
    ):  # fmt: skip
        other = schedules(**params)
        assert not all(a.same_schedule(b) for a, b in zip(full, other, strict=True)), params


def test_without_time_for_the_solver_the_improved_hint_is_the_plan() -> None:
    """It is counted, and still better than list schedules."""
    taken = 0.0
    for problem in REAL[:2]:
        simulator = Simulator(problem)
        trace = simulator.run(make_policy("fate", limit=0.0))
        assert trace.counters["plans"] == trace.counters["solver_failures"] > 0
        taken += trace.counters["plans_taken"]
        best = min(simulator.run(make_policy(base)).makespan for base in BASES)
        assert trace.makespan <= best * (1 + 1e-9)
    assert taken > 0


def test_counters_start_anew_with_each_run() -> None:
    policy = make_policy("fate")
    simulator = Simulator(REAL[0])
    first = simulator.run(policy)
    again = simulator.run(policy)
    assert first.counters == again.counters
    assert first.counters["plans"] > 0
    # The trace keeps its own numbers.
    assert first.counters is not again.counters


def test_defaults_are_those_of_the_files() -> None:
    """An ablation names only what it leaves out: all else is as in the full planner's file."""
    specs = policy_specs()
    for name, factory in (("fate", Fate), ("fate_rollout", FateRollout)):
        parameters = inspect.signature(factory).parameters
        defaults = {
            key: list(p.default) if isinstance(p.default, tuple) else p.default
            for key, p in parameters.items()
            if key != "name"
        }
        assert specs[name].params == defaults
        for other, spec in specs.items():
            if other.startswith(f"{name}_") and spec.target == specs[name].target:
                assert spec.family == "fate"
                assert len(spec.params) == 1, other


@pytest.mark.parametrize("name", ["fate", "fate_rollout"])
@pytest.mark.parametrize("dimension", ["residency", "locality", "prefix", "reachability"])
def test_a_blind_planner_plans_otherwise(name: str, dimension: str) -> None:
    """And what it plans is still legal."""
    changed = False
    for problem in REAL:
        full = Simulator(problem).run(make_policy(name, **CHEAP[name]))
        blind = Simulator(problem).run(make_policy(name, **CHEAP[name], ignore=[dimension]))
        assert_valid(blind)
        changed = changed or not full.same_schedule(blind)
    # On these graphs all edges are small and some clusters can run everything everywhere.
    assert changed or dimension in ("locality", "reachability")


CHEAP: dict[str, dict[str, Any]] = {"fate": {}, "fate_rollout": {"first": 2_000, "steps": 300}}


@pytest.mark.parametrize("queries", [1, 400])
def test_a_stage_whose_child_has_no_host_is_left_out_of_the_plan(queries: int) -> None:
    """The first or the last of the frontier: what it costs later is not known."""
    shape: dict[str, Any] = {"model": "Phi-3-mini", "output_tokens": 20}
    stages = (
        Stage(id="root", prompt_tokens=10, allowed_devices=("d0",), **shape),
        Stage(id="a", prompt_tokens=1000, allowed_devices=("d0",), **shape),
        Stage(id="b", prompt_tokens=10, allowed_devices=("d1",), **shape),
        Stage(id="c", prompt_tokens=1000, allowed_devices=("d0",), queries=queries, **shape),
    )
    edges = tuple(Edge(parent=x, child=y) for x, y in (("root", "a"), ("a", "b"), ("root", "c")))
    problem = Problem.build(
        Cluster(id="two", devices=(Device(id="d0", gpu="L40S"), Device(id="d1", gpu="L40S"))),
        [Workflow(id="w", stages=stages, edges=edges)],
        options=Options(failures=Failures(outages=(Outage(device="d1", at=0.5, seconds=900.0),))),
    )
    assert_valid(run(problem, guard=False))


@pytest.mark.parametrize("name", ["fate", "fate_rollout"])
def test_stages_are_shared_under_uncertainty_too_where_that_gains(name: str) -> None:
    stage = Stage(id="s", model="Phi-3-mini", queries=64, prompt_tokens=2000, output_tokens=400)
    flows = [Workflow(id="w", stages=(stage,))]
    for options in ({}, {"uncertainty": 0.3}, {"length_uncertainty": 0.3}):
        problem = Problem.build(load_cluster("homogeneous_8"), flows, options=Options(**options))
        ends = []
        for shards in (1, 4):
            traces = [
                Simulator(problem, seed=seed).run(make_policy(name, max_shards=shards))
                for seed in range(5)
            ]
            assert_valid(traces[0])
            assert (len(traces[0].shards) > 1) == (shards > 1)
            ends.append(sum(trace.makespan for trace in traces))
        assert ends[1] < ends[0]


def test_without_futures_both_planners_play_the_list_schedule() -> None:
    """With some they do better than that, each in its way."""
    spec = load_suite("smoke")
    same = []
    for samples in (0, 32):
        for problem in build_suite(spec, load_cluster(spec.cluster), 0):
            options = problem.options.model_copy(update={"uncertainty": 0.3})
            simulator = Simulator(problem.model_copy(update={"options": options}))
            one, other = (
                simulator.run(make_policy(name, samples=samples), seed=1).makespan
                for name in ("fate", "fate_rollout")
            )
            same.append(one == other)
    half = len(same) // 2
    assert all(same[:half])
    assert not all(same[half:])
