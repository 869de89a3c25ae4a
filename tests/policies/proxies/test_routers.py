"""Mooncake, SGLang, Parrot, Pythia, HexAGenT: which stage, which device."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Problem
from fate_gym.sim import Assignment, Simulator
from policies.proxies.hexagent import Hexagent
from policies.proxies.mooncake import Mooncake
from policies.proxies.parrot import Parrot
from policies.proxies.pythia import Pythia
from policies.proxies.sglang import Sglang
from tests.policies.proxies.cases import call, problem

# --- Mooncake ---------------------------------------------------------------------------------


def warmed(own: int, best: int) -> Simulator:
    """d1 caches ``own`` tokens of g and is idle; d0 caches ``best`` and has a long queue."""
    stages = [
        call("small", group="g", prefix=own),
        call("large", group="g", prefix=best),
        call("busy", output=3000),
        call("next", group="g", prefix=best),
    ]
    edges = [("small", "busy"), ("large", "busy"), ("busy", "never"), ("large", "next")]
    simulator = Simulator(
        problem(
            [*stages, call("never")],
            edges={0: [(a, b) for a, b in edges if b != "next"] + [("small", "next"), edges[3]]},
            devices=2,
        )
    )
    simulator.place(0, (1,))
    simulator.place(1, (0,))
    while simulator.ready != [2, 3]:
        simulator.wait()
    simulator.place(2, (0,))
    return simulator


@pytest.mark.parametrize(
    ("own", "threshold", "source"), [(4000, 1.2, 0), (4000, 1.6, None), (5500, 1.2, None)]
)
def test_prefixes_move_when_the_best_is_much_better(
    own: int, threshold: float, source: int | None
) -> None:
    """The best prefix has 6000 tokens: 1.5 and 1.09 times what d1 has."""
    simulator = warmed(own, 6000)
    policy = Mooncake(threshold=threshold)
    policy.reset(simulator.view(), 0)
    assert policy.decide(simulator.view()) == [Assignment(3, (1,), None, source)]


def test_what_is_fetched_is_not_prefilled() -> None:
    simulator = warmed(4000, 6000)
    simulator.place(3, (1,), None, 0)
    row = simulator.trace().shards[-1]
    assert (row["prefix_hit"], row["copied"]) == (6000, 2000)


def test_mooncake_stays_with_the_prefix_if_the_queue_is_short() -> None:
    stages = [call("a", group="g", prefix=8000), call("b", group="g", prefix=8000)]
    simulator = Simulator(problem(stages, edges={0: [("a", "b")]}))
    simulator.place(0, (2,))
    simulator.wait()
    policy = Mooncake()
    policy.reset(simulator.view(), 0)
    assert policy.decide(simulator.view()) == [Assignment(1, (2,))]


# --- SGLang -----------------------------------------------------------------------------------


def routed(policy: Sglang, simulator: Simulator) -> list[int]:
    """Place the ready stages one after the other; return their devices."""
    policy.reset(simulator.view(), 0)
    devices = []
    while simulator.ready:
        (assignment,) = policy.decide(simulator.view())
        simulator.place(assignment.stage, assignment.devices)
        devices.append(assignment.devices[0])
    return devices


def test_sglang_follows_its_history() -> None:
    stages = [
        call("a", group="g", prefix=900),
        call("b", group="h", prefix=900),
        call("c", group="h", prefix=900),
        call("d", group="g", prefix=900),
    ]
    assert routed(Sglang(balance_abs=99), Simulator(problem(stages))) == [0, 1, 1, 0]


@pytest.mark.parametrize(("threshold", "device"), [(0.3, 0), (0.5, 1)])
def test_a_match_has_to_be_large_enough(threshold: float, device: int) -> None:
    """400 of 1000 prompt tokens match."""
    stages = [call("a", group="g", prefix=400, own=600)] * 1
    stages = [*stages, call("b", group="g", prefix=400, own=600)]
    policy = Sglang(cache_threshold=threshold, balance_abs=99)
    assert routed(policy, Simulator(problem(stages))) == [0, device]


def test_without_a_match_the_smallest_history() -> None:
    stages = [call("a", own=500), call("b", own=100), call("c", own=300), call("d"), call("e")]
    # d: b's worker has seen least (100); then 200 against 300 of c's: b's again.
    policy = Sglang(balance_abs=99)
    assert routed(policy, Simulator(problem(stages))) == [0, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("abs_", "rel", "expected"),
    [
        # At 2 : 0 : 0 and 2 : 1 : 0; then 2 : 1 : 1 is in balance, and all three have the prefix.
        (1, 1.5, [0, 0, 1, 2, 0]),
        # The difference is never more than 9.
        (9, 1.5, [0, 0, 0, 0, 0]),
    ],
)
def test_out_of_balance_the_shortest_queue(abs_: int, rel: float, expected: list[int]) -> None:
    """Without the switch everything follows the prefix."""
    stages = [call(f"s{i}", group="g", prefix=900) for i in range(5)]
    policy = Sglang(balance_abs=abs_, balance_rel=rel)
    assert routed(policy, Simulator(problem(stages))) == expected


# --- Parrot -----------------------------------------------------------------------------------


def decided(policy: Parrot | Pythia | Hexagent, simulator: Simulator) -> list[tuple[int, int]]:
    policy.reset(simulator.view(), 0)
    return [
        (a.stage, a.devices[0])
        for a in policy.decide(simulator.view())
        if isinstance(a, Assignment)
    ]


def test_the_deepest_chain_goes_first() -> None:
    stages = [call("leaf"), call("head"), call("tail")]
    simulator = Simulator(problem(stages, edges={0: [("head", "tail")]}, devices=1))
    # An idle engine takes any stage, then it is full: 100 + 2000 tokens.
    policy = Parrot(most_tokens=150)
    assert decided(policy, simulator) == [(1, 0)]


def test_groups_share_an_engine_as_far_as_it_has_room() -> None:
    """Prefix 100 + 4 queries x 100 tokens: four of them are 2000 tokens."""
    stages = [call(f"s{i}", group="g", prefix=100, queries=4) for i in range(5)]
    assert decided(Parrot(), Simulator(problem(stages))) == [
        (0, 0), (1, 0), (2, 0), (3, 0), (4, 1)
    ]  # fmt: skip
    assert decided(Parrot(most_tasks=8), Simulator(problem(stages))) == [
        (0, 0), (1, 0), (2, 1), (3, 1), (4, 2)
    ]  # fmt: skip


def test_siblings_are_a_group() -> None:
    stages = [call("root"), call("x"), call("y"), call("z", "Qwen2.5-7B")]
    edges = [("root", name) for name in "xyz"]
    simulator = Simulator(problem(stages, edges={0: edges}))
    simulator.place(0, (2,))
    simulator.wait()
    # x goes to the engine that holds the model (all are empty), y with it, z elsewhere.
    assert decided(Parrot(), simulator) == [(1, 2), (2, 2), (3, 0)]


def test_an_engine_with_the_prefix_is_better_than_one_with_less_load() -> None:
    stages = [call("a", group="g", prefix=300), call("b", group="g", prefix=300)]
    simulator = Simulator(problem(stages))
    simulator.place(0, (1,))
    assert decided(Parrot(), simulator) == [(1, 1)]


def test_full_engines_take_nothing() -> None:
    stages = [call(f"s{i}", own=3000) for i in range(4)]
    assert [d for _, d in decided(Parrot(), Simulator(problem(stages)))] == [0, 1, 2]


# --- Pythia -----------------------------------------------------------------------------------


def test_priority_is_near_the_end_and_for_idle_models() -> None:
    """near: 1. long: 1/3. waker: 1/2, and a bonus for the model that nobody else needs now."""
    stages = [
        call("near"), call("long"), call("long2"), call("long3"),
        call("waker"), call("woken", "Qwen2.5-7B"),
    ]  # fmt: skip
    edges = [("long", "long2"), ("long2", "long3"), ("waker", "woken")]
    simulator = Simulator(problem(stages, edges={0: edges}))
    view = simulator.view()
    policy = Pythia(bonus=0.75)
    policy.reset(view, 0)
    assert policy.order(view) == [4, 0, 1]
    assert policy.priority(view, 4, busy={0}) == 0.5 + 0.75
    assert policy.priority(view, 4, busy={0, 1}) == 0.5


def test_the_device_with_most_headroom() -> None:
    """d0 holds another model, d2 the stage's own: there nothing has to be added."""
    stages = [call("x", "Qwen2.5-7B"), call("y"), call("z")]
    simulator = Simulator(problem(stages, edges={0: [("x", "z"), ("y", "z")]}))
    simulator.place(0, (0,))
    simulator.place(1, (2,))
    while not simulator.ready:
        simulator.wait()
    # On d1 the weights are still missing, on d2 they are there: no difference. The first.
    assert decided(Pythia(), simulator) == [(2, 1)]


def test_equal_headroom_goes_by_what_is_cached() -> None:
    """d0 caches 500 tokens of another group, d1 500 of the stage's own."""
    stages = [
        call("a", group="h", prefix=500),
        call("b", group="g", prefix=500),
        call("c", group="g", prefix=500),
    ]
    simulator = Simulator(problem(stages, edges={0: [("a", "c"), ("b", "c")]}, devices=2))
    simulator.place(0, (0,))
    simulator.place(1, (1,))
    while not simulator.ready:
        simulator.wait()
    assert simulator.view().free_bytes()[0] == simulator.view().free_bytes()[1]
    assert decided(Pythia(), simulator) == [(2, 1)]


# --- HexAGenT ---------------------------------------------------------------------------------


def test_risk() -> None:
    """w0: critical path 10, arrived at 0. w1: critical path 3, arrived at 4. It is 6."""
    flows = [
        Problem.classical({"a": {"m": 6.0}, "b": {"m": 4.0}}, {("a", "b"): 0.0}),
        Problem.classical({"c": {"m": 3.0}, "d": {"m": 1.5}}, {}),
    ]
    joined = flows[0].model_copy(
        update={
            "workflows": (
                flows[0].workflows[0],
                flows[1].workflows[0].model_copy(update={"id": "w1", "arrival": 4.0}),
            )
        }
    )
    simulator = Simulator(joined)
    simulator.place(0, (0,))
    while simulator.now < 6.0:
        simulator.wait()
    policy = Hexagent()
    policy.reset(simulator.view(), 0)
    risk = policy.risk(simulator.view(), np.array([1, 2, 3]))
    assert risk.tolist() == [(6 + 4) / 10, (2 + 3) / 3, (2 + 1.5) / 3]
    assert policy.order(simulator.view()) == [2, 3, 1]


def test_hexagent_takes_the_earliest_finish() -> None:
    problem = Problem.classical({"a": {"p": 5.0, "q": 2.0}}, {})
    assert decided(Hexagent(), Simulator(problem)) == [(0, 1)]
