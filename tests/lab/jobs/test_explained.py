"""``explained.json``: what a traced job stores, and that damage is detected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.lab.jobs.directory import CHROME_TRACE, EXPLAINED
from fate_gym.lab.jobs.explained import read_explained
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.jobs.schedules import read_schedules
from tests.lab.conftest import job_config


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a job that was traced after a run without tracing."""
    config = job_config(tmp_path_factory.mktemp("traced"), "heft_sharded")
    assert not (run_job(config).directory / EXPLAINED).exists()
    outcome = run_job(config.model_copy(update={"trace": True}))
    assert not outcome.skipped
    assert (outcome.directory / CHROME_TRACE).exists()
    assert run_job(config).skipped
    return outcome.directory


def test_every_problem_is_kept_with_its_graph_and_decisions(traced: Path) -> None:
    explained, schedules = read_explained(traced), read_schedules(traced)
    assert explained.keys() == schedules.keys()
    for problem, one in explained.items():
        shards = schedules[problem]["heft_sharded"].shards
        assert one.devices == schedules[problem]["heft_sharded"].devices
        assert all(size > 1e9 for size in one.memory)
        for placement in one.placements:
            node, shard = one.stages[placement.stage], shards[placement.row]
            assert (node.workflow, node.stage) == (shard["workflow"], shard["stage"])
            assert shard["device"] == one.devices[placement.devices[0]]
            assert placement.time <= shard["start"] + 1e-4  # seven digits are kept
            assert placement.quantity is not None and placement.compared
        parents = {child for _, child in one.edges}
        assert parents and max(parents) < len(one.stages)
        assert {h.device for h in one.held} <= set(range(len(one.devices)))


def _first(data: list[dict[str, Any]], **changes: object) -> str:
    return json.dumps([data[0] | changes, *data[1:]])


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda data: json.dumps(data)[:-9], "Invalid JSON"),
        (lambda data: _first(data, edges=[[0, 10_000]]), "not listed"),
        (lambda data: _first(data, memory=[1.0]), "different lengths"),
        (lambda data: _first(data, ready=["soon"]), "valid number"),
        (lambda data: _first(data, onload="x"), "Extra inputs"),
    ],
)
def test_damage_is_named(traced: Path, tmp_path: Path, damage: Any, fault: str) -> None:
    data = json.loads((traced / EXPLAINED).read_text())
    (tmp_path / EXPLAINED).write_text(damage(data))
    with pytest.raises(InputError) as error:
        read_explained(tmp_path)
    assert fault in error.value.fault and error.value.source == str(tmp_path / EXPLAINED)


def test_a_job_with_another_file_counts_as_not_done(traced: Path) -> None:
    path = traced / EXPLAINED
    whole = path.read_text()
    path.write_text(whole.replace("heft", "HEFT") + " ")
    try:
        (job,) = find_jobs(traced.parents[2])
        assert job.state == "damaged" and EXPLAINED in str(job.damage)
    finally:
        path.write_text(whole)
