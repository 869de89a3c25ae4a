"""Halo, Helix, Murakkab: searches and linear programs, against enumeration and by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from policies.proxies.halo import Halo, even
from policies.proxies.helix import Helix, max_flow
from policies.proxies.murakkab import Murakkab, fewest_replicas, replica_program, solve_replicas
from tests.policies.proxies.cases import call, fixed, problem

# --- Halo -------------------------------------------------------------------------------------


def first_epoch(
    simulator: Simulator, *, beam: int = 4, mu: float = 0.5, epochs: int = 1
) -> dict[int, int]:
    """Return the devices of the stages that the search starts now."""
    view = simulator.view()
    policy = Halo(beam=beam, mu=mu, epochs=epochs, window=64)
    policy.reset(view, 0)
    stages, devices, _ = policy.match(view, view.open_devices())
    return {int(s): int(d) for s, d in zip(stages, devices, strict=True)}


def test_matching_is_not_greedy() -> None:
    """x is best on a, but y would suffer more."""
    problem = Problem.classical({"x": {"a": 1.0, "b": 2.0}, "y": {"a": 1.0, "b": 10.0}}, {})
    assert first_epoch(Simulator(problem)) == {0: 1, 1: 0}


def test_mu_weighs_the_slowest_worker() -> None:
    """Sum 10 with slowest 9, or sum 12 with slowest 6."""
    problem = Problem.classical({"x": {"a": 1.0, "b": 6.0}, "y": {"a": 6.0, "b": 9.0}}, {})
    assert first_epoch(Simulator(problem), mu=0.0) == {0: 0, 1: 1}
    assert first_epoch(Simulator(problem), mu=0.9) == {0: 1, 1: 0}


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 4), st.floats(0.0, 1.0), st.integers(0, 10**6))
def test_a_wide_beam_finds_the_best_matching(
    stages: int, devices: int, mu: float, seed: int
) -> None:
    """Of all matchings of as many stages as can run, by the cost that the search minimises."""
    seconds = np.random.default_rng(seed).uniform(1.0, 20.0, (stages, devices))
    problem = Problem.classical(
        {f"s{i}": {f"d{j}": float(seconds[i, j]) for j in range(devices)} for i in range(stages)},
        {},
    )
    best = seconds.min(axis=1)

    def cost(match: dict[int, int]) -> float:
        times = [seconds[s, d] for s, d in match.items()]
        return mu * max(times) + (1 - mu) * sum(
            time - best[s] for time, s in zip(times, match, strict=True)
        )

    width = min(stages, devices)
    matchings = [
        dict(zip(chosen, order, strict=True))
        for chosen in itertools.combinations(range(stages), width)
        for order in itertools.permutations(range(devices), width)
    ]
    found = first_epoch(Simulator(problem), beam=4096, mu=mu)
    assert len(found) == width
    assert cost(found) == pytest.approx(min(cost(match) for match in matchings))


def test_halo_looks_at_what_comes_after() -> None:
    """Alone x ends first on a. But y, behind x, can run on a only, and z needs a for 9 seconds."""
    seconds = {"x": {"a": 1.0, "b": 1.5}, "z": {"a": 9.0, "b": 30.0}}
    problem = Problem.classical(seconds, {})
    # Two stages for two devices: z takes a, though x alone would.
    assert first_epoch(Simulator(problem)) == {0: 1, 1: 0}


def test_even_shards() -> None:
    assert even(7, 3) == (3, 2, 2)
    assert even(7, 1) is None


@pytest.mark.parametrize(("queries", "width"), [(600, 3), (1, 1)])
def test_a_heavy_stage_takes_the_devices_that_are_left(queries: int, width: int) -> None:
    stage = call("s", queries=queries, output=2000)
    simulator = Simulator(problem([stage], shards=4))
    policy = Halo()
    policy.reset(simulator.view(), 0)
    (assignment,) = policy.decide(simulator.view())
    assert len(assignment.devices) == width
    assert assignment.counts == (None if width == 1 else (200, 200, 200))


def test_nothing_is_split_while_stages_wait() -> None:
    stages = [call(f"s{i}", queries=600, output=2000) for i in range(4)]
    simulator = Simulator(problem(stages, shards=4))
    policy = Halo()
    policy.reset(simulator.view(), 0)
    assert sorted(len(a.devices) for a in policy.decide(simulator.view())) == [1, 1, 1]


# --- Helix ------------------------------------------------------------------------------------


def test_flow_of_one_model_uses_every_device_fully() -> None:
    assert max_flow(np.array([1.0]), np.array([[2.0, 1.0]])) == pytest.approx(
        np.array([[2.0, 1.0]])
    )


def test_flows_leave_scarce_devices_to_those_who_need_them() -> None:
    """Model 0 runs on device 0 only; model 1 on both, equally well: the demands are equal."""
    flows = max_flow(np.array([1.0, 1.0]), np.array([[2.0, 0.0], [2.0, 2.0]]))
    assert flows == pytest.approx(np.array([[2.0, 0.0], [0.0, 2.0]]))


def test_flows_follow_demands() -> None:
    """Demands 3 : 1 on one device of speed 4."""
    flows = max_flow(np.array([3.0, 1.0]), np.array([[4.0], [4.0]]))
    assert flows == pytest.approx(np.array([[3.0], [1.0]]))


def test_interleaved_weighted_round_robin() -> None:
    """Flows 2 : 1. (1)/2 < 1/1: a; (1+1)/2 = 1/1: a, the first; then b; and again."""
    row = {"a": 1.0, "b": 2.0}
    problem = Problem.classical({f"t{i}": row for i in range(6)}, {})
    rows = Simulator(problem).run(Helix()).shards
    assert rows["device"][np.argsort(rows["stage"])].tolist() == [0, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(("slow", "used"), [(19.0, {0, 1}), (21.0, {0})])
def test_small_flows_are_masked(slow: float, used: set[int]) -> None:
    """A device of a twentieth of the speed."""
    problem = Problem.classical({f"t{i}": {"a": 1.0, "b": slow} for i in range(60)}, {})
    rows = Simulator(problem).run(Helix(mask=0.05)).shards
    assert set(rows["device"].tolist()) == used


def test_a_stage_that_no_flow_serves_runs_where_it_can() -> None:
    problem = Problem.classical(
        {"t0": {"a": 1.0, "b": 100.0}, "t1": {"a": 1.0, "b": 100.0}, "t2": {"b": 7.0}}, {}
    )
    assert Simulator(problem).run(Helix(mask=0.5)).shards["device"].tolist() == [0, 0, 1]


# --- Murakkab ---------------------------------------------------------------------------------


def test_the_cheapest_replicas_that_carry_the_demand() -> None:
    """A demand of 3: three slow ones cost 3; with two slow ones a fast and a slow one, 4."""
    demand, speed, price = np.array([3.0]), np.array([[2.0, 1.0]]), np.array([3.0, 1.0])
    for counts, replicas in (([1, 3], [[0, 3]]), ([1, 2], [[1, 1]])):
        program = replica_program(demand, speed, price, np.array(counts))
        assert fewest_replicas(program).tolist() == replicas


def test_every_model_has_a_replica_and_no_device_two() -> None:
    program = replica_program(
        np.array([0.0, 5.0]), np.array([[1.0], [1.0]]), np.array([1.0]), np.array([3])
    )
    assert fewest_replicas(program).tolist() == [[1], [2]]


@settings(max_examples=25)
@given(st.integers(1, 2), st.integers(1, 2), st.integers(0, 10**6))
def test_replicas_against_enumeration(models: int, kinds: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    demand = rng.uniform(0, 4, models)
    speed = rng.uniform(0.5, 2, (models, kinds)) * (rng.random((models, kinds)) < 0.8)
    price = rng.uniform(1, 5, kinds)
    counts = rng.integers(1, 3, kinds)
    penalty = 100.0 * float((price * counts).sum())

    def cost(replicas: np.ndarray) -> float:
        if (replicas.sum(axis=0) > counts).any():
            return np.inf
        lacking = np.maximum(0.0, demand - (replicas * speed).sum(axis=1)).sum()
        without = ((replicas * (speed > 0)).sum(axis=1) < 1).sum()
        return float(
            (replicas * price).sum() + penalty * (lacking + (1.0 + demand.sum()) * without)
        )

    every = itertools.product(
        *[range(int(counts[c]) + 1) for _ in range(models) for c in range(kinds)]
    )
    best = min(cost(np.array(flat).reshape(models, kinds) * (speed > 0)) for flat in every)
    program = replica_program(demand, speed, price, counts)
    assert cost(fewest_replicas(program)) == pytest.approx(best)
    assert cost(solve_replicas(program)) <= best * 1.011 + 1e-6


def test_the_least_loaded_replica_by_what_was_sent() -> None:
    """Three equal devices; a demand that needs two: the third stays empty."""
    row = {"a": 10.0, "b": 10.0, "c": 10.0}
    problem = Problem.classical({f"t{i}": row for i in range(4)}, {})
    # 40 seconds of work in an epoch of 30, times 1.15: 1.53 devices.
    rows = Simulator(problem).run(Murakkab(epoch=30.0)).shards
    assert np.bincount(rows["device"], minlength=3).tolist() == [2, 2, 0]
    rows = Simulator(problem).run(Murakkab(epoch=100.0)).shards
    assert np.bincount(rows["device"], minlength=3).tolist() == [4, 0, 0]


def test_the_expectation_is_a_moving_average() -> None:
    """Epochs of 10 s: 20 seconds of work in the first, none in the second and 4 in the third."""
    simulator = Simulator(
        problem([fixed("a", d0=20.0)], [fixed("b", d0=4.0)], arrivals=(0.0, 25.0), devices=1)
    )
    policy = Murakkab(epoch=10.0, weight=0.5)
    simulator.run(policy)
    # The second plan is made at 25: half of 0.4 and half of 2.
    assert policy._demand == {-1: pytest.approx(1.2)}
