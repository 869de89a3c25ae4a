"""Traces in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Device, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from fate_gym.validator import assert_valid, validate
from policies import make_policy


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Return a noisy trace of two models on a device with memory for one, with prefixes."""
    shared = {"prefix_group": "p", "prefix_tokens": 500, "prompt_tokens": 100, "output_tokens": 9}
    stages = [
        Stage(id=f"s{i}", model=model, **shared)
        for i, model in enumerate(("Llama-3.1-8B", "Qwen2.5-7B") * 2)
    ]
    cluster = Cluster(id="c", devices=(Device(id="d", gpu="A10G"),))
    options = Options(uncertainty=0.3)
    problem = Problem.build(cluster, [Workflow(id="w", stages=tuple(stages))], options=options)
    return Simulator(problem).run(make_policy("kvflow"), seed=3)


@pytest.fixture
def saved(trace: Trace, tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    trace.save(path)
    return path


def test_a_trace_comes_back_as_it_was(trace: Trace, saved: Path) -> None:
    again = Trace.load(saved)
    assert len(trace.evictions) > 0 and len(trace.retentions) > 0
    assert again.same_schedule(trace)
    assert again.problem == trace.problem
    assert (again.policy, again.seed) == (trace.policy, trace.seed)
    assert np.array_equal(again.draws, trace.draws, equal_nan=True)
    assert_valid(again)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trace_version": 2}, "'trace_version': a trace of version 2"),
        ({"trace_version": None}, "not a trace"),
        ({"stage_end": [1.0]}, "'stage_end': 1 values for 4 stages"),
        ({"shards": {"stage": [0]}}, "'shards': the columns are not"),
        ({"seed": "x"}, "'seed'"),
        ({"extra": 1}, "'extra'"),
    ],
)
def test_a_wrong_file_is_one_error(saved: Path, change: dict[str, Any], said: str) -> None:
    data = json.loads(saved.read_text(encoding="utf-8"))
    saved.write_text(json.dumps(data | change), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Trace.load(saved)
    assert str(saved) in str(caught.value)
    assert said in str(caught.value)


def test_infinite_values_are_not_valid(saved: Path) -> None:
    data = json.loads(saved.read_text(encoding="utf-8"))
    data["shards"]["context_new"][1] = float("inf")
    saved.write_text(json.dumps(data), encoding="utf-8")
    assert any("context_new" in fault for fault in validate(Trace.load(saved)))


def test_shards_of_stages_that_are_not_there_are_refused(saved: Path) -> None:
    data = json.loads(saved.read_text(encoding="utf-8"))
    data["shards"]["stage"][0] = 99
    saved.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(InputError, match="no number 99"):
        Trace.load(saved)
