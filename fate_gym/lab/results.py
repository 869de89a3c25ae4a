"""The files of a job, and how they get on disk: whole or not at all, ``result.json`` last."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, ValidationError

from fate_gym.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

RESULT = "result.json"
FAILED = "FAILED"
WORKFLOWS = "workflows.parquet"
DECISIONS = "decisions.parquet"
SHARDS = "shards.parquet"
CONFIG = "config.yaml"
CHROME_TRACE = "trace.json"

_RUN_DIRECTORY = re.compile(r"s(?P<seed>\d+)-(?P<hash>[0-9a-f]{8})")


class JobResult(BaseModel):
    """The summary of a finished job; the content of ``result.json``. Times in seconds.

    ``counters`` are those that the policy keeps, summed over the problems.
    """

    model_config = ConfigDict(frozen=True)

    schema_version: int = 1
    status: Literal["ok"] = "ok"
    name: str
    suite: str
    cluster: str
    policy: str
    family: str
    seed: int
    params: dict[str, Any]
    config_hash: str
    suite_hash: str
    workload_hash: str
    problems: int
    workflows: int
    means: dict[str, float]
    counters: dict[str, float] = {}
    decision_ms_p50: float
    decision_ms_p99: float
    seconds: dict[str, float]
    overrides: list[str]
    versions: dict[str, str]
    git_sha: str | None
    machine: str

    @property
    def title(self) -> str:
        """``suite/policy/s<seed>``, as lines of text and W&B name the job."""
        return f"{self.suite}/{self.policy}/s{self.seed}"


def total_counters(counters: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums by name of the finite values, in the order in which names first appear."""
    totals: dict[str, float] = {}
    for one in counters:
        for name, value in one.items():
            if math.isfinite(value):
                totals[name] = totals.get(name, 0.0) + value
    return totals


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


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with _replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as parquet, whole or not at all; a value that a row lacks is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    with _replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def prepare_directory(directory: Path) -> None:
    """Make a run directory that can be written to, without the failure of an earlier try.

    Raises:
        InputError: the directory cannot be made or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
        (directory / FAILED).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from None


def unwritable(directory: Path | str, error: OSError) -> InputError:
    """The error for a place that cannot be written."""
    return InputError(
        f"cannot write here ({error.strerror or error})",
        source=error.filename or directory,
        remedy="choose another place with paths.runs=DIRECTORY",
    )


def write_result(directory: Path, result: JobResult) -> None:
    """Declare a job finished. Everything else must be on disk already."""
    write_text(directory / RESULT, result.model_dump_json(indent=1) + "\n")


def mark_failed(directory: Path, text: str) -> None:
    """Leave a marker with the reason: its last line says what went wrong."""
    write_text(directory / FAILED, text.rstrip() + "\n")


def read_result(directory: Path) -> JobResult | None:
    """The result of a finished job, or None.

    Raises:
        InputError: the file is there but is not a result.
    """
    path = directory / RESULT
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return JobResult.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"not a result of this version ({first['msg']})",
            source=path,
            field=".".join(str(part) for part in first["loc"]) or None,
            remedy="delete the file and run the job again",
        ) from None


def job_state(directory: Path) -> Literal["done", "failed", "unfinished"] | None:
    """How far the job of a run directory got; None if it was never started."""
    if (directory / RESULT).exists():
        return "done"
    if (directory / FAILED).exists():
        return "failed"
    return "unfinished" if directory.exists() else None


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


def last_line(text: str) -> str:
    """The last line that is not blank: what a traceback ends with."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


class ShardRow(TypedDict):
    """One shard of a schedule, with names in place of numbers; seconds.

    The host (tools) has no device name, and a stage without a model no model name.
    """

    schedule: str
    problem: str
    workflow: str
    stage: str
    model: str
    device: str
    queries: int
    start: float
    load_s: float
    transfer_s: float
    prefill_s: float
    decode_s: float
    noise: float
    end: float


@dataclass(frozen=True)
class Schedule:
    """What one run did with one problem; ``devices`` are all of the cluster, in order."""

    problem: str
    devices: list[str]
    shards: list[ShardRow]

    @property
    def end(self) -> float:
        return max(shard["end"] for shard in self.shards)


def read_schedules(directory: Path) -> dict[str, dict[str, Schedule]]:
    """The schedules that a job kept for pictures.

    By problem, the one to show first, and by policy: the job's own and round robin.
    """
    import pyarrow.parquet as pq
    import yaml

    config = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    devices = [device["id"] for device in config["cluster"]["devices"]]
    problems: dict[str, dict[str, Schedule]] = {}
    for row in pq.read_table(directory / SHARDS).to_pylist():
        schedules = problems.setdefault(row["problem"], {})
        found = schedules.setdefault(row["schedule"], Schedule(row["problem"], devices, []))
        found.shards.append(row)
    return problems


def first_schedules(directory: Path) -> dict[str, Schedule]:
    """The schedules of the problem that a job shows first, by policy."""
    return next(iter(read_schedules(directory).values()))


def dump_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def newest_failures(root: Path, since: float) -> Iterable[tuple[str, str, Path]]:
    """The jobs that failed after a time: ``suite/policy/s<seed>-<hash>``, reason, marker."""
    for marker in sorted(root.glob(f"*/*/s*-*/{FAILED}")):
        if marker.stat().st_mtime >= since:
            where = marker.parent.relative_to(root).as_posix()
            yield where, last_line(marker.read_text(encoding="utf-8")), marker
