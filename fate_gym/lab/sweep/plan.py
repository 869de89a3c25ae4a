"""The jobs of a sweep, before any of them runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from fate_gym.errors import InputError
from fate_gym.lab.sweep.grid import grid_jobs, parse_options


@dataclass(frozen=True)
class Plan:
    """A sweep that is about to run.

    Attributes:
        directory: directory of the sweep.
        total: number of jobs.
        jobs: overrides of each job; None if a search chooses them as it goes.
        report: settings of the sweep's report; see `fate_gym.lab.config.ReportConfig`.
        cells: number of jobs of each ``suite/policy/s<seed>``, if known.
    """

    directory: Path
    total: int
    jobs: list[list[str]] | None
    report: dict[str, Any]
    cells: dict[str, int] = field(default_factory=dict)


def plan_sweep(config: DictConfig) -> Plan:
    """Plan the jobs of a composed sweep.

    Raises:
        InputError: a pattern matches nothing, so there are no jobs (Hydra does not report this).
    """
    sweeper = config.hydra.sweeper
    directory = Path(str(config.hydra.sweep.dir))
    report = OmegaConf.to_container(config.report) if "report" in config else {}
    assert isinstance(report, dict)
    spec = {str(name): value for name, value in report.items()}
    if "n_trials" in sweeper:
        return Plan(directory, int(sweeper.n_trials), None, spec)
    wanted = [f"{name}={values}" for name, values in (sweeper.params or {}).items()]
    wanted += list(config.hydra.overrides.task)
    overrides = parse_options(wanted)
    for item in overrides:
        if item.is_discrete_sweep() and not list(item.sweep_string_iterator()):
            raise InputError(
                f"no {item.key_or_group} matches {item.input_line!r}", remedy="see --help"
            )
    jobs = grid_jobs(overrides, sweeper.get("settings"))
    return Plan(directory, len(jobs), jobs, spec)


def job_configs(config: DictConfig, plan: Plan) -> Iterator[DictConfig]:
    """Yield the configuration of each job of a planned sweep."""
    loader = GlobalHydra.instance().config_loader()
    for overrides in plan.jobs or []:
        yield loader.load_sweep_config(config, overrides)
