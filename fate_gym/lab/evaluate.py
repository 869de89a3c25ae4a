"""``python scripts/evaluate.py``: one job, or a sweep of jobs, through Hydra."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fate_gym.lab.hydra_app import run_hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig


def evaluate(config: DictConfig) -> float:
    """The task that Hydra calls once a job. Returns the mean normalised makespan (for sweepers)."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from fate_gym.lab.config import parse_config
    from fate_gym.lab.console import job_line, print_job
    from fate_gym.lab.job import run_job

    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    hydra = HydraConfig.get()
    alone = hydra.mode == RunMode.RUN
    # --config-dir: a user's own suites may name the user's own clusters.
    own = [
        source.path
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" and source.schema == "file"
    ]
    checked = parse_config({str(name): value for name, value in values.items()}, extra_dirs=own)
    outcome = run_job(checked, overrides=list(hydra.overrides.task), progress=alone)
    if outcome.skipped:
        print(f"{outcome.result.title}: done before, {outcome.directory}", flush=True)
    elif alone:
        print_job(outcome.result)
        print(f"results: {outcome.directory}", flush=True)
    else:
        # One write: the workers of a sweep share the terminal.
        print(f"{job_line(outcome.result)}\n", end="", flush=True)
    if outcome.warning:
        print(f"warning: {outcome.warning}", file=sys.stderr, flush=True)
    return outcome.result.means["normalised"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); returns the exit code."""
    return run_hydra(
        evaluate, sys.argv[1:] if arguments is None else arguments, config_name="config"
    )
