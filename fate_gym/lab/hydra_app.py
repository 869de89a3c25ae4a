"""Runs a Hydra application whose mistakes end in one clear message and an exit code.

Exit codes: 0 done, 1 a job failed, 2 bad input (nothing ran), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fate_gym.errors import FateGymError, InputError, near_matches
from fate_gym.lab.results import newest_failures, unwritable

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from fate_gym.lab.launch import Plan

CONFIG_MODULE = "conf"
DRY_RUN = "--dry-run"

_FLAGS_WITH_VALUE = frozenset(
    "--config-dir -cd --config-path -cp --config-name -cn --package -p --cfg -c --info -i".split()  # noqa: SIM905
)
_FLAGS_THAT_RUN = frozenset(
    {"-m", "--multirun", "-r", "--run", *_FLAGS_WITH_VALUE} - {"-c", "--cfg", "-i", "--info"}
)


class JobFailedError(FateGymError):
    """A job failed; its directory holds the marker ``FAILED`` with the reason.

    Args:
        message: what happened and where the marker is.
        sweep: directory of the sweep that the job belongs to.
    """

    def __init__(self, message: str, sweep: Path) -> None:
        super().__init__(message, sweep)
        self.message = message
        self.sweep = sweep

    def __str__(self) -> str:
        return self.message


def run_hydra(
    task: Callable[[DictConfig], Any],
    arguments: Sequence[str],
    *,
    config_name: str,
    preview: Callable[[DictConfig, Sequence[str]], str],
) -> int:
    """Compose the configuration, run the job or the sweep, and return the exit code.

    Args:
        task: called with the composed configuration, once a job.
        arguments: Hydra's command line, without the program's name. With ``--dry-run`` the jobs
            are printed, and none runs.
        config_name: the primary configuration in ``conf/``.
        preview: a line about a job that may run, for ``--dry-run``; called with its configuration
            and the directories that ``--config-dir`` adds.
    """
    # Before numpy is imported, here or in a worker: BLAS reads it once.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from fate_gym.lab import launch

    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    started = time.time() - 1.0  # file systems round modification times
    caught: list[FateGymError] = []
    plan: Plan | None = None

    def quiet_task(config: DictConfig) -> Any:
        # Hydra announces every exception of a job; in a single run our message is enough. In a
        # sweep the launcher has to see it, and the job may be in another process.
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        try:
            return task(config)
        except Exception as error:
            hydra_config = HydraConfig.get()
            if hydra_config.mode == RunMode.MULTIRUN:
                launch.tell(Path(hydra_config.sweep.dir), "failed", _first_line(error))
                raise
            if traceback_wanted or not isinstance(error, FateGymError):
                raise
            caught.append(error)
            return None

    run = hydra.main(
        version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=config_name
    )
    try:
        dry = DRY_RUN in arguments
        arguments = [argument for argument in arguments if argument != DRY_RUN]
        if dry:
            return _dry_run(arguments, config_name, preview)
        plan = _plan(arguments, config_name)
        if plan is not None:
            launch.remember(plan, arguments)
        with _command_line(arguments), launch.following(plan) if plan else nullcontext():
            run(quiet_task)()
        if caught:
            raise caught[0]
        return 0
    except KeyboardInterrupt:
        _say("interrupted; the same command does what is missing")
        return 130
    except Exception as error:
        if traceback_wanted:
            raise
        if isinstance(error, HydraException | OmegaConfBaseException):
            _say(f"error: {explain(error, arguments, config_name)}")
        elif isinstance(error, JobFailedError):
            _say(*_failures(error, plan, started))
            return 1
        elif isinstance(error, InputError):
            _say(f"error: {error}")
        elif isinstance(error, OSError):
            _say(f"error: {unwritable('the output directory', error)}")
        elif plan is not None:
            # A worker that was killed, a machine that was lost: the launcher's own errors.
            _say(
                f"error: the sweep broke off: {_first_line(error)}",
                "The same command does what is missing; HYDRA_FULL_ERROR=1 shows where it broke.",
            )
            return 1
        else:
            raise
        return 2


def _plan(arguments: Sequence[str], config_name: str) -> Plan | None:
    """The sweep that a command line asks for; None for a single job, or to show something."""
    from hydra import initialize_config_module
    from hydra.types import RunMode

    from fate_gym.lab.launch import compose_sweep, plan_sweep

    if any(flag.startswith("-") and flag not in _FLAGS_THAT_RUN for flag in arguments):
        return None
    overrides, extra = _split(arguments)
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = compose_sweep(config_name, overrides, extra)
        wanted = config.hydra.mode == RunMode.MULTIRUN or {"-m", "--multirun"} & set(arguments)
        return plan_sweep(config) if wanted else None


def _dry_run(
    arguments: Sequence[str],
    config_name: str,
    preview: Callable[[DictConfig, Sequence[str]], str],
) -> int:
    from hydra import initialize_config_module

    from fate_gym.lab.launch import compose_sweep, job_configs, plan_sweep

    overrides, extra = _split(arguments)
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = compose_sweep(config_name, overrides, extra)
        plan = plan_sweep(config)
        if plan.jobs is None:
            print(f"a search of {plan.total} jobs, chosen as it goes, in {plan.directory}")
            return 0
        for job in job_configs(config, plan):
            print(preview(job, extra), flush=True)
    print(f"{plan.total} jobs in {plan.directory}; nothing ran")
    return 0


@contextmanager
def _command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``; with its full-error switch it raises instead of exiting."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error


def _say(*lines: str) -> None:
    sys.stdout.flush()
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines() or [""]
    if isinstance(error, FateGymError):
        return text[0]
    return f"{type(error).__name__}: {text[0]}"


def _failures(error: JobFailedError, plan: Plan | None, started: float) -> list[str]:
    """What to say of a job that failed, or of every job of a sweep that failed since it started."""
    if plan is None:
        return [f"error: {error}"]
    lines = []
    for where, why, log in newest_failures(error.sweep, started):
        lines += [f"  {where}: {why}", f"    log: {log}"]
    return [
        f"error: {len(lines) // 2} of {plan.total} jobs failed:",
        *lines,
        "The same command runs them again, and what is missing.",
    ]


def explain(error: Exception, arguments: Sequence[str], config_name: str) -> InputError:
    """Hydra's error as one message with near matches."""
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, OverrideParseException):
        return InputError(
            f"cannot read the option {error.override!r}",
            remedy="write options as name=value, and quote values with commas, brackets or spaces",
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return InputError(f"unknown {group} {choice!r}", remedy=near_matches(choice, error.options))
    unknown = _first_unknown_option(arguments, config_name)
    if unknown is not None:
        return unknown
    message = str(error).strip().splitlines()
    return InputError(message[0].rstrip("."), remedy="see --help")


def _first_unknown_option(arguments: Sequence[str], config_name: str) -> InputError | None:
    """The first override that names nothing, found by composing without the others."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    overrides, extra = _split(arguments)
    GlobalHydra.instance().clear()
    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        groups = {group for group in loader.list_groups("") if group != "hydra"}
        parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
        choices = {}
        for item in parsed:
            value = _one_value(item)
            if item.key_or_group in groups and isinstance(value, str):
                choices[item.key_or_group] = value
        config = compose(
            config_name,
            overrides=[f"{group}={choice}" for group, choice in choices.items()]
            + [f"hydra.searchpath=[{','.join(f'file://{Path(d).absolute()}' for d in extra)}]"],
        )
    values = OmegaConf.to_container(config)
    assert isinstance(values, dict)
    known = dict.fromkeys(groups) | values
    faults = (
        _unknown_part(item.key_or_group.split("."), known)
        for item in parsed
        if not item.is_add() and item.key_or_group not in groups
    )
    return next((fault for fault in faults if fault), None)


def _unknown_part(path: Sequence[str], known: Any) -> InputError | None:
    if path[0] == "hydra":
        return None
    for depth, part in enumerate(path):
        if depth == 1 and known is None:
            return not_chosen(path[0])
        if isinstance(known, dict) and part in known:
            known = known[part]
            continue
        if isinstance(known, dict) and known:
            remedy = near_matches(part, known)
        else:
            remedy = f"there is nothing below {'.'.join(path[:depth])!r}"
        return InputError(f"unknown option {'.'.join(path)!r}", remedy=remedy)
    return None


def not_chosen(group: str) -> InputError:
    """The error for a group that has to be chosen."""
    return InputError(f"no {group} chosen", remedy=f"add {group}=NAME (--help lists the choices)")


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Hydra's command line: its overrides, and the directories that ``--config-dir`` adds."""
    overrides, extra = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument in _FLAGS_WITH_VALUE:
            value = next(rest, "")
            if argument in ("--config-dir", "-cd"):
                extra.append(value)
        elif not argument.startswith("-"):
            overrides.append(argument)
    return overrides, extra


def _one_value(item: Any) -> Any:
    """The value of an override, or the first value of a sweep over names."""
    if not item.is_sweep_override():
        return item.value()
    if not item.is_discrete_sweep():
        return None
    return next((str(value) for value in item.sweep_string_iterator()), None)
