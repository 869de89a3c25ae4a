"""What a planner sees of a stage that has lost one shard and still runs another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fate_gym.kernel.lookups import local_bytes
from fate_gym.kernel.transfer import transfer_seconds
from fate_gym.problem import (
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
from fate_gym.sim import Simulator

BYTES = 4e9


def half_lost(**options: Any) -> Simulator:
    """Parent ``a`` ran on d0 and d1, half of it on each; d0 has failed. ``b`` is its child."""
    shape: dict[str, Any] = {"model": "Llama-3.1-8B", "queries": 2, "prompt_tokens": 100}
    stages = (
        Stage(id="a", output_tokens=500, **shape),
        Stage(id="b", output_tokens=10, **shape),
        Stage(id="c", output_tokens=10, **shape),  # ready, so that every event is an instant
    )
    edges = (Edge(parent="a", child="b", bytes=BYTES),)
    devices = tuple(Device(id=f"d{i}", gpu="A100-80", node=f"n{i}") for i in range(3))
    problem = Problem.build(
        Cluster(id="three", devices=devices, network_gb_s=1.0),
        [Workflow(id="w", stages=stages, edges=edges)],
        options=Options(
            max_shards=2,
            failures=Failures(outages=(Outage(device="d0", at=1.0, seconds=50.0),)),
            **options,
        ),
    )
    simulator = Simulator(problem)
    simulator.place(0, (0, 1), (1, 1))
    while simulator.now < 1.0:
        simulator.wait()
    return simulator


@pytest.mark.parametrize("options", [{}, {"eager_transfers": True}, {"contention": True}])
def test_only_what_is_there_has_to_come(options: dict[str, bool]) -> None:
    simulator = half_lost(**options)
    p, st = simulator.compiled.arrays, simulator.state
    assert st.slots["device"][0].tolist() == [-1, 1]
    for device, moved in enumerate([BYTES / 2, 0.0, BYTES / 2]):
        assert transfer_seconds(p, st, 1, device, 1.0, st.now)[1] == moved
    found = np.zeros(3)
    local_bytes(p, st, 1, found)
    assert found.tolist() == [0.0, BYTES / 2, 0.0]
