from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fate_gym.metrics.outcome import (
    WorkflowOutcome,
    latency_summary,
    outcome_summary,
    workflow_outcomes,
)
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace, compile_problem


def workflow(
    name: str, seconds: list[float], *, arrival: float, deadline: float | None
) -> Workflow:
    stages = [Stage(id=f"s{i}", seconds_on={"d": duration}) for i, duration in enumerate(seconds)]
    return Workflow(
        id=name,
        stages=(Stage(id="tool", tool_seconds=0.5), *stages),
        edges=(Edge(parent="tool", child="s0"),),
        arrival=arrival,
        deadline=deadline,
        family=f"family of {name}",
    )


@pytest.fixture
def trace() -> Trace:
    """Return a trace of one device, first come first served, with three workflows that queue."""
    problem = Problem.build(
        Cluster(id="c", devices=(Device(id="d"),)),
        [
            workflow("a", [4.0, 6.0], arrival=2.0, deadline=11.0),
            workflow("b", [5.0], arrival=3.0, deadline=9.0),
            workflow("c", [1.0], arrival=50.0, deadline=None),
        ],
        options=Options(max_shards=1),
    )
    simulator = Simulator(compile_problem(problem))
    simulator.reset(0)
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (0,))
        else:
            simulator.wait()
    return simulator.trace()


def test_records(trace: Trace) -> None:
    a, b, c = workflow_outcomes(trace)
    # a: its second stage (a root) runs from 2 to 8, its first from 8 to 12; b from 12 to 17.
    assert a == WorkflowOutcome(
        workflow="a", family="family of a", stages=3, arrival=2.0, end=12.0, latency=10.0,
        makespan=10.0, deadline_missed=False,
    )  # fmt: skip
    assert (b["end"], b["latency"], b["deadline_missed"]) == (17.0, 14.0, True)
    assert (c["latency"], c["makespan"], c["deadline_missed"]) == (1.5, 1.5, False)
    assert list(a) == [
        "workflow", "family", "stages", "arrival", "end", "latency", "makespan", "deadline_missed",
    ]  # fmt: skip
    assert [type(value) for value in a.values()] == [str, str, int, *[float] * 4, bool]


def test_makespan_leaves_out_the_wait_for_a_first_start(trace: Trace) -> None:
    shards = trace.shards.copy()
    of_b = trace.workflow_of[shards["stage"]] == 1
    shards["start"][of_b] = np.maximum(shards["start"][of_b], 12.0)
    b = workflow_outcomes(replace(trace, shards=shards))[1]
    assert (b["latency"], b["makespan"]) == (14.0, 5.0)


def test_summary(trace: Trace) -> None:
    summary = outcome_summary(trace)
    assert summary["makespan"] == 49.5
    assert summary["latency_mean"] == pytest.approx((10 + 14 + 1.5) / 3)
    assert summary["latency_p50"] == 10.0
    assert summary["deadline_misses"] == 1.0
    assert summary["deadline_miss_rate"] == 0.5


def test_without_deadlines_there_is_no_miss_rate(trace: Trace) -> None:
    free = tuple(w.model_copy(update={"deadline": None}) for w in trace.problem.workflows)
    summary = outcome_summary(
        replace(trace, problem=trace.problem.model_copy(update={"workflows": free}))
    )
    assert summary["deadline_misses"] == 0.0
    assert np.isnan(summary["deadline_miss_rate"])


def test_percentiles_interpolate() -> None:
    summary = latency_summary(np.arange(101.0)[::-1] / 2)
    assert summary == pytest.approx(
        {"latency_mean": 25.0, "latency_p50": 25.0, "latency_p95": 47.5, "latency_p99": 49.5}
    )
