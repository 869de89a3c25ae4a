"""What policies can do beyond placing: rank cached items, copy prefixes between devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fate_gym.errors import IllegalActionError
from fate_gym.metrics.mechanism import mechanism_metrics
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Retention, Simulator
from fate_gym.validator import assert_valid

SHAPE: dict[str, Any] = {"model": "Phi-3-mini", "prompt_tokens": 100, "output_tokens": 1}


def three_prefixes() -> Problem:
    """Return three prefixes that fit together on an A10G, then a stage that needs room."""
    stages = [
        Stage(id=f"s{i}", prefix_group=f"g{i}", prefix_tokens=8000, **SHAPE) for i in range(3)
    ]
    large = SHAPE | {"output_tokens": 16_000}
    stages.append(Stage(id="large", prefix_group="g3", prefix_tokens=4000, **large))
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="A10G"),))
    return Problem.build(cluster, [Workflow(id="w", stages=stages)])


def evicted_prefixes(values: list[float] | None, *, by_device: bool = False) -> list[int]:
    simulator = Simulator(three_prefixes())
    for stage in range(3):
        simulator.place(stage, (0,))
    if values is not None:
        array = np.array([values] if by_device else values)
        simulator.retain(Retention(prefixes=array))
    simulator.place(3, (0,))
    while not simulator.done:
        simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    return [int(key) for key in trace.evictions["key"]]


def test_the_lowest_value_goes_first_and_lru_among_equals() -> None:
    assert evicted_prefixes(None) == [0, 1]
    assert evicted_prefixes([2.0, 1.0, 3.0, 0.0]) == [1, 0]
    assert evicted_prefixes([2.0, 1.0, 1.0, 0.0], by_device=True) == [1, 2]
    # All equal is LRU, whatever the value.
    assert evicted_prefixes([5.0] * 4) == [0, 1]


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
@pytest.mark.parametrize(("until", "evicted"), [(np.inf, [1, 0]), (1e3, [1, 0]), (0.0, [0, 1])])
def test_values_end(execution: str, until: float, evicted: list[int]) -> None:
    """The first prefix is worth more than the second, as long as that holds."""
    problem = three_prefixes()
    cluster = problem.cluster.model_copy(update={"execution": execution})
    simulator = Simulator(problem.model_copy(update={"cluster": cluster}))
    for stage in range(3):
        simulator.place(stage, (0,))
    simulator.wait()
    ends = np.array([until, np.inf, np.inf, np.inf])
    simulator.retain(Retention(prefixes=np.array([2.0, 1.0, 3.0, 0.0]), until=ends))
    simulator.place(3, (0,))
    while not simulator.done:
        simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    assert [int(key) for key in trace.evictions["key"]] == evicted


def test_the_validator_sees_another_order_of_eviction() -> None:
    simulator = Simulator(three_prefixes())
    for stage in range(3):
        simulator.place(stage, (0,))
    simulator.retain(Retention(prefixes=np.array([2, 1, 3, 0])))
    simulator.place(3, (0,))
    trace = simulator.trace()
    trace.retentions.clear()
    with pytest.raises(AssertionError, match="eviction 0"):
        assert_valid(trace)


def test_weights_by_value() -> None:
    stages = [
        Stage(id=name, model=name, prompt_tokens=100, output_tokens=1)
        for name in ("Phi-3-mini", "Qwen2.5-7B", "bge-large", "Llama-3.1-8B")
    ]
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="A100-40"),))
    problem = Problem.build(cluster, [Workflow(id="w", stages=stages)])

    def evicted(values: list[int] | None) -> list[str]:
        simulator = Simulator(problem)
        if values:
            simulator.retain(Retention(models=np.array(values)))
        for stage in range(4):
            simulator.place(stage, (0,))
        trace = simulator.trace()
        return [trace.model_names[row["key"]] for row in trace.evictions]

    assert evicted(None) == ["Phi-3-mini"]
    assert evicted([3, 1, 2, 0]) == ["Qwen2.5-7B"]


def test_a_retention_belongs_to_the_state() -> None:
    simulator = Simulator(three_prefixes())
    for stage in range(3):
        simulator.place(stage, (0,))
    before = simulator.state.copy()
    simulator.retain(Retention(prefixes=np.array([2, 1, 3, 0])))
    other, fork = simulator.copy(), simulator.view().fork()
    for one in (simulator, other):
        one.place(3, (0,))
        assert [int(key) for key in one.trace().evictions["key"]] == [1, 0]
    forked = Simulator(simulator.compiled)
    forked.restore(fork)
    forked.place(3, (0,))
    assert forked.trace().shards[-1] == simulator.trace().shards[-1]
    assert [int(key) for key in forked.trace().evictions["key"]] == [1, 0]
    simulator.restore(before)
    simulator.place(3, (0,))
    assert simulator.trace().retentions == []
    assert [int(key) for key in simulator.trace().evictions["key"]] == [0, 1]


@pytest.mark.parametrize(
    "retention",
    [
        Retention(prefixes=np.zeros(3)),
        Retention(prefixes=np.zeros((2, 4))),
        Retention(contexts=np.zeros((1, 4))),
        Retention(models=np.array([np.nan])),
        Retention(until=np.zeros(3)),
        Retention(until=np.array([np.nan, 1.0, 1.0, 1.0])),
    ],
)
def test_values_that_do_not_fit(retention: Retention) -> None:
    simulator = Simulator(three_prefixes())
    before = simulator.state.copy()
    with pytest.raises(IllegalActionError, match="retention"):
        simulator.retain(retention)
    assert np.array_equal(simulator.state.buffer, before.buffer)


# --- migration ---------------------------------------------------------------------------------


def pair(**options: Any) -> Problem:
    """Return three stages with one prefix, and two devices of a node."""
    shape = SHAPE | {"prefix_group": "g", "prefix_tokens": 2000, "queries": 2}
    stages = [Stage(id="a", **shape), Stage(id="b", **shape), Stage(id="c", **shape)]
    cluster = Cluster(
        id="two",
        devices=tuple(Device(id=f"d{i}", gpu="A100-80", peer_gb_s=100.0) for i in range(2)),
    )
    edges = [Edge(parent="a", child="b", bytes=4e9)]
    return Problem.build(
        cluster, [Workflow(id="w", stages=stages, edges=edges)], options=Options(**options)
    )


@pytest.mark.parametrize("eager", [False, True])
def test_a_copied_prefix_is_a_hit_that_takes_the_link(eager: bool) -> None:
    simulator = Simulator(pair(eager_transfers=eager))
    simulator.place(0, (0,))
    simulator.wait()
    ended = simulator.now
    expected = simulator.view().estimate(1, 1, migrate_from=0)
    alone = simulator.view().estimate(1, 1)
    simulator.place(1, (1,), migrate_from=0)
    row = simulator.trace().shards[-1]
    assert (row["source"], row["copied"], row["prefix_hit"], row["prefix_new"]) == (
        0,
        2000,
        2000,
        0,
    )
    kv = float(simulator.compiled.arrays.models["kv"][0])
    latency = float(simulator.compiled.arrays.link_latency[0, 1])
    both = [latency + 4e9 / 1e11, latency + 2000 * kv / 1e11]
    # Over one link one after the other; eager transfers run side by side.
    assert row["transfer_s"] == pytest.approx(max(both) if eager else sum(both))
    assert row["bytes_moved"] == pytest.approx(4e9 + 2000 * kv)
    assert row["start"] == ended
    assert row["prefill_s"] < alone.prefill
    assert expected.end == pytest.approx(row["end"], rel=1e-12)
    assert simulator.view().cached_prefix_tokens(2).tolist() == [2000, 2000]
    simulator.place(2, (0,))
    while not simulator.done:
        simulator.wait()
    trace = simulator.trace()
    assert_valid(trace)
    assert mechanism_metrics(trace, simulator.compiled)["copied_prefix_tokens"] == 2000


def test_a_copy_waits_until_its_source_has_computed_the_prefix() -> None:
    simulator = Simulator(pair())
    simulator.place(0, (0,))
    running = float(simulator.trace().shards[0]["end"])
    expected = simulator.view().estimate(2, 1, migrate_from=0)
    simulator.place(2, (1,), migrate_from=0)
    row = simulator.trace().shards[-1]
    assert row["start"] == running == expected.turn
    while not simulator.done:
        if simulator.ready:
            simulator.place(simulator.ready[0], (0,))
        else:
            simulator.wait()
    assert_valid(simulator.trace())


def test_with_noise_a_policy_does_not_see_when_the_source_will_be_done() -> None:
    simulator = Simulator(pair(uncertainty=0.5), seed=3)
    simulator.place(0, (0,))
    running = simulator.trace().shards[0]
    turn = simulator.view().estimate(2, 1, migrate_from=0).turn
    assert turn != running["end"]
    assert turn == pytest.approx(simulator.view().drain_estimates()[0])
    forked = Simulator(simulator.compiled)
    forked.restore(simulator.view().fork())
    forked.place(2, (1,), migrate_from=0)
    assert forked.trace().shards[1]["start"] == pytest.approx(turn)


def test_nothing_is_copied_where_nothing_is_missing() -> None:
    simulator = Simulator(pair())
    simulator.place(0, (0,), migrate_from=1)
    assert int(simulator.trace().shards[0]["source"]) == -1
    with pytest.raises(IllegalActionError, match="no device 2 to migrate from"):
        simulator.place(2, (0,), migrate_from=2)


def test_the_validator_sees_a_copy_that_cannot_be() -> None:
    simulator = Simulator(pair())
    simulator.place(0, (0,))
    simulator.place(2, (1,))
    trace = simulator.trace()
    trace.shards["source"][0] = 1
    with pytest.raises(AssertionError, match="caches no more of the prefix"):
        assert_valid(trace)
