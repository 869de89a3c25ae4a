"""The validator on devices of several GPUs: times by hand, and the simulator's."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from fate_gym.validator import validate
from policies import make_policy


def problem(gpus: int, *stages: Stage, gpu: str = "H100-SXM", **device: Any) -> Problem:
    cluster = Cluster(
        id="c",
        devices=(
            Device(id="d", gpu=gpu, tensor_parallel=gpus, **device),
            Device(id="e", gpu=gpu),
        ),
    )
    edges = tuple(Edge(parent=a.id, child=b.id) for a, b in pairwise(stages))
    return Problem.build(cluster, [Workflow(id="w", stages=stages, edges=edges)])


def run(given: Problem) -> Trace:
    return Simulator(given).run(make_policy("least_loaded"))


@given(
    st.integers(1, 16),
    st.sampled_from(["H100-SXM", "A100-40", "L40S", "A10G"]),
    st.sampled_from(["Qwen2.5-14B", "Mixtral-8x7B", "Llama-3.1-70B", "bge-large"]),
    st.integers(1, 4000),
    st.integers(0, 300),
    st.integers(1, 300),
    st.none() | st.floats(1, 500),
    st.none() | st.floats(1, 500),
)
def test_two_implementations_agree(
    gpus: int, gpu: str, model: str, prompt: int, output: int, queries: int,
    peer: float | None, load: float | None,
) -> None:  # fmt: skip
    facts = catalog.model(model)
    need = facts.weight_bytes + (prompt + output) * facts.kv_bytes_per_token
    gpus = max(gpus, int(need // (0.9e9 * catalog.gpu(gpu).memory_gb)) + 1)
    stage = Stage(id="s", model=model, prompt_tokens=prompt, output_tokens=output, queries=queries)
    made = problem(gpus, stage, gpu=gpu, peer_gb_s=peer, load_gb_s=load)
    assert validate(run(made)) == []


def test_wrong_times_are_found() -> None:
    """Those without all-reduces: only their start in prefill, all of them in decode."""
    stage = Stage(id="s", model="Llama-3.1-70B", prompt_tokens=1000, output_tokens=100, queries=3)
    trace = run(problem(2, stage))
    assert validate(trace) == []
    row = trace.shards[0]
    # 80 layers, two all-reduces each: of 3 queries in every step, over 0.8 of NVLink.
    of_step = 160 * (3 * 8192 * 2 * 2 / 2 / 360e9 + 0.00002)
    for name, seconds in (("prefill_s", 160 * 0.00002), ("decode_s", 100 * of_step)):
        shards = trace.shards.copy()
        shards[0][name] = row[name] - seconds
        faults = validate(replace(trace, shards=shards))
        assert any(f"{name}: expected" in fault for fault in faults)


def test_a_device_that_cannot_host_the_model_alone_can_with_another() -> None:
    stage = Stage(id="s", model="Llama-3.1-70B", prompt_tokens=1000, output_tokens=100)
    trace = run(problem(2, stage))
    assert np.all(trace.shards["device"] == 0)
    trace.shards["device"] = 1
    assert any("cannot" in fault or "host" in fault for fault in validate(trace))


def test_an_empty_prefill_still_takes_its_fixed_times() -> None:
    given: dict[str, Any] = {
        "model": "Llama-3.1-8B", "prefix_group": "g", "prefix_tokens": 500, "output_tokens": 5,
    }  # fmt: skip
    made = problem(2, Stage(id="a", prompt_tokens=1, **given), Stage(id="b", **given))
    assert validate(Simulator(made).run(make_policy("prefix_affinity"))) == []
