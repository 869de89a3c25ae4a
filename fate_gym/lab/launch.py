"""A sweep before it runs and while it runs: its jobs, how far it is, and when it will end.

Jobs run in other processes, or on other machines. Each tells the sweep's journal how it ended, a
line a job; the process that started the sweep follows that file. So progress looks the same
whatever launches the jobs, and nothing but the result directory is shared.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode

from fate_gym.errors import InputError
from fate_gym.lab.results import write_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

JOURNAL = "jobs.jsonl"
SWEEP = "sweep.yaml"

State = Literal["done", "skipped", "failed"]

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Plan:
    """A sweep that is about to run.

    Attributes:
        directory: of the sweep.
        total: number of jobs.
        jobs: the overrides of each job; None if a search makes them up as it goes.
        report: what the sweep's report shows; see `fate_gym.lab.config.ReportConfig`.
    """

    directory: Path
    total: int
    jobs: list[list[str]] | None
    report: dict[str, Any]


def compose_sweep(config_name: str, overrides: Sequence[str], extra: Sequence[str]) -> DictConfig:
    """The configuration of a sweep, without the values that differ from job to job.

    Args:
        config_name: the primary configuration.
        overrides: of the command line.
        extra: directories that ``--config-dir`` adds.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    places = ",".join(f"file://{Path(place).absolute()}" for place in extra)
    return hydra.compose_config(
        config_name,
        [*overrides, *([f"hydra.searchpath=[{places}]"] if extra else [])],
        run_mode=RunMode.MULTIRUN,
        with_log_configuration=False,
        validate_sweep_overrides=False,
    )


def job_configs(config: DictConfig, plan: Plan) -> Iterator[DictConfig]:
    """The configuration of each job of a planned sweep."""
    loader = GlobalHydra.instance().config_loader()
    for overrides in plan.jobs or []:
        yield loader.load_sweep_config(config, overrides)


def plan_sweep(config: DictConfig) -> Plan:
    """The jobs of a composed sweep.

    Raises:
        InputError: a pattern matches nothing, so that there are no jobs (Hydra is silent about it).
    """
    from omegaconf import OmegaConf

    sweeper = config.hydra.sweeper
    directory = Path(str(config.hydra.sweep.dir))
    report = OmegaConf.to_container(config.report) if "report" in config else {}
    assert isinstance(report, dict)
    spec = {str(name): value for name, value in report.items()}
    if "n_trials" in sweeper:
        return Plan(directory, int(sweeper.n_trials), None, spec)
    wanted = [f"{name}={values}" for name, values in (sweeper.params or {}).items()]
    wanted += list(config.hydra.overrides.task)
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(wanted)
    for item in overrides:
        if item.is_discrete_sweep() and not list(item.sweep_string_iterator()):
            raise InputError(
                f"no {item.key_or_group} matches {item.input_line!r}", remedy="see --help"
            )
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return Plan(directory, len(jobs), jobs, spec)


def remember(plan: Plan, arguments: Sequence[str]) -> None:
    """Keep the command of a sweep, and what its report shows, beside the results."""
    known = read_remembered(plan.directory)
    commands = [list(map(str, command)) for command in known.get("commands", [])]
    if list(arguments) not in commands:
        commands.append(list(arguments))
    report = plan.report if any(plan.report.values()) else known.get("report", {})
    plan.directory.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"commands": commands, "report": report}, sort_keys=False)
    write_text(plan.directory / SWEEP, text)


def read_remembered(directory: Path) -> dict[str, Any]:
    """What `remember` wrote; empty if nothing was, or if it cannot be read."""
    try:
        values = yaml.safe_load((directory / SWEEP).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return values if isinstance(values, dict) else {}


def tell(directory: Path, state: State, line: str) -> None:
    """Add a job to the journal of a sweep, from whichever process it ran in."""
    entry = json.dumps({"time": round(time.time(), 3), "state": state, "line": line}) + "\n"
    try:
        # One write of a short line with O_APPEND: lines of several processes do not mix.
        descriptor = os.open(directory / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, entry.encode())
        finally:
            os.close(descriptor)
    except OSError:
        # The journal only shows progress: a full disk is the job's business to report.
        print(line, flush=True)


@contextmanager
def following(plan: Plan) -> Iterator[None]:
    """Print each job of a sweep as it ends, with how many are left and how long they will take."""
    follower = _Follower(plan)
    follower.start()
    try:
        yield
    finally:
        follower.stop()


class _Follower:
    """Reads a journal as it grows, from its end at the start on."""

    def __init__(self, plan: Plan) -> None:
        self._path = plan.directory / JOURNAL
        self._total = plan.total
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._begun = time.monotonic()
        self._ended, self._ran = 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._bar: Any = None

    def start(self) -> None:
        if sys.stderr.isatty():
            self._bar = _bar(self._total)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def _follow(self) -> None:
        while not self._over.wait(_POLL_SECONDS):
            self._read()
        self._read()

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._ended += 1
            self._ran += entry["state"] != "skipped"
            self._show(entry["line"])

    def _show(self, line: str) -> None:
        left = self._left()
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
            description = f"{left} left" if left else ""
            self._bar.update(self._bar.task_ids[0], completed=self._ended, description=description)
            return
        place = f"{self._ended}/{self._total}" + (f", {left} left" if left else "")
        print(f"[{place}] {line}", flush=True)

    def _left(self) -> str:
        """Time to the end, if the jobs to come take as long as those that ran; else nothing."""
        missing = self._total - self._ended
        if not self._ran or missing <= 0:
            return ""
        seconds = round((time.monotonic() - self._begun) / self._ran * missing)
        hours, rest = divmod(seconds, 3600)
        return (
            f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"
        )


def _bar(total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=total)
    bar.start()
    return bar
