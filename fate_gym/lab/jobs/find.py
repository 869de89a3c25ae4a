"""Finds the jobs below a sweep's directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fate_gym.errors import InputError
from fate_gym.lab.files import read_table
from fate_gym.lab.jobs.directory import FAILED, read_config, read_failure
from fate_gym.lab.jobs.intact import REMEDY, check_files
from fate_gym.lab.jobs.result import JobResult, OtherVersionError, read_result

if TYPE_CHECKING:
    import pandas as pd

_RUN_DIRECTORY = re.compile(r"s(?P<seed>\d+)-(?P<hash>[0-9a-f]{8})")


@dataclass(frozen=True)
class Job:
    """A run directory found on disk.

    ``result`` is None unless the job finished and its files are intact; ``damage`` says what is
    wrong with damaged files.
    """

    directory: Path
    suite: str
    policy: str
    seed: int
    result: JobResult | None
    failure: str | None
    damage: InputError | None = None

    @property
    def state(self) -> Literal["ok", "damaged", "failed", "unfinished"]:
        if self.result is not None:
            return "ok"
        if self.damage is not None:
            return "damaged"
        return "unfinished" if self.failure is None else "failed"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The job's configuration; cached, because YAML is slow to read."""
        return read_config(self.directory)

    def table(self, file: str) -> pd.DataFrame:
        """Read one of the job's parquet files as a data frame."""
        frame: pd.DataFrame = read_table(self.directory / file).to_pandas()
        return frame


def find_jobs(root: Path) -> list[Job]:
    """Find every job below a sweep's directory, sorted by suite, policy and seed.

    Raises:
        InputError: the directory is missing or holds no jobs.
    """
    remedy = "give the directory of a sweep, e.g. runs/default"
    if not root.is_dir():
        raise InputError("no such directory", source=root, remedy=remedy)
    jobs = [job for path in sorted(root.glob("*/*/s*-*")) if (job := _job(path))]
    if not jobs:
        raise InputError("no jobs in this directory", source=root, remedy=remedy)
    return sorted(jobs, key=lambda job: (job.suite, job.policy, job.seed, job.directory.name))


def _job(directory: Path) -> Job | None:
    match = _RUN_DIRECTORY.fullmatch(directory.name)
    if match is None or not directory.is_dir():
        return None
    result, damage = read_whole(directory)
    return Job(
        directory=directory,
        suite=directory.parents[1].name,
        policy=directory.parent.name,
        seed=int(match["seed"]),
        result=result,
        failure=read_failure(directory),
        damage=damage,
    )


def read_whole(directory: Path) -> tuple[JobResult | None, InputError | None]:
    """Return a finished job's result if its files are intact, and what is wrong if they are not."""
    try:
        result = read_result(directory)
        if result is not None:
            check_files(directory, result)
    except OtherVersionError as error:
        return None, error
    except InputError as error:
        return None, InputError(error.fault, source=error.source, field=error.field, remedy=REMEDY)
    return result, None


def job_state(directory: Path) -> Literal["done", "damaged", "failed", "unfinished"] | None:
    """Return how far the job of a run directory got; None: it was never started."""
    result, damage = read_whole(directory)
    if result is not None:
        return "done"
    if damage is not None:
        return "damaged"
    if (directory / FAILED).exists():
        return "failed"
    return "unfinished" if directory.exists() else None
