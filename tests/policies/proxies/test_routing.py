"""Autellix, KVFlow, NALAR: routing, queues and their order."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.sim import Retention, Simulator
from policies.proxies.autellix import Autellix
from policies.proxies.base import least
from policies.proxies.dag import FAR
from policies.proxies.kvflow import Kvflow
from policies.proxies.nalar import Nalar
from tests.policies.proxies.cases import call, fixed, problem


def test_least_breaks_ties_in_order() -> None:
    devices = np.array([0, 1, 2, 3])
    assert least([1, 0, 0, 0], devices) == 1
    assert least([1, 0, 0, 0], devices, [0, 5, 4, 4]) == 2
    assert least([1, 0, 0, 0], devices, [0, 5, 4, 4], [0, 0, 1, 0]) == 3
    assert least([0, 1, 2, 3], np.array([2, 3])) == 2


# --- Autellix ---------------------------------------------------------------------------------


def test_attained_service_is_the_longest_chain_before() -> None:
    """4 and then 6 on one branch, 7 on the other; the join has attained 10."""
    stages = [fixed("a", d0=4.0), fixed("b", d0=6.0), fixed("c", d1=7.0), fixed("join", d0=1.0)]
    simulator = Simulator(
        problem(stages, edges={0: [("a", "b"), ("b", "join"), ("c", "join")]}, devices=2)
    )
    policy = Autellix(quantum=2.0, levels=4)
    view = simulator.view()
    policy.reset(view, 0)
    attained = {}
    while not simulator.done:
        for stage in simulator.ready:
            attained[stage] = policy.attained(view, stage)
            simulator.place(stage, (1 if stage == 2 else 0,))
        simulator.wait()
    assert attained == {0: 0.0, 2: 0.0, 1: 4.0, 3: 10.0}


@pytest.mark.parametrize(
    ("service", "level"), [(0.0, 0), (1.9, 0), (2.0, 1), (3.9, 1), (4.0, 2), (8.0, 3), (99.0, 3)]
)
def test_levels_are_geometric(service: float, level: int) -> None:
    simulator = Simulator(problem([fixed("a", d0=1.0)]))
    policy = Autellix(quantum=2.0, levels=4)
    policy.reset(simulator.view(), 0)
    policy._attained[0] = service
    assert policy.level(simulator.view(), 0) == level


@pytest.mark.parametrize(("quantum", "first"), [(4.0, "w1"), (6.0, "w0")])
def test_a_workflow_that_has_been_served_is_demoted(quantum: float, first: str) -> None:
    """Both wait for d0, w0's stage longer; but w0 has had 5 seconds of service."""
    long = [fixed("head", d1=5.0), fixed("next", d0=1.0)]
    simulator = Simulator(
        problem(
            long,
            [fixed("late", d0=1.0)],
            [fixed("blocker", d0=10.0)],
            edges={0: [("head", "next")]},
            arrivals=(0.0, 6.0, 0.0),
        )
    )
    ends = simulator.run(Autellix(quantum=quantum)).workflow_end
    assert ends[:2].tolist() == ([12.0, 11.0] if first == "w1" else [11.0, 12.0])


def test_short_calls_spread_and_long_ones_stay() -> None:
    """Everything at once: a long call of the workflow pins it, the next long ones follow."""
    stages = [call("long0", own=3000), call("short0"), call("long1", own=3000), call("short1")]
    simulator = Simulator(problem(stages))
    policy = Autellix(short_tokens=2048)
    policy.reset(simulator.view(), 0)
    policy.decide(simulator.view())
    assert policy._pins == {(0, 0): 0}
    # long0 and short0 start at once; long1 waits behind long0, short1 has the last device.
    assert policy._place == {2: 0}


def test_pins_are_for_each_model() -> None:
    stages = [call("a", own=3000), call("b", "Qwen2.5-7B", own=3000), call("c", own=3000)]
    simulator = Simulator(problem(stages))
    policy = Autellix()
    policy.reset(simulator.view(), 0)
    starting = policy.decide(simulator.view())
    assert [a.devices for a in starting] == [(0,), (1,)]
    assert policy._place == {2: 0}


# --- KVFlow -----------------------------------------------------------------------------------


def steps_of(retention: Retention) -> tuple[list[int], list[int]]:
    assert retention.prefixes is not None and retention.contexts is not None
    prefixes = [int(2.0 * FAR - value) for value in retention.prefixes]
    return prefixes, [int(-1.0 - value) for value in retention.contexts]


def test_steps_to_execution() -> None:
    """root -> (left -> left2, right) -> join, each with a prefix of its own but for `left2`.

    `left2` shares `root`'s prefix, which is 0 steps away while `root` is ready. The join needs
    both sides: 3 steps, not 2.
    """
    stages = [
        call("root", group="a", prefix=50),
        call("left", group="b", prefix=50),
        call("left2", group="a", prefix=50),
        call("right", group="c", prefix=50),
        call("join", group="d", prefix=50),
    ]
    edges = [
        ("root", "left"), ("left", "left2"), ("left2", "join"), ("root", "right"), ("right", "join")
    ]  # fmt: skip
    simulator = Simulator(problem(stages, edges={0: edges}))
    policy = Kvflow()
    view = simulator.view()
    policy.reset(view, 0)
    prefixes, contexts = steps_of(policy.retention(view))
    assert prefixes == [0, 1, 1, 3]
    assert contexts == [1, 2, 3, 3, FAR]
    simulator.place(0, (0,))
    # `root` is under way: its prefix is needed next by `left2`.
    prefixes, contexts = steps_of(policy.retention(view))
    assert prefixes == [2, 1, 1, 3]
    simulator.wait()
    prefixes, contexts = steps_of(policy.retention(view))
    assert prefixes == [1, 0, 0, 2]
    assert contexts[:4] == [0, 1, 2, 2]


def test_suffixes_are_worth_less_than_any_prefix() -> None:
    """A context that is needed at once against a prefix that nobody knows a use for."""
    stages = [call("a", group="g", prefix=50), call("b")]
    simulator = Simulator(problem(stages, edges={0: [("a", "b")]}, inherited=20))
    policy = Kvflow()
    policy.reset(simulator.view(), 0)
    simulator.place(0, (0,))
    simulator.wait()
    retention = policy.retention(simulator.view())
    assert retention.prefixes is not None and retention.contexts is not None
    assert steps_of(retention)[0] == [FAR]
    assert retention.prefixes.min() > retention.contexts.max()


def test_kvflow_ranks_once_an_event_and_its_values_are_taken() -> None:
    stages = [call("a", group="g", prefix=50), call("b", group="g", prefix=50)]
    trace = Simulator(problem(stages, edges={0: [("a", "b")]})).run(Kvflow())
    assert len(trace.retentions) == 2


def test_kvflow_goes_where_the_prefix_is_then_where_least_is_under_way() -> None:
    stages = [
        call("a", group="g", prefix=500, output=900),
        call("b", group="g", prefix=500),
        call("c", group="h", prefix=500),
    ]
    simulator = Simulator(problem(stages))
    simulator.place(0, (1,))
    policy = Kvflow()
    policy.reset(simulator.view(), 0)
    policy.decide(simulator.view())
    # b waits for the busy device that has its prefix; c has started on the first idle one.
    assert policy._place == {1: 1}


def test_stages_whose_prefix_is_loading_stand_back() -> None:
    stages = [call("a", group="g", prefix=5000), call("b", group="g", prefix=5000), call("c")]
    simulator = Simulator(problem(stages, devices=1))
    simulator.place(0, (0,))
    view = simulator.view()
    policy = Kvflow()
    policy.reset(view, 0)
    policy.decide(view)
    assert policy.loading(view, 1)
    assert not policy.loading(view, 2)
    assert policy.key(view, 2) < policy.key(view, 1)
    simulator.wait()
    assert not policy.loading(view, 1)


# --- NALAR ------------------------------------------------------------------------------------


def test_sessions_stay_until_the_limit() -> None:
    simulator = Simulator(problem([call(f"s{i}") for i in range(4)]))
    policy = Nalar(limit=2)
    policy.reset(simulator.view(), 0)
    starting = policy.decide(simulator.view())
    # One session: two stages on d0; the third goes elsewhere and takes the session along.
    assert [(a.stage, a.devices) for a in starting] == [(0, (0,)), (2, (1,))]
    assert policy._place == {1: 0, 3: 1}


def test_waiting_stages_are_moved_when_they_gain() -> None:
    """At 10 d1 is free and b waits for d0 until 50: on d1 it ends at 13 instead of 52."""
    busy = [fixed("a", d0=50.0), fixed("b", d0=2.0, d1=3.0), fixed("c", d1=10.0)]
    ends = {
        period: float(Simulator(problem(busy, devices=2)).run(Nalar(period=period)).stage_end[1])
        for period in (5.0, 1000.0)
    }
    assert ends == {5.0: 13.0, 1000.0: 52.0}


def test_moving_is_not_free() -> None:
    """b's input of 60 bytes lies on d0, 1 byte/s away from d1: moving costs more than waiting."""
    from fate_gym.problem import Problem

    simulator = Simulator(
        Problem.classical(
            {"in": {"d0": 1.0}, "a": {"d0": 49.0}, "b": {"d0": 2.0, "d1": 3.0}, "c": {"d1": 10.0}},
            {("in", "a"): 0.0, ("in", "b"): 60.0, ("in", "c"): 0.0},
        )
    )
    assert float(simulator.run(Nalar(period=5.0)).stage_end[2]) == 52.0
