"""The saved view in W&B, as the definition that would be sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.conftest import Run, run_script


def test_the_view_shows_the_runs_of_the_sweep_by_policy(sweep: Run) -> None:
    pytest.importorskip("wandb_workspaces")
    done = run_script("wandb_report.py", sweep.root, "--entity", "me", "--dry-run")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["entity"], view["project"]) == ("me", "fate-gym")
    (runs,) = view["spec"]["section"]["runSets"]
    (condition,) = runs["filters"]["filters"]
    assert (condition["key"]["name"], condition["value"]) == ("group", "grid")
    assert [group["name"] for group in runs["grouping"]] == ["policy.value.name", "execution.value"]
    sections = view["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == [
        "Results", "Mechanism", "Serving", "Sessions", "Schedules",
    ]  # fmt: skip
    # What the panels show is what runs log.
    (result,) = sweep.root.glob("smoke/heft/s0-*/result.json")
    logged = {*json.loads(result.read_text())["means"], "decision_ms_p99"}
    logged |= {"slo_attainment", "goodput_per_s"}  # where workflows have objectives
    for section in sections[:3]:
        for panel in section["panels"]:
            assert set(panel["config"].get("metrics") or []) <= logged


def test_a_bad_directory_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("wandb_workspaces")
    done = run_script("wandb_report.py", tmp_path, "--entity", "me")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path}: no jobs in this directory. "
        "Remedy: give the directory of a sweep, e.g. runs/default.\n"
    )
