"""Real runs that several tests share; each is made once per session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fate_gym.lab.jobs.config import EvaluateConfig, parse_config
from fate_gym.lab.jobs.result import JobResult, write_result
from fate_gym.workloads import load_suite
from policies.registry import policy_specs

ROOT = Path(__file__).resolve().parents[2]

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Run:
    """A finished command and the directory of its sweep."""

    root: Path
    done: subprocess.CompletedProcess[str]


def command(name: str, *arguments: object) -> list[str]:
    """Return the command line of one of the project's scripts."""
    return [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment variables of the project's commands."""
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts as a user does."""
    return subprocess.run(
        command(name, *arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def job_directory(root: Path, policy: str, seed: int, suite: str = "smoke") -> Path:
    """Return the run directory of a job that a sweep has once."""
    (found,) = (root / suite / policy).glob(f"s{seed}-*")
    return found


def edit_result(path: Path, **changes: object) -> None:
    """Change fields of a ``result.json``, which stays intact; other files may have changed, too."""
    result = json.loads(path.read_text()) | {"checksums": {}}
    write_result(path.parent, JobResult.model_validate(result | changes))


def job_config(
    runs: Path,
    policy: str = "heft",
    seed: int = 0,
    suite: dict[str, Any] | None = None,
    **params: object,
) -> EvaluateConfig:
    """Return a job on suite smoke without tracking; ``params`` override the policy's."""
    spec = policy_specs()[policy]
    return parse_config(
        {
            "suite": suite or load_suite("smoke").model_dump(),
            "policy": spec.model_dump() | {"params": spec.params | params},
            "seed": seed,
            "tracking": {"mode": "none"},
            "paths": {"runs": str(runs)},
        }
    )


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run one job with every output: W&B offline and a Chrome trace."""
    runs = tmp_path_factory.mktemp("single")
    done = run_script(
        "evaluate.py", "suite=smoke", "policy=heft", "trace=true", f"paths.runs={runs}"
    )
    assert done.returncode == 0, done.stderr
    return Run(runs / "default", done)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run six jobs through joblib: three policies, two seeds, all traced."""
    runs = tmp_path_factory.mktemp("sweep")
    done = run_script(
        "evaluate.py",
        "-m",
        "suite=smoke",
        "policy=round_robin,heft,eft",
        "seed=range(2)",
        "tracking=none",
        "name=grid",
        f"paths.runs={runs}",
        "trace=true",
    )
    assert done.returncode == 0, done.stderr
    return Run(runs / "grid", done)
