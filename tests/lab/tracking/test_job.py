"""W&B, for real and offline: the run can be read back from its directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fate_gym.lab.config import TrackingConfig
from fate_gym.lab.jobs.result import read_result
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.tracking.job import track, track_again
from tests.lab.conftest import ROOT, Run, job_config, job_directory


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
        record["history"]["item"]["latency_ratio"]
        for record in records
        if record["type"] == "history" and "latency_ratio" in record["history"]["item"]
    ]
    assert sum(values) / len(values) == pytest.approx(result.means["latency_ratio"])
    kinds = {record["artifact"]["type"] for record in records if record["type"] == "artifact"}
    assert "results" in kinds


def test_everything_stays_in_the_run_directory(directory: Path) -> None:
    assert list((directory / "wandb" / "data" / "artifacts" / "staging").iterdir())


def test_without_tracking_nothing_is_written(sweep: Run) -> None:
    assert not list(sweep.root.glob("**/wandb"))


@pytest.fixture
def copy(sweep: Run, tmp_path: Path) -> Path:
    """Copy a sweep of one finished job that was not tracked."""
    source = job_directory(sweep.root, "heft", 0)
    root = tmp_path / "grid"
    shutil.copytree(source, root / "smoke" / "heft" / source.name)
    return root


def _track_in_a_process(root: Path, code: str = "", options: str = "", **environment: str) -> str:
    """Run ``fate-gym track`` in a subprocess, which must also exit cleanly."""
    text = f"import sys\n{code}\nfrom fate_gym.lab.cli import main\nsys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", text, "track", str(root), *options.split()],
        env={k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == (0 if done.stdout.endswith(": logged\n") else 1)
    return done.stdout


@pytest.mark.slow
def test_a_finished_job_can_be_logged_again_from_its_files(copy: Path) -> None:
    assert _track_in_a_process(copy) == "smoke/heft/s0: logged\n"
    summary = json.loads(_inspect(job_directory(copy, "heft", 0), "--summary"))
    assert summary["summary"]["workflows"]["nrows"] == 2


@pytest.mark.slow
def test_without_a_login_the_run_is_kept_offline(copy: Path, tmp_path: Path) -> None:
    said = _track_in_a_process(copy, options="--mode online", NETRC=str(tmp_path / "none"))
    assert "W&B was not reached for smoke/heft/s0 (UsageError: No API key" in said
    assert "wandb sync" in said
    assert list(job_directory(copy, "heft", 0).glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_without_a_network_the_run_is_kept_offline(copy: Path) -> None:
    code = "import fate_gym.lab.tracking.wandb_run as t; t.TIMEOUT_SECONDS = 2"
    said = _track_in_a_process(
        copy,
        code,
        options="--mode online",
        WANDB_API_KEY="0" * 40,
        WANDB_BASE_URL="http://127.0.0.1:9",
    )
    assert "W&B was not reached for smoke/heft/s0 (CommError" in said
    assert list(job_directory(copy, "heft", 0).glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.slow
def test_a_wandb_process_that_is_killed_costs_a_warning(copy: Path) -> None:
    code = """
import os, signal
from pathlib import Path
from fate_gym.lab.tracking import job
def killing(directory, real=job._gantt):
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            pid, name, _, parent = stat.read_text().split()[:4]
        except OSError:
            continue
        if 'wandb' in name and int(parent) == os.getpid():
            os.kill(int(pid), signal.SIGKILL)
    return real(directory)
job._gantt = killing
"""
    said = _track_in_a_process(copy, code)
    assert said.startswith("smoke/heft/s0: logging smoke/heft/s0 to W&B failed: ")
    assert "the results are on disk" in said
    assert read_result(job_directory(copy, "heft", 0)) is not None


@pytest.mark.slow
def test_a_full_disk_costs_a_warning(copy: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 4 * (2 + sum(-(-path.stat().st_size // 4096) for path in copy.rglob("*.*"))) + 40
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        shutil.copytree(copy, disk / "grid")
        before = {p: p.read_bytes() for p in (disk / "grid").rglob("*") if p.is_file()}
        said = _track_in_a_process(disk / "grid")
        assert "logging smoke/heft/s0 to W&B failed: OSError: [Errno 28] No space left" in said
        assert {p: p.read_bytes() for p in before} == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_place_that_cannot_be_written_costs_a_warning(copy: Path) -> None:
    (job_directory(copy, "heft", 0) / "wandb").write_text("in the way")
    ((_, warning),) = track_again(copy, TrackingConfig(mode="offline"))
    assert warning is not None
    assert "NotADirectoryError" in warning


def test_tracking_that_fails_costs_a_warning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def init(**_: object) -> None:
        raise wandb.errors.CommError("no route\nto host")

    monkeypatch.setattr(wandb, "init", init)
    config = job_config(tmp_path).model_copy(update={"tracking": TrackingConfig(mode="offline")})
    outcome = run_job(config)
    warning = track(config.tracking, outcome.result, outcome.directory)
    assert warning is not None
    assert warning.startswith("logging smoke/heft/s0 to W&B failed: CommError: no route; ")
    assert read_result(config.run_directory) == outcome.result
