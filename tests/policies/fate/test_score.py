"""The later cost of a placement: every term by hand, and 0 if its weight is 0."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator
from policies.fate.paper.candidates import find_candidates, new_frontier
from policies.fate.paper.score import Weights

NONE = Weights(
    residency=0.0, locality=0.0, prefix=0.0, reachability=0.0, horizon=0.0, decay=0.5, depth=2
)
ALL = Weights(
    residency=1.0, locality=1.0, prefix=1.0, reachability=1.0, horizon=1.0, decay=0.5, depth=2
)
LLAMA, QWEN, LARGE = "Llama-3.1-8B", "Qwen2.5-7B", "Llama-3.1-70B-AWQ"


def weights(**some: float) -> Weights:
    """Return these weights, with all others 0."""
    return NONE._replace(**some)


def stage(id: str, model: str = LLAMA, **fields: Any) -> Stage:
    return Stage(
        id=id, model=model, **{"queries": 4, "prompt_tokens": 400, "output_tokens": 40} | fields
    )


def cluster(*gpus: str) -> Cluster:
    """Return a cluster with a node for each GPU and a network of 1 GB/s."""
    devices = tuple(Device(id=f"d{i}", gpu=gpu, node=f"n{i}") for i, gpu in enumerate(gpus))
    return Cluster(id="c", devices=devices, network_gb_s=1.0)


def chain(
    gpus: tuple[str, ...],
    *stages: Stage,
    bytes: float = 0.0,
    inherited: int = 0,
    eager: bool = False,
) -> Simulator:
    """Return a simulator at the start of a chain of stages."""
    edges = tuple(
        Edge(parent=a.id, child=b.id, bytes=bytes, inherited_tokens=inherited)
        for a, b in itertools.pairwise(stages)
    )
    workflow = Workflow(id="w", stages=stages, edges=edges)
    options = Options(max_shards=2, eager_transfers=eager)
    return Simulator(Problem.build(cluster(*gpus), [workflow], options=options))


def scores(
    simulator: Simulator, weights: Weights, *, kept: int = 99, window: int = 12, shards: int = 1
) -> dict[tuple[int, tuple[int, ...]], tuple[float, float]]:
    """Return {(stage, devices): (end, later)} of all placements of the ready stages."""
    compiled = simulator.compiled
    frontier = new_frontier(compiled.arrays, simulator.view().fork(), window * kept)
    find_candidates(frontier, weights, window, kept, shards)
    found = {}
    for row in range(frontier.candidates.count):
        placement = frontier.candidates.rows[row]
        devices = tuple(frontier.candidates.devices[row, : placement["width"]].tolist())
        end = float(placement["end"]) - simulator.now
        found[int(placement["stage"]), devices] = end, float(placement["later"])
    return found


def later(simulator: Simulator, weights: Weights, device: int = 0) -> float:
    return scores(simulator, weights)[0, (device,)][1]


def test_without_weights_nothing_comes_later() -> None:
    simulator = chain(("A100-80", "A10G"), stage("a"), stage("b", QWEN), bytes=1e9)
    assert [value for _, value in scores(simulator, NONE).values()] == [0.0, 0.0]
    assert all(value > 0 for _, value in scores(simulator, ALL).values())


def test_the_end_is_the_estimate() -> None:
    simulator = chain(("A100-80", "A10G"), stage("a"), stage("b"))
    ends = simulator.view().end_estimates(0)
    for chosen in (NONE, ALL):
        found = scores(simulator, chosen)
        assert [found[0, (d,)][0] for d in (0, 1)] == pytest.approx(ends.tolist(), rel=1e-12)


def test_descendants_count_less_with_distance() -> None:
    simulator = chain(("A100-80",), stage("a"), stage("b", QWEN), stage("c", output_tokens=90))
    clean = simulator.compiled.clean_seconds[:, 0]
    near = weights(horizon=1.0, depth=1)
    far = weights(horizon=1.0, depth=2)
    assert later(simulator, near) == pytest.approx(clean[1] / 2)
    assert later(simulator, far) == pytest.approx(clean[1] / 2 + clean[2] / 4)
    assert later(simulator, far._replace(horizon=3.0)) == pytest.approx(3 * later(simulator, far))
    assert later(simulator, far._replace(decay=1.0)) == pytest.approx(clean[1] + clean[2])


def test_residency_is_the_loading_of_descendants() -> None:
    simulator = chain(("A100-80",), stage("a"), stage("b", QWEN), stage("c"))
    clean = simulator.compiled.clean_seconds[:, 0]
    load = simulator.compiled.load_seconds[simulator.compiled.model_names.index(QWEN), 0]
    # The model of c is the one that a leaves there.
    with_loads = weights(horizon=1.0, residency=1.0)
    assert later(simulator, with_loads) == pytest.approx((clean[1] + load) / 2 + clean[2] / 4)
    assert later(simulator, weights(horizon=1.0)) == pytest.approx(clean[1] / 2 + clean[2] / 4)


@pytest.mark.parametrize(("holder", "loads"), [(0, 1), (1, 0)])
def test_residency_counts_only_what_is_not_resident(holder: int, loads: int) -> None:
    """The child has to run on the second device; its model is on the first, or there."""
    child = stage("b", QWEN, allowed_devices=("d1",))
    simulator = chain(("A100-80", "A100-80"), stage("x", QWEN), stage("a"), child)
    simulator.place(0, (holder,))
    simulator.wait()
    blind, seeing = (
        scores(simulator, weights(horizon=1.0, residency=weight))[1, (0,)][1]
        for weight in (0.0, 1.0)
    )
    assert seeing - blind == pytest.approx(loads * simulator.compiled.load_seconds[0, 1] / 2)


def test_locality_is_the_transfer_to_descendants() -> None:
    child = stage("b", allowed_devices=("d1",))
    simulator = chain(("A100-80", "A100-80"), stage("a"), child, bytes=2e9)
    clean = simulator.compiled.clean_seconds[1, 1]
    moved = simulator.compiled.arrays.link_latency[0, 1] + 2e9 / 1e9
    seen = weights(horizon=1.0, locality=1.0)
    unseen = weights(horizon=1.0)
    assert later(simulator, seen, 0) == pytest.approx((clean + moved) / 2)
    assert later(simulator, seen, 1) == pytest.approx(clean / 2)
    assert later(simulator, unseen, 0) == pytest.approx(clean / 2)


def test_prefix_is_what_descendants_find_cached() -> None:
    shared = {"prefix_group": "g", "prefix_tokens": 4000}
    simulator = chain(("A100-80",), stage("a", **shared), stage("b", **shared))
    clean = simulator.compiled.clean_seconds[1, 0]
    saved = simulator.compiled.prefix_seconds[1, 0]
    assert saved > 0
    assert later(simulator, weights(horizon=1.0, prefix=1.0)) == pytest.approx((clean - saved) / 2)
    assert later(simulator, weights(horizon=1.0)) == pytest.approx(clean / 2)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("devices", [(0,), (1,), (1, 0)])
def test_what_comes_later_is_what_the_simulator_then_finds(
    devices: tuple[int, ...], eager: bool
) -> None:
    """All four dimensions at once: load, transfer, prefix and inherited context."""
    shared = {"prefix_group": "g", "prefix_tokens": 2000}
    simulator = chain(
        ("A100-80", "H100-SXM"),
        stage("a", **shared),
        stage("b", **shared, allowed_devices=("d0",)),
        bytes=3e9,
        inherited=1500,
        eager=eager,
    )
    seen = ALL._replace(reachability=0.0, depth=1)
    expected = scores(simulator, seen, shards=2)[0, devices][1]
    simulator.place(0, devices)
    simulator.wait()
    parts = simulator.view().estimate(1, 0)
    assert expected == pytest.approx((parts.end - simulator.now) / 2)


def test_evicting_weights_that_are_needed_again_is_regretted() -> None:
    """A 24 GB device holds one of the two models."""
    last = stage("c", LLAMA)
    simulator = chain(("A10G",), stage("x", LLAMA), stage("a", QWEN), last)
    simulator.place(0, (0,))
    simulator.wait()
    load = simulator.compiled.load_seconds[simulator.compiled.model_names.index(LLAMA), 0]
    found = scores(simulator, weights(residency=1.0))
    assert found[1, (0,)][1] == pytest.approx(load)
    assert scores(simulator, NONE)[1, (0,)][1] == 0.0


def test_nothing_is_regretted_that_is_not_needed_again() -> None:
    simulator = chain(("A10G",), stage("x", LLAMA), stage("a", QWEN), stage("c", QWEN))
    simulator.place(0, (0,))
    simulator.wait()
    assert scores(simulator, weights(residency=1.0))[1, (0,)][1] == 0.0


def test_reachability_prices_the_device_that_others_need() -> None:
    """Only the first device hosts the large model; a small stage elsewhere leaves it free."""
    small, large = stage("a"), stage("b", LARGE)
    workflow = Workflow(id="w", stages=(small, large))
    simulator = Simulator(Problem.build(cluster("A100-80", "A10G", "A10G"), [workflow]))
    assert np.isfinite(simulator.compiled.clean_seconds[1]).tolist() == [True, False, False]
    found = scores(simulator, weights(reachability=1.0))
    assert found[0, (0,)][1] > 0.0
    assert found[0, (1,)][1] == found[0, (2,)][1] == 0.0
    # The large stage has no choice, and pays nothing.
    assert found[1, (0,)][1] == 0.0
    assert scores(simulator, weights(residency=1.0))[0, (0,)][1] == 0.0


def test_the_frontier_keeps_the_best_of_the_highest_ranks() -> None:
    stages = tuple(stage(f"s{i}", output_tokens=10 * (i + 1)) for i in range(5))
    workflow = Workflow(id="w", stages=stages)
    simulator = Simulator(Problem.build(cluster("A100-80", "A10G", "L40S"), [workflow]))
    every = scores(simulator, ALL)
    assert len(every) == 15
    few = scores(simulator, ALL, window=2, kept=2)
    # The longest outputs have the largest ranks.
    assert {s for s, _ in few} == {3, 4}
    for s in (3, 4):
        mine = {key: sum(value) for key, value in every.items() if key[0] == s}
        best = sorted(mine, key=lambda key: mine[key])[:2]
        assert {key for key in few if key[0] == s} == set(best)


def test_shards_are_candidates_too() -> None:
    simulator = chain(("A100-80", "A100-80"), stage("a", queries=64, output_tokens=400))
    assert (0, (0, 1)) not in scores(simulator, ALL, shards=1)
    wide = scores(simulator, ALL, shards=2)
    assert wide[0, (0, 1)][0] < wide[0, (0,)][0]
