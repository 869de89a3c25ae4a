"""Saved traces and files of measured GPUs: accepted, or refused with one clear error."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.lab.replay.predict import predicted_seconds
from fate_gym.lab.replay.script import script_of
from fate_gym.lab.replay.timeline import timeline
from fate_gym.sim import Trace
from fate_gym.workloads.gpu_file import read_gpu
from tests.fuzz.check import taken
from tests.fuzz.mutants import mutated_bytes, mutated_value
from tests.lab.replay.test_script import trace_of

EXAMPLE = Path("docs") / "examples" / "cpu.yaml"


@pytest.fixture(scope="module", params=["exclusive", "batching"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "run.json"
    trace_of(3, request.param, "heft").save(path)
    return path


def follow(path: Path) -> None:
    """Do everything that `replay` does before execution."""
    script = script_of(Trace.load(path), None, str(path))
    timeline(script, predicted_seconds(script, None, {}))


@given(draw=st.randoms())
def test_mutants_of_traces_are_followed_or_are_one_error(saved: Path, draw: random.Random) -> None:
    data: Any = json.loads(saved.read_text(encoding="utf-8"))
    path = saved.with_name("mutant.json")
    path.write_text(json.dumps(mutated_value(draw, data)), encoding="utf-8")
    taken(lambda: follow(path))


@given(draw=st.randoms())
def test_damaged_traces_are_followed_or_are_one_error(saved: Path, draw: random.Random) -> None:
    path = saved.with_name("damaged.json")
    path.write_bytes(mutated_bytes(draw, saved.read_bytes()))
    taken(lambda: follow(path))


@given(draw=st.randoms())
def test_mutants_of_gpu_files_are_taken_or_are_one_error(
    tmp_path_factory: pytest.TempPathFactory, draw: random.Random
) -> None:
    path = tmp_path_factory.mktemp("gpu") / "mine.yaml"
    data = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(mutated_value(draw, data)), encoding="utf-8")
    taken(lambda: read_gpu("mine.yaml#cpu", path.parent))
