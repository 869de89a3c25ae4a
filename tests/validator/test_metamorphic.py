"""What a change of the problem must not change, or must change in a known way.

Names and the order of devices say nothing about the work; times have no unit; another device can
be left alone; what goes into a stage is what comes out of its parents. One device, on which all
policies end at the same time: tests/policies/fate/test_negative_controls.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.problem import Problem
from fate_gym.problem.problem import problem_from
from fate_gym.sim import Simulator, Trace
from fate_gym.validator import assert_valid
from policies import make_policy, policy_names
from tests.kernel.batching.test_engine import batching
from tests.policies.instances import SMALL
from tests.strategies import certain, problems

NAMES = [name for name in policy_names() if name != "oracle_cpsat"]
LISTS = (
    "cpop", "dls", "eft", "fdws", "heft", "heft_boosted", "hexagent", "lookahead_heft", "max_min",
    "min_min", "peft", "rank_hybd", "sufferage",
)  # fmt: skip
"""Policies whose choices depend only on times."""
WITHOUT_UNIT = (*LISTS, "best_known", "clairvoyant", "fate", "least_loaded", "round_robin")


def run(problem: Problem, name: str, **params: Any) -> Trace:
    trace = Simulator(problem).run(make_policy(name, **SMALL.get(name, {}) | params))
    assert_valid(trace)
    return trace


@st.composite
def without_ties(draw: st.DrawFn, most: int = 8) -> Problem:
    """Return a classical problem of random durations that are all different."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tasks, machines = int(rng.integers(1, most + 1)), int(rng.integers(1, 5))
    seconds = {
        f"t{i}": {f"m{j}": float(rng.uniform(1, 9)) for j in range(machines)} for i in range(tasks)
    }
    edges = {
        (f"t{i}", f"t{j}"): float(rng.uniform(0.1, 5))
        for j in range(tasks)
        for i in range(j)
        if rng.random() < 0.3
    }
    return Problem.classical(seconds, edges)


def places(trace: Trace) -> dict[tuple[str, str], tuple[str, float]]:
    """Return the device and the end of each stage."""
    return {
        trace.stage_ids[row["stage"]]: (trace.device_ids[row["device"]], float(row["end"]))
        for row in trace.shards
    }


@given(problem=problems(), name=st.sampled_from(NAMES), batches=st.booleans())
def test_names_of_stages_and_workflows_say_nothing(
    problem: Problem, name: str, batches: bool
) -> None:
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    problem = batching(problem) if batches and tokens <= 6000 else problem
    assert run(renamed(problem), name).same_schedule(run(problem, name))


def renamed(problem: Problem) -> Problem:
    """Rename workflows and stages, which changes their alphabetical order."""
    content = problem.model_dump(mode="json", exclude_defaults=True)
    flows = {flow["id"]: f"x{99 - i}" for i, flow in enumerate(content["workflows"])}
    for flow in content["workflows"]:
        names = {stage["id"]: f"y{99 - i}" for i, stage in enumerate(flow["stages"])}
        flow["id"] = flows[flow["id"]]
        if flow.get("follows"):
            flow["follows"] = flows[flow["follows"]]
        for stage in flow["stages"]:
            stage["id"] = names[stage["id"]]
        for edge in flow.get("edges", ()):
            edge |= {end: names[edge[end]] for end in ("parent", "child")}
        for choice in flow.get("choices", ()):
            choice["after"] = names[choice["after"]]
            for option in choice["options"]:
                option["stages"] = [names[stage] for stage in option.get("stages", ())]
        for fan_out in flow.get("fan_outs", ()):
            fan_out["after"] = names[fan_out["after"]]
            fan_out["replicas"] = [[names[s] for s in part] for part in fan_out["replicas"]]
    return problem_from(content, "<renamed>")


@pytest.mark.parametrize("name", LISTS)
@settings(max_examples=10)
@given(problem=without_ties(), data=st.data())
def test_the_order_of_devices_says_nothing(
    name: str, problem: Problem, data: st.DataObject
) -> None:
    devices = tuple(data.draw(st.permutations(problem.cluster.devices)))
    cluster = problem.cluster.model_copy(update={"devices": devices})
    other = places(run(problem.model_copy(update={"cluster": cluster}), name))
    for stage, (device, end) in places(run(problem, name)).items():
        assert other[stage] == (device, pytest.approx(end, rel=1e-9))


@pytest.mark.parametrize("name", WITHOUT_UNIT)
@settings(max_examples=5)
@given(problem=without_ties())
def test_twice_the_times_take_twice_as_long(name: str, problem: Problem) -> None:
    content = problem.model_dump(mode="json", exclude_defaults=True)
    content["cluster"]["network_gb_s"] /= 2
    for stage in content["workflows"][0]["stages"]:
        stage["seconds_on"] = {d: 2 * seconds for d, seconds in stage["seconds_on"].items()}
    once, twice = run(problem, name), run(problem_from(content, "<twice>"), name)
    assert twice.stage_end.tolist() == pytest.approx((2 * once.stage_end).tolist(), rel=1e-12)


@settings(max_examples=20)
@given(problem=without_ties(6), seed=st.integers(0, 2**32))
def test_another_device_never_hurts_the_best_schedule(problem: Problem, seed: int) -> None:
    rng = np.random.default_rng(seed)
    content = problem.model_dump(mode="json", exclude_defaults=True)
    content["cluster"]["devices"].append({"id": "more", "node": "more"})
    for stage in content["workflows"][0]["stages"]:
        stage["seconds_on"]["more"] = float(rng.uniform(1, 9))
    few, more = run(problem, "best_known"), run(problem_from(content, "<more>"), "best_known")
    assert more.makespan <= few.makespan * (1 + 1e-9)


@settings(max_examples=60)
@given(problem=problems().map(certain), name=st.sampled_from(NAMES), batches=st.booleans())
def test_queries_tokens_and_bytes_are_conserved(problem: Problem, name: str, batches: bool) -> None:
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    batches = batches and tokens <= 6000
    trace = run(batching(problem) if batches else problem, name)
    stages = [(flow, stage) for flow in problem.workflows for stage in flow.stages]
    at = {key: number for number, key in enumerate(trace.stage_ids)}
    devices = [set(trace.shards["device"][trace.shards["stage"] == i]) for i in range(len(stages))]
    for number, (flow, stage) in enumerate(stages):
        shards = trace.shards[trace.shards["stage"] == number]
        assert shards["queries"].sum() == stage.queries
        edges = [edge for edge in flow.edges if edge.child == stage.id]
        inherited = sum(edge.inherited_tokens for edge in edges)
        if stage.model is not None and not batches:
            found = shards["prefix_hit"] + shards["prefix_new"]
            assert found.tolist() == [stage.prefix_tokens] * len(shards)
            assert (shards["copied"] <= shards["prefix_hit"]).all()
            context = shards["context_hit"] + shards["context_new"]
            assert context.tolist() == (shards["queries"] * inherited).tolist()
        for shard in shards[shards["copied"] == 0]:
            away = [e for e in edges if devices[at[flow.id, e.parent]] != {shard["device"]}]
            most = sum(edge.bytes for edge in away)
            # Shards and parents that are split share the bytes; otherwise all of them come.
            whole = len(shards) == 1 and all(len(devices[at[flow.id, e.parent]]) == 1 for e in away)
            assert shard["bytes_moved"] <= most * (1 + 1e-9)
            assert not whole or shard["bytes_moved"] == pytest.approx(most, rel=1e-9)
