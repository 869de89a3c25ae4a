"""Sweeps on joblib, Ray, submitit and Optuna: killed, resumed, and losing a machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra import initialize_config_module

from fate_gym.lab import evaluate
from fate_gym.lab.config import ReportConfig
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.report.write import make_report
from fate_gym.lab.sweep.command import SWEEP
from fate_gym.lab.sweep.compose import compose_sweep
from fate_gym.lab.sweep.plan import job_configs, plan_sweep
from fate_gym.lab.sweep.progress import JOURNAL
from tests.lab.conftest import ROOT, Run, command, environment, run_script

GRID = ("-m", "suite=smoke", "policy=round_robin,heft,eft", "seed=range(2)", "tracking=none")


def _until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for an effect of a process; fail if the process ends, or after two minutes."""
    for _ in range(2400):
        if condition():
            return
        if process.poll() is not None:
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"nothing in two minutes: {process.communicate()}")


def _start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command("evaluate.py", *arguments),
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _journal(root: Path) -> list[dict[str, object]]:
    path = root / JOURNAL
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _waiting(folder: Path) -> tuple[str, ...]:
    """Return options for a policy that waits for the file ``go`` in a folder."""
    folder.mkdir()
    target = "policy.target=tests.lab.sweep.waiting:Waiting"
    return "policy=round_robin", target, f"+policy.params.folder={folder}"


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_its_summary_is_that_of_an_unbroken_one(
    sweep: Run, tmp_path: Path
) -> None:
    root = tmp_path / "grid"
    arguments = (*GRID, "name=grid", f"paths.runs={tmp_path}")
    process = _start(*arguments)
    _until(lambda: len(_journal(root)) >= 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {job.directory for job in find_jobs(root) if job.state == "ok"}
    assert 2 <= len(before) < 6

    preview = run_script("evaluate.py", *arguments, "--dry-run").stdout
    assert preview.count("\ndone ") + preview.startswith("done ") == len(before)
    assert preview.splitlines()[-1] == f"6 jobs in {root}; nothing ran"

    again = run_script("evaluate.py", *arguments)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("done before") == len(before)
    *_, last, then = again.stdout.splitlines()
    assert last.startswith("[6/6] ")
    assert then == f"6 jobs in {root}; next: fate-gym report {root}"
    unbroken = Path(shutil.copytree(sweep.root, tmp_path / "unbroken"))
    summaries = []
    for directory in (root, unbroken):
        make_report(directory)
        summary = pd.read_csv(directory / "summary.csv")
        summaries.append(summary.drop(columns=["decision_ms_p50", "decision_ms_p99"]))
    pd.testing.assert_frame_equal(*summaries, check_exact=True)


def test_a_dry_run_shows_the_jobs_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert evaluate.main(["experiment=main", "policy=heft,eft", "seed=range(2)", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["new", f"quick/{policy}/s{seed}"] for policy in ("heft", "eft") for seed in (0, 1)
    ]
    assert lines[-1] == "4 jobs in runs/main; nothing ran"
    assert evaluate.main(["suite=smoke", "policy=heft", "--dry-run"]) == 0
    assert capsys.readouterr().out.endswith("\n1 jobs in runs/default; nothing ran\n")
    assert evaluate.main(["suite=smoke", "policy=hefft", "--dry-run"]) == 2
    assert "did you mean 'heft'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "none"])
def test_every_experiment_composes(name: str, tmp_path: Path) -> None:
    with initialize_config_module("conf", version_base="1.3"):
        # Elsewhere than runs/, where jobs of this machine may lie.
        config = compose_sweep("config", [f"experiment={name}", f"paths.runs={tmp_path}"], [])
        plan = plan_sweep(config)
        assert plan.jobs, "an experiment is a sweep"
        ReportConfig.model_validate(plan.report)
        # A few jobs from the first to the last: mistakes are in the values, not in their product.
        chosen = plan.jobs[:: max(1, len(plan.jobs) // 6)] + plan.jobs[-1:]
        for job in job_configs(config, replace(plan, jobs=chosen)):
            assert evaluate.preview(job, []).split()[0] == "new"


def test_a_sweep_keeps_its_command(sweep: Run) -> None:
    kept = yaml.safe_load((sweep.root / SWEEP).read_text())
    rest = ("name=grid", f"paths.runs={sweep.root.parent}", "trace=true")
    assert kept["commands"] == [[*GRID, *rest]]
    assert kept["jobs"] == {
        f"smoke/{policy}/s{seed}": 1 for policy in ("round_robin", "heft", "eft") for seed in (0, 1)
    }
    places = [line.split("]")[0].split(",")[0] for line in sweep.done.stdout.splitlines()[:-1]]
    assert places == [f"[{number}/6" for number in range(1, 7)]


def test_a_worker_that_is_killed_breaks_the_sweep_off_with_one_message(tmp_path: Path) -> None:
    folder = tmp_path / "signs"
    process = _start("-m", "suite=smoke", *_waiting(folder), "tracking=none", "seed=0,1",
                     f"paths.runs={tmp_path}")  # fmt: skip
    _until(lambda: bool(list(folder.glob("process-*"))), process)
    os.kill(int(next(folder.glob("process-*")).name.removeprefix("process-")), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("error: sweep aborted: TerminatedWorkerError")
    assert "Re-run the same command to resume" in err
    assert "Traceback" not in err


def test_a_sweep_through_submitit(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    done = run_script(
        "evaluate.py",
        "sweep=submitit",
        "hydra/launcher=submitit_local",
        "suite=smoke",
        "policy=heft,eft",
        "tracking=none",
        f"paths.runs={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    assert {job.state for job in find_jobs(tmp_path / "default")} == {"ok"}
    assert len(list((tmp_path / "default" / ".submitit").glob("*/*_log.out"))) == 2


@pytest.mark.slow
def test_a_search_finds_the_better_value_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options = (
        "sweep=optuna",
        "suite=smoke",
        "policy=heft",
        "policy.params.max_shards=choice(1,2,4)",
        "tracking=none",
        "name=tune",
        f"paths.runs={tmp_path}",
    )
    first = run_script("evaluate.py", *options, "hydra.sweeper.n_trials=2")
    assert first.returncode == 0, first.stderr
    tried = {job.directory for job in find_jobs(tmp_path / "tune")}
    again = run_script("evaluate.py", *options, "hydra.sweeper.n_trials=4")
    assert again.returncode == 0, again.stderr
    # The first trials are the same ones: they are not run again.
    assert again.stdout.count("done before") >= 2
    jobs = find_jobs(tmp_path / "tune")
    assert tried <= {job.directory for job in jobs}
    found = yaml.safe_load((tmp_path / "tune" / "optimization_results.yaml").read_text())
    values = {
        job.result.params["max_shards"]: job.result.means["latency_ratio"]
        for job in jobs
        if job.result is not None
    }
    best = found["best_params"]["policy.params.max_shards"]
    assert found["best_value"] == values[best] == min(values.values())


@pytest.fixture
def cluster() -> Iterator[subprocess.Popen[str]]:
    """Start a Ray cluster of two raylets; standard input can tell it to lose one."""
    pytest.importorskip("ray")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "lab" / "sweep" / "ray_cluster.py")],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate("end\n", timeout=60)


@pytest.mark.slow
def test_a_sweep_on_a_ray_cluster_survives_the_loss_of_a_machine(
    cluster: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert cluster.stdin is not None and cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    assert address, cluster.communicate()
    folder = tmp_path / "signs"
    sweep = _start(
        "sweep=ray",
        f"hydra.launcher.ray.init.address={address}",
        "suite=smoke",
        *_waiting(folder),
        "seed=0,1,2",
        "tracking=none",
        f"paths.runs={tmp_path}",
    )
    # Two jobs have begun, one on each of the two machines, which have one processor each.
    _until(lambda: len(list(folder.glob("process-*"))) == 2, sweep)
    cluster.stdin.write("lose\n")
    cluster.stdin.flush()
    assert cluster.stdout.readline() == "lost\n"
    (folder / "go").touch()
    out, err = sweep.communicate(timeout=120)
    assert sweep.returncode == 0, err
    assert [job.state for job in find_jobs(tmp_path / "default")] == ["ok"] * 3
    assert "[3/3] " in out
