"""The generator of candidate placements, against its description in plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.kernel.placements import candidate_count, generate, new_placements
from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.validator import assert_valid
from tests.sim.test_simulator import split
from tests.strategies import certain, problems

Placement = tuple[tuple[int, ...], tuple[int, ...]]
"""Devices, and queries on each."""


def candidates(simulator: Simulator, stage: int, shards: int) -> list[Placement | None]:
    """Return the generator's candidates by position; None: no candidate."""
    devices = len(simulator.compiled.device_ids)
    found = new_placements(candidate_count(devices, shards), shards, devices)
    # Not zero at first: what is left over from another stage must not show.
    found.rows["width"] = found.devices[:] = found.counts[:] = 9
    generate(simulator.compiled.arrays, simulator.state, stage, shards, found)
    assert found.count == found.rows.size
    assert (found.rows["stage"] == stage).all()
    return [
        (tuple(found.devices[i, :k].tolist()), tuple(found.counts[i, :k].tolist())) if k else None
        for i, k in enumerate(found.rows["width"].tolist())
    ]


def expected(simulator: Simulator, stage: int, shards: int) -> list[Placement | None]:
    """Compute the same from the description of the module."""
    view = simulator.view()
    ends = view.end_estimates(stage)
    clean = view.clean_seconds(stage)
    queries = view.stage(stage)["queries"]
    nodes = [device.node for device in simulator.compiled.problem.cluster.devices]
    order = [d for d in np.argsort(ends, kind="stable").tolist() if np.isfinite(ends[d])]
    resident = view.resident(stage)

    def place(devices: list[int]) -> Placement:
        return tuple(devices), tuple(split(queries, clean[devices].tolist()))

    alone: list[Placement | None] = [
        ((d,), (queries,)) if np.isfinite(clean[d]) else None for d in range(len(nodes))
    ]
    groups: list[list[Placement | None]] = [[], [], []]
    node_order = [[d for d in order if nodes[d] == n] for n in dict.fromkeys(nodes)]
    for k in range(2, shards + 1):
        sides: list[list[int]] = [
            order,
            [d for d in order if resident[d]],
            _best_node(node_order, ends, k),
        ]
        seen: list[Placement] = []
        for group, side in zip(groups, sides, strict=True):
            new = place(side[:k]) if k <= min(len(side), queries) else None
            group.append(None if new in seen else new)
            if new is not None:
                seen.append(new)
    return alone + groups[0] + groups[1] + groups[2]


def _best_node(nodes: list[list[int]], ends: np.ndarray, k: int) -> list[int]:
    """Return the devices of the node whose k-th earliest end is earliest."""
    able = [node for node in nodes if len(node) >= k]
    # Of equal ends the smaller device number comes first, as in the order of all.
    return min(able, key=lambda node: (ends[node[k - 1]], node[k - 1]), default=[])


@settings(max_examples=80)
@given(problems(), st.integers(0, 12), st.integers(0, 2**32))
def test_candidates_are_as_described(problem: Problem, steps: int, seed: int) -> None:
    simulator = Simulator(certain(problem), seed=seed)
    rng = np.random.default_rng(seed)
    most = simulator.compiled.shape[-1]
    while steps > 0 and not simulator.done:
        steps -= 1
        if not simulator.ready:
            simulator.wait()
            continue
        # A random candidate takes the run to states with models on several devices.
        stage = int(rng.choice(simulator.ready))
        found = [c for c in candidates(simulator, stage, most) if c is not None]
        devices, counts = found[rng.integers(len(found))]
        simulator.place(stage, devices, counts)
    for stage in simulator.ready:
        for shards in range(1, most + 1):
            found = candidates(simulator, stage, shards)
            assert found == expected(simulator, stage, shards)


@settings(max_examples=80)
@given(problems(), st.integers(0, 2**32))
def test_every_candidate_is_legal_and_new(problem: Problem, seed: int) -> None:
    simulator = Simulator(problem, seed=seed)
    rng = np.random.default_rng(seed)
    while not simulator.done:
        if not simulator.ready:
            simulator.wait()
            continue
        stage = simulator.ready[0]
        view = simulator.view()
        shards = simulator.compiled.shape[-1]
        found = [c for c in candidates(simulator, stage, shards) if c is not None]
        assert len({frozenset(devices) for devices, _ in found}) == len(found) > 0
        for devices, counts in found:
            assert len(set(devices)) == len(devices) == len(counts) <= shards
            assert set(devices) <= set(view.eligible(stage).tolist())
            assert min(counts) >= 1
            assert sum(counts) == view.stage(stage)["queries"]
        # The simulator accepts any of them.
        devices, counts = found[rng.integers(len(found))]
        simulator.place(stage, devices, counts)
    assert_valid(simulator.trace())


def test_the_number_of_positions() -> None:
    assert candidate_count(8, 1) == 8
    assert candidate_count(8, 4) == 8 + 3 * 3
