"""Workflows that follow others arrive when these have ended, and are not visible before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fate_gym.kernel.advance import advance
from fate_gym.kernel.schema import StateArrays
from fate_gym.problem import (
    Branch,
    Choice,
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
from fate_gym.sim import Simulator, Trace
from fate_gym.validator import assert_valid
from policies import make_policy
from tests.kernel.test_engine import Anything
from tests.strategies import problems

EXECUTIONS = ("exclusive", "batching")
every_execution = pytest.mark.parametrize("execution", EXECUTIONS)
NAMES = ("p", "q")


def fixed(name: str = "s", seconds: float = 1.0) -> Stage:
    return Stage(id=name, seconds_on=dict.fromkeys(NAMES, seconds))


def turn(name: str, follows: str | None = None, **fields: Any) -> Workflow:
    return Workflow(**({"id": name, "stages": (fixed(),), "follows": follows} | fields))


def build(*workflows: Workflow, execution: str = "exclusive", **options: Any) -> Problem:
    devices = tuple(Device(id=name) for name in NAMES)
    cluster = Cluster.model_validate({"id": "two", "devices": devices, "execution": execution})
    return Problem.build(cluster, workflows, options=Options(**options))


def played(problem: Problem) -> Trace:
    trace = Simulator(problem).run(make_policy("eft"))
    assert_valid(trace)
    return trace


def finish(problem: Problem, state: StateArrays) -> Simulator:
    """Play a state to its end, placing everything on the first device that is up."""
    simulator = Simulator(problem)
    simulator.restore(state)
    while simulator.ready or simulator.view().can_wait:
        if simulator.ready:
            simulator.place(simulator.ready[0], simulator.view().eligible(simulator.ready[0])[:1])
        else:
            simulator.wait()
    return simulator


# --- when they arrive -------------------------------------------------------------------------


@every_execution
def test_a_turn_arrives_after_the_end_and_the_thought(execution: str) -> None:
    trace = played(
        build(
            turn("c", "b", think_seconds=0.5),
            turn("a", arrival=2.0),
            turn("b", "a", think_seconds=4.0),
            execution=execution,
        )
    )
    assert trace.workflow_arrival == pytest.approx([8.5, 2.0, 7.0])
    assert trace.workflow_end == pytest.approx([9.5, 3.0, 8.0])
    assert trace.latencies == pytest.approx([1.0, 1.0, 1.0])
    assert trace.makespan == pytest.approx(7.5)


@every_execution
def test_not_before_its_own_arrival(execution: str) -> None:
    trace = played(build(turn("a"), turn("b", "a", arrival=10.0), execution=execution))
    assert trace.workflow_arrival.tolist() == [0.0, 10.0]


@every_execution
def test_several_follow_one(execution: str) -> None:
    followers = [turn(f"f{i}", "a", think_seconds=float(3 - i)) for i in range(3)]
    problem = build(*followers, turn("a"), execution=execution)
    simulator = Simulator(problem)
    trace = simulator.run(make_policy("eft"))
    assert_valid(trace)
    assert trace.workflow_arrival == pytest.approx([4.0, 3.0, 2.0, 0.0])
    assert simulator.view().arrived == [3, 2, 1, 0]


@every_execution
def test_without_a_thought_it_is_there_when_the_one_before_has_ended(execution: str) -> None:
    """All events of one instant come before anybody decides."""
    simulator = Simulator(build(turn("a"), turn("b", "a"), execution=execution))
    simulator.place(0, (0,))
    assert simulator.ready == []
    simulator.wait()
    assert (simulator.now, simulator.ready) == (1.0, [1])
    assert simulator.view().arrived == [0, 1]


def test_of_two_that_arrive_at_once_the_one_with_the_lower_number_is_first() -> None:
    simulator = Simulator(build(turn("c", "a"), turn("a"), turn("b", "a")))
    simulator.place(1, (0,))
    simulator.wait()
    assert simulator.view().arrived == [1, 0, 2]
    assert simulator.ready == [0, 2]


@every_execution
def test_turns_of_tools_need_nobody(execution: str) -> None:
    """A whole run without a decision, each turn in the instant in which the last one ended."""
    tool = Stage(id="t", tool_seconds=1.0)
    names = ["a", "b", "c"]
    flows = [
        turn(name, before, stages=(tool,))
        for name, before in zip(names, [None, *names], strict=False)
    ]
    problem = build(*flows, execution=execution)
    trace = played(problem)
    assert trace.workflow_arrival.tolist() == [0.0, 1.0, 2.0]
    assert len(trace.shards) == 3


@every_execution
def test_a_workflow_ends_with_its_last_stage_that_lives(execution: str) -> None:
    """What vanishes when its chooser ends does not keep the next turn waiting."""
    options = [Branch(probability=0.5, stages=part) for part in (["long"], [])]
    first = turn(
        "a",
        stages=(fixed("first"), fixed("long", 5.0)),
        edges=(Edge(parent="first", child="long"),),
        choices=(Choice(after="first", options=options),),
    )
    simulator = Simulator(build(first, turn("b", "a", think_seconds=1.0), execution=execution))
    traces = [simulator.run(make_policy("eft"), seed=seed) for seed in range(8)]
    for trace in traces:
        assert_valid(trace)
        assert trace.workflow_arrival[1] == pytest.approx(2.0 if trace.stage_vanished[1] else 7.0)
    assert len({bool(trace.stage_vanished[1]) for trace in traces}) == 2


# --- waiting ----------------------------------------------------------------------------------


@every_execution
def test_one_can_wait_for_a_turn_that_is_thought_of(execution: str) -> None:
    problem = build(
        turn("a"), turn("b", "a", think_seconds=5.0), turn("c", arrival=2.0), execution=execution
    )
    simulator = Simulator(problem)
    simulator.place(0, (0,))
    simulator.wait()
    # `c` has come, and nothing is under way but the thought.
    assert (simulator.now, simulator.ready) == (2.0, [2])
    assert simulator.view().can_wait
    simulator.wait()
    assert (simulator.now, simulator.ready) == (6.0, [2, 1])
    assert not simulator.view().can_wait


def test_nobody_waits_for_a_turn_whose_turn_has_not_come() -> None:
    simulator = Simulator(build(turn("a"), turn("b", "a")))
    assert simulator.ready == [0]
    assert not simulator.view().can_wait


@every_execution
def test_a_failure_does_not_end_a_thought(execution: str) -> None:
    failures = Failures(outages=(Outage(device="p", at=2.0, seconds=1.0),))
    problem = build(
        turn("a"),
        turn("b", "a", think_seconds=5.0),
        turn("c", stages=(fixed(seconds=4.0),)),
        execution=execution,
        failures=failures,
    )
    simulator = Simulator(problem)
    simulator.place(0, (1,))
    simulator.place(2, (0,))
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (1,))
        else:
            simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    assert trace.shards["lost"].sum() == 1
    assert trace.workflow_arrival.tolist() == [0.0, 6.0, 0.0]


# --- forks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 7])
@pytest.mark.parametrize("uncertainty", [0.0, 0.3])
@every_execution
def test_forks_know_no_turn_that_has_not_arrived(
    execution: str, uncertainty: float, seed: int | None
) -> None:
    """Neither one that is thought of, nor one whose predecessor ends in the fork."""
    problem = build(
        turn("a"),
        turn("thought of", "a", think_seconds=50.0),
        turn("c", stages=(fixed(seconds=9.0),)),
        turn("later", "c"),
        execution=execution,
        uncertainty=uncertainty,
    )
    simulator = Simulator(problem)
    simulator.place(0, (0,))
    simulator.place(2, (1,))
    while simulator.state.workflows["left"][0]:
        advance(simulator.compiled.arrays, simulator.state, simulator.log)
    ahead = simulator.state.event_count
    fork = simulator.view().fork(seed=seed)
    assert simulator.state.event_count == ahead
    assert simulator.view().can_wait
    assert fork.arrived_count == 2
    end = finish(problem, fork)
    assert end.view().arrived == [0, 2]
    assert end.state.workflows["arrived_at"][[1, 3]].tolist() == [np.inf, np.inf]
    assert end.state.stages["status"].tolist()[::2] == [3, 3]
    # The run itself does know them.
    assert finish(problem, simulator.state).done


# --- everything at once -----------------------------------------------------------------------


def batching(problem: Problem) -> Problem:
    cluster = problem.cluster.model_copy(update={"execution": "batching", "max_sequences": 24})
    return problem.model_copy(update={"cluster": cluster})


def short(problem: Problem) -> Problem:
    """Limit outputs to 500 tokens, since the validator simulates each token."""
    flows = []
    for flow in problem.workflows:
        stages = [
            stage.model_copy(update={"output_tokens": min(stage.output_tokens, 500)})
            for stage in flow.stages
        ]
        flows.append(flow.model_copy(update={"stages": tuple(stages)}))
    return problem.model_copy(update={"workflows": tuple(flows)})


@every_execution
@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(problem=problems(most=8), seed=st.integers(0, 2**32))
def test_the_validator_agrees_on_turns(execution: str, problem: Problem, seed: int) -> None:
    assume(any(workflow.follows for workflow in problem.workflows))
    if execution == "batching":
        problem = batching(short(problem))
    simulator = Simulator(problem)
    trace = simulator.run(Anything(), seed=seed)
    assert_valid(trace)
    arrived = simulator.view().arrived
    assert sorted(arrived) == list(range(len(problem.workflows)))
    assert (np.diff(trace.workflow_arrival[arrived]) >= 0).all()
    started = np.minimum.reduceat(
        trace.stage_ready, simulator.compiled.arrays.workflows["stages_from"]
    )
    assert (started >= trace.workflow_arrival).all()
