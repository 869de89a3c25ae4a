"""Finds the jobs below a sweep's directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fate_gym.errors import InputError
from fate_gym.lab.jobs.directory import FAILED, last_line
from fate_gym.lab.jobs.result import JobResult, read_result

if TYPE_CHECKING:
    import pandas as pd

_RUN_DIRECTORY = re.compile(r"s(?P<seed>\d+)-(?P<hash>[0-9a-f]{8})")


@dataclass(frozen=True)
class Job:
    """A run directory found on disk. ``result`` is None unless the job finished."""

    directory: Path
    suite: str
    policy: str
    seed: int
    result: JobResult | None
    failure: str | None

    @property
    def state(self) -> Literal["ok", "failed", "unfinished"]:
        if self.result is not None:
            return "ok"
        return "unfinished" if self.failure is None else "failed"

    def table(self, file: str) -> pd.DataFrame:
        """One of the job's parquet files as a data frame."""
        import pandas as pd

        return pd.read_parquet(self.directory / file)


def find_jobs(root: Path) -> list[Job]:
    """Every job below a sweep's directory, by suite, policy and seed.

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
    failed = directory / FAILED
    return Job(
        directory=directory,
        suite=directory.parents[1].name,
        policy=directory.parent.name,
        seed=int(match["seed"]),
        result=read_result(directory),
        failure=last_line(failed.read_text(encoding="utf-8")) if failed.exists() else None,
    )
