"""W&B, for real and offline: the run can be read back from its directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fate_gym.lab.results import read_result
from tests.lab.conftest import Run, job_directory


@pytest.fixture(scope="module")
def directory(single: Run) -> Path:
    return job_directory(single.root, "heft", 0)


@pytest.fixture(scope="module")
def summary(directory: Path) -> dict[str, Any]:
    return json.loads(_inspect(directory, "--summary"))


@pytest.fixture(scope="module")
def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _inspect(directory).splitlines()]


def _inspect(directory: Path, *options: str) -> str:
    (run,) = (directory / "wandb").glob("offline-run-*")
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", *options, "--json", str(run)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_the_run_is_named_and_grouped_by_our_conventions(
    directory: Path, summary: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    result = read_result(directory)
    assert result is not None
    assert summary["state"] == "finished"
    assert summary["project"] == "fate-gym"
    assert summary["name"] == "smoke/heft/s0"
    assert summary["run_id"].endswith(result.config_hash)
    assert result.family in summary["tags"]
    assert summary["config"]["workload_hash"] == result.workload_hash
    assert summary["config"]["policy"]["name"] == "heft"
    run = next(record["run"] for record in records if record["type"] == "run")
    assert run["run_group"] == "default"
    assert run["job_type"] == "evaluate"


def test_means_rows_picture_and_artifact_are_there(
    directory: Path, summary: dict[str, Any], records: list[dict[str, Any]]
) -> None:
    result = read_result(directory)
    assert result is not None
    logged = summary["summary"]
    assert logged["gap_to_bound"] == pytest.approx(result.means["gap_to_bound"])
    assert logged["workflows"]["nrows"] == result.workflows
    assert logged["gantt"]["format"] == "png"
    values = [
        record["history"]["item"]["normalised"]
        for record in records
        if record["type"] == "history" and "normalised" in record["history"]["item"]
    ]
    assert sum(values) / len(values) == pytest.approx(result.means["normalised"])
    kinds = {record["artifact"]["type"] for record in records if record["type"] == "artifact"}
    assert "results" in kinds


def test_everything_stays_in_the_run_directory(directory: Path) -> None:
    assert list((directory / "wandb" / "data" / "artifacts" / "staging").iterdir())


def test_without_tracking_nothing_is_written(sweep: Run) -> None:
    assert not list(sweep.root.glob("**/wandb"))
