"""Runs a Hydra application, turning errors into one clear message and an exit code.

Exit codes: 0 done, 1 a job failed, 2 bad input (nothing ran), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fate_gym.errors import FateGymError, InputError
from fate_gym.lab.errors import JobFailedError, first_line, unwritable
from fate_gym.lab.jobs.directory import failures_since
from fate_gym.lab.sweep.arguments import (
    DRY_RUN,
    command_line,
    ordered,
    runs_jobs,
    split,
    wants_sweep,
)
from fate_gym.lab.sweep.check import Check, checked
from fate_gym.lab.sweep.command import save_command
from fate_gym.lab.sweep.compose import (
    CONFIG_MODULE,
    check_directories,
    compose_sweep,
    hydra_ready,
)
from fate_gym.lab.sweep.lock import locked
from fate_gym.lab.sweep.mistakes import explain
from fate_gym.lab.sweep.parent import end_with
from fate_gym.lab.sweep.plan import Plan, job_configs, plan_sweep
from fate_gym.lab.sweep.progress import Entry, add_entry, following, kind_of

Task = Callable[[DictConfig], Any]
Preview = Callable[[DictConfig, Sequence[str]], str]
Prepare = Callable[[Plan], None]


def run_hydra(
    task: Task,
    arguments: Sequence[str],
    *,
    config_name: str,
    preview: Preview,
    check: Check,
    prepare: Prepare | None = None,
    then: str | None = None,
) -> int:
    """Compose the configuration, run the job or the sweep, and return the exit code.

    Args:
        task: called once per job, with the composed configuration.
        arguments: Hydra's command line, without the program's name. With ``--dry-run`` the jobs
            are only printed.
        config_name: the primary configuration in ``conf/``.
        preview: returns a line about a job for ``--dry-run``; called with its configuration and
            the directories that ``--config-dir`` adds.
        check: checks a job's configuration, before any job of a sweep starts.
        prepare: called with a sweep before its jobs start.
        then: command to suggest after a sweep, to be followed by the sweep's directory.
    """
    # Workers inherit this; BLAS reads it once, when numpy is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    started = time.time() - 1.0  # file systems round modification times
    plan: Plan | None = None
    try:
        arguments = ordered(arguments)
        check_directories(split(arguments)[1], config_name)
        if DRY_RUN in arguments:
            arguments = [argument for argument in arguments if argument != DRY_RUN]
            return _dry_run(arguments, config_name, preview)
        plan = _plan(arguments, config_name, check)
        with locked(plan.directory) if plan else nullcontext():
            if plan is not None:
                save_command(plan, arguments)
                if prepare is not None:
                    prepare(plan)
            with command_line(arguments), following(plan) if plan else nullcontext():
                _run(task, config_name, full_error)
        if plan is not None and then is not None:
            print(
                f"{plan.total} jobs in {plan.directory}; next: {then} {plan.directory}", flush=True
            )
        return 0
    except KeyboardInterrupt:
        _say("interrupted; re-run the same command to resume")
        return 130
    except BrokenPipeError:
        raise  # the reader has gone; `fate_gym.lab.cli` ends quietly
    except Exception as error:
        if full_error:
            raise
        if isinstance(error, HydraException | OmegaConfBaseException):
            error = explain(error, arguments, config_name)
        return _exit_code(error, plan, started)


def _run(task: Task, config_name: str, full_error: bool) -> None:
    """Let Hydra call the task, once or for each job of a sweep. Raises what the task raises."""
    caught: list[FateGymError] = []
    starter = os.getpid()

    def quiet_task(config: DictConfig) -> Any:
        # Hydra prints every exception of a job; in a single run our message is enough. In a sweep
        # the launcher must see the exception, and the job may run in another process.
        hydra_config = HydraConfig.get()
        # Only for joblib: workers on other machines have other parents.
        if "joblib" in str(hydra_config.launcher.get("_target_")):
            end_with(starter)
        try:
            return task(config)
        except Exception as error:
            if hydra_config.mode == RunMode.MULTIRUN:
                add_entry(
                    Path(hydra_config.sweep.dir),
                    Entry("failed", first_line(error), kind_of(hydra_config.overrides.task)),
                )
                raise
            if full_error or not isinstance(error, FateGymError):
                raise
            caught.append(error)
            return None

    path = f"pkg://{CONFIG_MODULE}"
    hydra.main(version_base="1.3", config_path=path, config_name=config_name)(quiet_task)()
    if caught:
        raise caught[0]


def _exit_code(error: Exception, plan: Plan | None, started: float) -> int:
    """Print what went wrong and return the exit code. Re-raises unexpected errors."""
    if isinstance(error, JobFailedError):
        _say(*_failures(error, plan, started))
        return 1
    if isinstance(error, InputError | OSError):
        fault = error if isinstance(error, InputError) else unwritable("output directory", error)
        _say(f"error: {fault}")
        return 2
    if plan is None:
        raise error
    # Errors of the launcher itself: a worker was killed, a machine was lost.
    _say(
        f"error: sweep aborted: {first_line(error)}",
        "Re-run the same command to resume; HYDRA_FULL_ERROR=1 shows where it stopped.",
    )
    return 1


def _plan(arguments: Sequence[str], config_name: str, check: Check) -> Plan | None:
    """Plan the sweep that a command line asks for; None: a single job, or nothing to run."""
    if not runs_jobs(arguments):
        return None
    with hydra_ready():
        overrides, extra = split(arguments)
        config = compose_sweep(config_name, overrides, extra)
        if config.hydra.mode != RunMode.MULTIRUN and not wants_sweep(arguments):
            return None
        return checked(plan_sweep(config), config, extra, check)


def _dry_run(arguments: Sequence[str], config_name: str, preview: Preview) -> int:
    overrides, extra = split(arguments)
    with hydra_ready():
        config = compose_sweep(config_name, overrides, extra)
        plan = plan_sweep(config)
        if plan.jobs is None:
            print(f"a search of {plan.total} jobs, chosen as it goes, in {plan.directory}")
            return 0
        for job in job_configs(config, plan):
            print(preview(job, extra), flush=True)
    print(f"{plan.total} jobs in {plan.directory}; nothing ran")
    return 0


def _failures(error: JobFailedError, plan: Plan | None, started: float) -> list[str]:
    """Describe the failed job, or every job of a sweep that failed since it started."""
    if plan is None:
        return [f"error: {error}"]
    failed = list(failures_since(error.sweep, started))
    if not failed:  # a full disk may have no room for markers
        return [f"error: {error}"]
    return [
        f"error: {len(failed)} of {plan.total} jobs failed:",
        *(f"  {where}: {why}\n    log: {log}" for where, why, log in failed),
        "Re-run the same command to run them again, and what is missing.",
    ]


def _say(*lines: str) -> None:
    sys.stdout.flush()
    print(*lines, sep="\n", file=sys.stderr, flush=True)
