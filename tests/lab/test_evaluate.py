"""The command itself: single runs, sweeps, resumption, failures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fate_gym.jit.store import default_directory
from fate_gym.lab.jobs.find import find_jobs
from tests.lab.conftest import Run, job_directory, run_script

COLUMNS = {
    "suite",
    "cluster",
    "policy",
    "seed",
    "family",
    "instance",
    "stages",
    "makespan",
    "latency",
    "rr_makespan",
    "latency_ratio",
    "makespan_ratio",
    "lower_bound",
    "gap_to_bound",
    "state_intensity",
    "model_loads",
    "prefix_hit_rate",
    "decision_ms_p50",
}


def test_a_job_leaves_its_files_and_the_result_last(single: Run) -> None:
    directory = job_directory(single.root, "heft", 0)
    files = {path.name: path.stat().st_mtime_ns for path in directory.iterdir() if path.is_file()}
    assert set(files) == {
        "config.yaml",
        "decisions.parquet",
        "explained.json",
        "result.json",
        "shards.parquet",
        "trace.json",
        "workflows.parquet",
    }
    assert files["result.json"] == max(files.values())
    result = json.loads((directory / "result.json").read_text())
    assert result["status"] == "ok"
    assert directory.name == f"s0-{result['config_hash']}"
    assert "smoke/heft/s0" in single.done.stdout


def test_rows_hold_what_the_run_did(single: Run) -> None:
    directory = job_directory(single.root, "heft", 0)
    rows = pd.read_parquet(directory / "workflows.parquet")
    assert set(rows.columns) >= COLUMNS
    result = json.loads((directory / "result.json").read_text())
    assert len(rows) == result["workflows"]
    np.testing.assert_allclose(rows["latency_ratio"], rows["latency"] / rows["rr_latency"])
    np.testing.assert_allclose(rows["makespan_ratio"], rows["makespan"] / rows["rr_makespan"])
    assert (rows["gap_to_bound"] >= 1).all()
    assert result["means"]["latency_ratio"] == pytest.approx(rows["latency_ratio"].mean())
    shards = pd.read_parquet(directory / "shards.parquet")
    for schedule, column in (("heft", "latency"), ("round_robin", "rr_latency")):
        kept = shards[shards["schedule"] == schedule]
        for shown, part in kept.groupby("problem"):
            expected = rows.loc[rows["problem"] == shown, column].iloc[0]
            # Gathering the shards of the last stage may take a moment more than its last shard.
            assert part["end"].max() == pytest.approx(expected, rel=0.01)


def test_config_says_what_was_run_and_with_what(single: Run) -> None:
    config = yaml.safe_load((job_directory(single.root, "heft", 0) / "config.yaml").read_text())
    assert config["policy"]["name"] == "heft"
    assert len(config["cluster"]["devices"]) == 8
    assert {"numpy", "fate-gym", "python"} <= set(config["made_with"]["versions"])


def test_chrome_trace_opens(single: Run) -> None:
    trace = json.loads((job_directory(single.root, "heft", 0) / "trace.json").read_text())
    kinds = {event["ph"] for event in trace["traceEvents"]}
    assert kinds == {"M", "X", "C"}


def test_a_finished_job_is_skipped(single: Run) -> None:
    marker = job_directory(single.root, "heft", 0) / "result.json"
    before = marker.stat().st_mtime_ns
    again = run_script(
        "evaluate.py", "suite=smoke", "policy=heft", f"paths.runs={single.root.parent}"
    )
    assert again.returncode == 0
    assert again.stdout.startswith("smoke/heft/s0 on mixed_8")
    assert "latency / RoundRobin" in again.stdout
    assert f"done before; results: {marker.parent}" in again.stdout
    assert marker.stat().st_mtime_ns == before


def test_a_sweep_runs_the_grid_and_only_what_is_missing(sweep: Run, tmp_path: Path) -> None:
    assert [job.state for job in find_jobs(sweep.root)] == ["ok"] * 6
    root = tmp_path / "grid"
    shutil.copytree(sweep.root, root)
    killed = job_directory(root, "eft", 1) / "result.json"
    killed.unlink()
    kept = {path: path.stat().st_mtime_ns for path in root.glob("*/*/*/result.json")}
    again = run_script(
        "evaluate.py",
        "-m",
        "suite=smoke",
        "policy=round_robin,heft,eft",
        "seed=range(2)",
        "tracking=none",
        "name=grid",
        f"paths.runs={tmp_path}",
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == 5
    assert killed.exists()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_results_do_not_depend_on_the_process(sweep: Run, single: Run) -> None:
    columns = ["problem", "latency", "rr_latency", "lower_bound", "bytes_moved", "evictions"]
    tables = [
        pd.read_parquet(job_directory(root, "heft", 0) / "workflows.parquet")[columns]
        for root in (sweep.root, single.root)
    ]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_failed_jobs_do_not_stop_a_sweep_and_are_all_listed(tmp_path: Path) -> None:
    done = run_script(
        "evaluate.py",
        "-m",
        "suite=smoke",
        "policy=round_robin",
        "policy.target=tests.lab.sweep.failing:First,policies.heuristics:RoundRobin,"
        "tests.lab.sweep.failing:Second",
        "tracking=none",
        f"paths.runs={tmp_path}",
    )
    assert done.returncode == 1
    jobs = find_jobs(tmp_path / "default")
    assert sorted(job.state for job in jobs) == ["failed", "failed", "ok"]
    assert "error: 2 of 3 jobs failed:" in done.stderr
    for job in jobs:
        if job.state == "failed":
            assert done.stderr.count(job.directory.name) >= 1
            assert not (job.directory / "result.json").exists()
    assert "Traceback" not in done.stderr


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a directory")
    for arguments in (["policy=heft"], ["-m", "policy=heft,eft"]):
        done = run_script("evaluate.py", *arguments, "suite=smoke", f"paths.runs={file}/runs")
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {file}")
        assert "cannot write here" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert file.read_text() == "not a directory"


@pytest.mark.slow
def test_a_sweep_compiles_once_before_its_workers_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a store that lacks what every run calls first."""
    shutil.copytree(default_directory(), tmp_path / "store")
    monkeypatch.setenv("FATE_GYM_CACHE", str(tmp_path / "store"))
    lost = list((tmp_path / "store").glob("fate_gym.kernel.lookups.*.bin"))
    assert len(lost) > 3
    for path in lost:
        path.unlink()
    sweep = ("-m", "suite=smoke", "policy=round_robin,least_loaded,eft", "tracking=none")
    said = [
        run_script("evaluate.py", *sweep, f"name={name}", f"paths.runs={tmp_path}").stderr
        for name in ("first", "second")
    ]
    assert [text.count("compiling") for text in said] == [1, 0]
