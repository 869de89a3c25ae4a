"""Jobs of the Alibaba 2018 cluster trace, with their recorded arrival times.

The PyPI package ``spar`` (MIT; the optional extra ``traces``) ships one hour of the batch trace
as ``spar/data/samples/sample_tasks.csv``; the data are for research and study. A row is a task:
seconds of arrival, job, task, duration, CPU, memory, instances. The name of a task gives its kind
(M map, R reduce, J join), its number, and the numbers of its parents: ``J25_16_18``. The package
is located but never imported. Source: Alibaba Open Cluster Trace Program, cluster-trace-v2018.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fate_gym.errors import InputError
from fate_gym.problem import Workflow
from fate_gym.problem.workflow import topological_generations
from fate_gym.workloads.roles import assign_roles
from fate_gym.workloads.topology import Topology

FAMILY = "alibaba"
_SAMPLE = "data/samples/sample_tasks.csv"
_TASK = re.compile(r"([A-Za-z]+)(\d+)((?:_\d+)*)(?:_Stg\d+)?")
_COLUMNS = 3


@dataclass(frozen=True)
class Job:
    """One job: its tasks by number, each with its kind and the numbers of its parents."""

    name: str
    arrival: float  # seconds since the trace began
    tasks: dict[int, tuple[str, tuple[int, ...]]]

    @property
    def application(self) -> str:
        """Identifies the application: jobs with the same tasks and edges count as its runs."""
        text = ";".join(
            f"{n}:{kind}:{parents}" for n, (kind, parents) in sorted(self.tasks.items())
        )
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    @property
    def split(self) -> str:
        """``train`` or ``test``, with about half of the applications each."""
        return "test" if int(self.application, 16) % 2 else "train"


def trace_file() -> Path:
    """Return the sample file of the package ``spar``. Raises `InputError` if not installed."""
    spec = find_spec("spar")
    for folder in (spec.submodule_search_locations if spec is not None else None) or ():
        path = Path(folder) / _SAMPLE
        if path.is_file():
            return path
    raise InputError("the Alibaba trace is not installed", remedy="pip install 'fate-gym[traces]'")


@lru_cache(maxsize=2)
def read_jobs(path: Path) -> tuple[Job, ...]:
    """Return the DAG jobs of a trace by arrival; jobs with tasks that name no parents are skipped.

    Raises:
        InputError: naming the file and the line, for a row that is not a task; or the job, for a
            missing parent, a repeated task, or a cycle.
    """
    rows: dict[str, list[tuple[float, str]]] = {}
    for arrival, owner, task in _rows(path):
        rows.setdefault(owner, []).append((arrival, task))
    jobs = []
    for name, tasks in rows.items():
        matches = [_TASK.fullmatch(task) for _, task in tasks]
        found = {
            int(m[2]): (m[1], tuple(sorted({int(n) for n in m[3].split("_")[1:]})))
            for m in matches
            if m is not None
        }
        if None in matches:  # independent tasks, whose names are hashes
            continue
        job = Job(name, min(arrival for arrival, _ in tasks), found)
        if len(found) != len(tasks):
            raise InputError("a task occurs twice", source=path, item=f"job {name!r}")
        order(job, source=path)
        jobs.append(job)
    return tuple(sorted(jobs, key=lambda job: (job.arrival, job.name)))


def _rows(path: Path) -> Iterator[tuple[float, str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            for number, row in enumerate(csv.reader(lines), start=1):
                if len(row) < _COLUMNS:
                    raise InputError("too few columns", source=path, item=f"line {number}")
                try:
                    arrival = float(row[0])
                except ValueError:
                    arrival = -1.0
                if not 0.0 <= arrival < np.inf:
                    raise InputError(
                        f"{row[0]!r} is no time", source=path, item=f"line {number}",
                        field="arrival",
                    )  # fmt: skip
                yield arrival, row[1], row[2]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read the trace ({error})", source=path) from None


def order(job: Job, *, source: Path | None = None) -> list[int]:
    """Return the tasks of a job, parents first.

    Raises:
        InputError: for a missing parent or a cycle.
    """
    where: dict[str, Any] = {"source": source, "item": f"job {job.name!r}"}
    edges = [(parent, number) for number in sorted(job.tasks) for parent in job.tasks[number][1]]
    for parent, _ in edges:
        if parent not in job.tasks:
            raise InputError(f"parent {parent} is missing", **where)
    generations = topological_generations(job.tasks, edges)
    ordered = [number for generation in generations for number in sorted(generation)]
    if len(ordered) < len(job.tasks):
        raise InputError("the tasks form a cycle", **where)
    return ordered


def job_topology(job: Job) -> Topology:
    """Return the DAG of a job; the family is its application, the task types are M, R and J."""
    ordered = order(job)
    place = {number: i for i, number in enumerate(ordered)}
    return Topology.of(
        f"{FAMILY}/{job.application}",
        job.name,
        [job.tasks[number][0] for number in ordered],
        ((place[parent], place[n]) for n in ordered for parent in job.tasks[n][1]),
        ids=tuple(f"{job.tasks[number][0]}{number}" for number in ordered),
    )


def job_workflow(job: Job, seed: int, arrival: float | None = None) -> Workflow:
    """Return the job with modelled attributes, at its recorded arrival unless one is given."""
    arrival = job.arrival if arrival is None else arrival
    workflow = assign_roles(job_topology(job), seed, arrival=arrival)
    return workflow.model_copy(update={"family": FAMILY})
