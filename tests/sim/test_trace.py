"""A trace's totals, and its export for Perfetto."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from policies import make_policy
from tests.strategies import problems
from tests.validator.test_stepping import crowd

KINDS = ("load", "transfer", "prefill", "decode")


def stream() -> Problem:
    """Return a trace of two one-task workflows; the second arrives while the first runs."""
    first = Problem.classical({"t": {"p": 4.0}}, {})
    (workflow,) = first.workflows
    arrivals = {"late": 3.0, "early": 1.0}
    return first.model_copy(
        update={
            "workflows": tuple(
                workflow.model_copy(update={"id": name, "arrival": time})
                for name, time in arrivals.items()
            )
        }
    )


def llm() -> Trace:
    """Return a trace: a model stage, a tool that reads its output, a model stage elsewhere."""
    first = Stage(id="draft", model="Phi-3-mini", queries=3, prompt_tokens=50, output_tokens=20)
    tool = Stage(id="search", tool_seconds=0.5)
    second = first.model_copy(update={"id": "revise", "allowed_devices": ("d1",)})
    workflow = Workflow(
        id="w",
        stages=(first, tool, second),
        edges=(
            Edge(parent="draft", child="search", bytes=1e9),
            Edge(parent="search", child="revise", bytes=2e9),
        ),
    )
    devices = (Device(id="d0", gpu="H100-SXM"), Device(id="d1", gpu="L40S"))
    options = Options(uncertainty=0.4)
    problem = Problem.build(Cluster(id="c", devices=devices), [workflow], options=options)
    return Simulator(problem, seed=2).run(make_policy("eft"))


def slices(trace: Trace) -> list[dict[str, Any]]:
    return [event for event in trace.to_chrome()["traceEvents"] if event["ph"] == "X"]


def test_totals_of_a_stream() -> None:
    trace = Simulator(stream()).run(make_policy("eft"))
    assert trace.stage_ids == [("late", "t"), ("early", "t")]
    assert trace.workflow_arrival.tolist() == [3.0, 1.0]
    # The early one runs from 1 to 5, the late one from 5 to 9.
    assert trace.workflow_end.tolist() == [9.0, 5.0]
    assert trace.latencies.tolist() == [6.0, 4.0]
    # From the first arrival, not from time 0.
    assert trace.makespan == 8.0


@given(problems(), st.integers(0, 2**32))
def test_ends_of_workflows_are_those_of_their_last_stages(problem: Problem, seed: int) -> None:
    trace = Simulator(problem).run(make_policy("eft"), seed=seed)
    names = [workflow.id for workflow in problem.workflows]
    for number, workflow in enumerate(problem.workflows):
        ends = trace.stage_end[trace.workflow_of == number]
        assert len(ends) == len(workflow.stages)
        assert trace.workflow_end[number] == ends.max()
        arrival = workflow.arrival
        if workflow.follows is not None:
            before = trace.workflow_end[names.index(workflow.follows)]
            arrival = max(arrival, before + workflow.think_seconds)
        assert trace.workflow_arrival[number] == arrival


def test_planning_seconds_are_the_time_of_all_decisions() -> None:
    trace = Simulator(stream()).run(make_policy("eft"))
    assert len(trace.decision_seconds) == 2
    assert (trace.decision_seconds > 0).all()
    assert trace.planning_seconds == pytest.approx(sum(trace.decision_seconds))


def test_the_same_schedule_means_the_same_to_the_bit() -> None:
    simulator = Simulator(stream())
    trace = simulator.run(make_policy("eft"))
    other = simulator.run(make_policy("round_robin"))
    # One device: every policy does the same, under its own name.
    assert trace.same_schedule(other)
    assert trace.policy != other.policy
    other.shards["end"][0] = np.nextafter(other.shards["end"][0], np.inf)
    assert not trace.same_schedule(other)


def test_a_trace_is_not_changed_by_what_the_simulator_does_next() -> None:
    simulator = Simulator(stream())
    trace = simulator.run(make_policy("eft"))
    shards, ends = trace.shards.copy(), trace.stage_end.copy()
    simulator.reset()
    simulator.place(1, (0,))
    assert np.array_equal(trace.shards, shards)
    assert np.array_equal(trace.stage_end, ends)


def test_chrome_rows_are_the_devices_and_the_host() -> None:
    events = llm().to_chrome()["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert names == {0: "d0", 1: "d1", 2: "host"}
    rows = defaultdict(set)
    for event in events:
        if event["ph"] == "X":
            rows[names[event["tid"]]].add(event["args"]["stage"])
    assert rows == {"d0": {"draft"}, "d1": {"revise"}, "host": {"search"}}


def test_chrome_events_of_a_chain() -> None:
    trace = llm()
    found = {(e["args"]["stage"], e["cat"]): e for e in slices(trace)}
    assert set(found) == {
        ("draft", "load"), ("draft", "prefill"), ("draft", "decode"),
        ("search", "transfer"), ("search", "decode"),
        ("revise", "load"), ("revise", "transfer"), ("revise", "prefill"), ("revise", "decode"),
    }  # fmt: skip
    draft, search, _revise = trace.shards
    assert found["draft", "load"]["dur"] == pytest.approx(draft["load_s"] * draft["noise"] * 1e6)
    # Noise is on the tool's own seconds, not on its transfer.
    assert found["search", "transfer"]["dur"] == pytest.approx(search["transfer_s"] * 1e6)
    assert found["search", "decode"]["dur"] == pytest.approx(0.5 * search["noise"] * 1e6)
    # Load and transfer go side by side.
    assert found["revise", "load"]["ts"] == found["revise", "transfer"]["ts"]
    assert found["draft", "decode"]["args"] == {"workflow": "w", "stage": "draft", "queries": 3}


@given(problems(), st.integers(0, 2**32))
def test_chrome_slices_fill_each_shard_and_do_not_overlap(problem: Problem, seed: int) -> None:
    trace = Simulator(problem).run(make_policy("heft_sharded"), seed=seed)
    host = len(trace.device_ids)
    rows: dict[int, list[tuple[float, float]]] = defaultdict(list)
    by_shard: dict[tuple[str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for event in slices(trace):
        assert event["dur"] > 0
        if event["cat"] == "down":
            rows[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
            continue
        assert event["cat"] in KINDS
        key = (event["args"]["workflow"], event["args"]["stage"], min(host, event["tid"]))
        by_shard[key].append(event)
    busy = 0.0
    for shard in trace.shards:
        tid = host if shard["device"] < 0 else int(shard["device"])
        start, end = shard["start"] * 1e6, shard["end"] * 1e6
        # A stage that was lost may run on the same device again, later, even at once.
        every = by_shard[(*trace.stage_ids[shard["stage"]], tid)]
        events = [e for e in every if start - 1e-3 <= e["ts"] + e["dur"] / 2 <= end + 1e-3]
        every[:] = [e for e in every if e not in events]
        if not events:
            assert end == pytest.approx(start, rel=1e-12, abs=1e-3)
            continue
        close = {"rel": 1e-12, "abs": 1e-3}
        assert min(e["ts"] for e in events) == pytest.approx(start, **close)
        assert max(e["ts"] + e["dur"] for e in events) == pytest.approx(end, **close)
        waits = [e["dur"] for e in events if e["cat"] in ("load", "transfer")]
        works = [e["dur"] for e in events if e["cat"] in ("prefill", "decode")]
        assert max(waits, default=0.0) + sum(works) == pytest.approx(end - start, **close)
        busy += end - start
        if tid != host:
            rows[tid].append((start, end))
    assert not any(by_shard.values())
    for spans in rows.values():
        spans.sort()
        for (_, before), (start, _) in itertools.pairwise(spans):
            assert start >= before - 1e-3
    # Slices are whole nanoseconds: one that is shorter is left out.
    seconds = float((trace.shards["end"] - trace.shards["start"]).sum())
    assert busy == pytest.approx(seconds * 1e6, abs=1e-3 * trace.shards.size)


@given(problems(), st.integers(0, 2**32))
def test_chrome_slices_of_a_row_lie_behind_or_inside_one_another(
    problem: Problem, seed: int
) -> None:
    """In whole nanoseconds, the outer one first: what viewers need to draw all of them."""
    trace = Simulator(problem).run(make_policy("heft_sharded"), seed=seed)
    rows: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for event in slices(trace):
        ends = event["ts"] * 1e3, (event["ts"] + event["dur"]) * 1e3
        assert ends == pytest.approx([round(ends[0]), round(ends[1])], rel=1e-15, abs=1e-3)
        rows[event["tid"]].append((round(ends[0]), round(ends[1])))
    for spans in rows.values():
        around: list[int] = []
        for start, end in sorted(spans, key=lambda span: span[0]):  # stable, as viewers do
            while around and around[-1] <= start:
                around.pop()
            assert not around or end <= around[-1]
            around.append(end)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_shards_that_overlap_stand_in_rows_of_their_device(seed: int) -> None:
    trace = Simulator(crowd(seed)).run(make_policy("least_loaded"), seed=seed)
    events = trace.to_chrome()["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    assert list(names) == list(range(len(names)))
    assert {name.split()[0] for name in names.values()} == {"d0", "d1", "host"}
    shards: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    rows: dict[int, list[tuple[float, float, tuple[str, str]]]] = defaultdict(list)
    seconds: dict[str, float] = defaultdict(float)
    for event in events:
        if event["ph"] != "X":
            continue
        args, place = event["args"], names[event["tid"]].split()[0]
        key = (args["workflow"], args["stage"])
        shards[place, *key].add(event["tid"])
        rows[event["tid"]].append((event["ts"], event["ts"] + event["dur"], key))
        if event["cat"] in ("prefill", "decode"):
            seconds[place] += event["dur"] / 1e6
    # All slices of a shard are in one row, in which it is alone.
    assert all(len(tids) == 1 for tids in shards.values())
    for spans in rows.values():
        ends: dict[tuple[str, str], list[float]] = {}
        for start, end, key in spans:
            first, last = ends.setdefault(key, [start, end])
            ends[key] = [min(first, start), max(last, end)]
        for (_, before), (start, _) in itertools.pairwise(sorted(ends.values())):
            assert start >= before - 1e-3
    for number, device in enumerate(trace.device_ids):
        mine = trace.shards[trace.shards["device"] == number]
        inputs = np.maximum(mine["load_s"], mine["transfer_s"]) * mine["noise"]
        expected = float((mine["end"] - mine["start"] - inputs).sum())
        assert seconds[device] == pytest.approx(expected, abs=1e-8 * (1 + len(mine)))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_chrome_counters_are_the_queries_in_service(seed: int) -> None:
    trace = Simulator(crowd(seed)).run(make_policy("eft"), seed=seed)
    counters: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for event in trace.to_chrome()["traceEvents"]:
        if event["ph"] == "C":
            counters[event["name"]].append((event["ts"] / 1e6, event["args"]["queries"]))
    for number, device in enumerate(trace.device_ids):
        mine = trace.shards[trace.shards["device"] == number]
        values = counters.get(f"{device}: queries in service", [])
        area = sum(n * (b - a) for (a, n), (b, _) in itertools.pairwise(values))
        each = np.ceil(mine["queries"] / mine["waves"])
        expected = float((each * (mine["end"] - mine["start"])).sum())
        assert area == pytest.approx(expected, abs=1e-7 * (1 + len(mine)))
        assert not values or values[-1][1] == 0


def test_chrome_file(tmp_path: Path) -> None:
    trace = llm()
    trace.write_chrome(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == trace.to_chrome()
