"""``python scripts/evaluate.py``: one job, or a sweep of jobs, through Hydra."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fate_gym.lab.hydra_app import run_hydra

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fate_gym.lab.config import EvaluateConfig


def evaluate(config: DictConfig) -> float:
    """The task that Hydra calls once a job. Returns the mean normalised makespan (for sweepers)."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from fate_gym.lab.console import job_line, print_job
    from fate_gym.lab.job import run_job
    from fate_gym.lab.launch import tell

    hydra = HydraConfig.get()
    # --config-dir: a user's own suites may name the user's own clusters.
    own = [
        source.path
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" and source.schema == "file"
    ]
    alone = hydra.mode == RunMode.RUN
    outcome = run_job(_checked(config, own), overrides=list(hydra.overrides.task), progress=alone)
    if outcome.skipped:
        line = f"{outcome.result.title}: done before, {outcome.directory}"
    else:
        line = job_line(outcome.result)
    if outcome.warning:
        line += f"\nwarning: {outcome.warning}"
    if not alone:
        tell(Path(hydra.sweep.dir), "skipped" if outcome.skipped else "done", line)
    elif outcome.skipped:
        print(line, flush=True)
    else:
        print_job(outcome.result)
        print(f"results: {outcome.directory}", flush=True)
        if outcome.warning:
            print(f"warning: {outcome.warning}", file=sys.stderr, flush=True)
    return outcome.result.means["normalised"]


def preview(config: DictConfig, extra_dirs: Sequence[str]) -> str:
    """A line about a job: whether it would run, its title, and its directory."""
    from fate_gym.lab.results import job_state

    checked = _checked(config, extra_dirs)
    state = job_state(checked.run_directory)
    return f"{state or 'new':10} {checked.title:40} {checked.run_directory}"


def _checked(config: DictConfig, extra_dirs: Sequence[str]) -> EvaluateConfig:
    from omegaconf import OmegaConf, open_dict

    from fate_gym.lab.config import parse_config

    with open_dict(config):
        config.pop("hydra", None)  # there when Hydra did not hand the configuration to a task
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(values, dict)
    return parse_config({str(name): value for name, value in values.items()}, extra_dirs=extra_dirs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); returns the exit code."""
    return run_hydra(
        evaluate,
        sys.argv[1:] if arguments is None else arguments,
        config_name="config",
        preview=preview,
    )
