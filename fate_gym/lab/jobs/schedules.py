"""The schedules that a job stores for Gantt charts, ``shards.parquet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from fate_gym.errors import InputError
from fate_gym.lab.files import read_table
from fate_gym.lab.jobs.directory import CONFIG, SHARDS, read_config

if TYPE_CHECKING:
    import pyarrow as pa

    from fate_gym.problem import Problem
    from fate_gym.sim import CompiledProblem, Trace

_LARGEST = 1_000  # most stages of a problem whose schedule is stored, unless it is the median

_MOST_TRACED = 10_000  # most stages, over all problems, stored with ``trace=true``


class ShardRow(TypedDict):
    """One shard of a schedule, with names instead of numbers; times in seconds.

    ``device`` is empty for tools (on the host), ``model`` for stages without one, ``session`` for
    workflows without one. ``arrival`` is that of the workflow, ``first`` when the first tokens are
    generated, ``prefilled`` the number of tokens prefilled, ``again`` how many of those had been
    computed before (`fate_gym.metrics.sessions`).
    """

    schedule: str
    problem: str
    workflow: str
    session: str
    arrival: float
    stage: str
    model: str
    device: str
    queries: int
    waves: int
    start: float
    load_s: float
    transfer_s: float
    prefill_s: float
    decode_s: float
    noise: float
    first: float
    end: float
    prefilled: float
    again: float


@dataclass(frozen=True)
class Schedule:
    """The schedule of one run of one problem; ``devices`` lists the whole cluster in order."""

    problem: str
    devices: list[str]
    shards: list[ShardRow]

    @property
    def start(self) -> float:
        return min(shard["start"] for shard in self.shards)

    @property
    def end(self) -> float:
        return max(shard["end"] for shard in self.shards)


def schedule_of(trace: Trace, compiled: CompiledProblem, name: str) -> Schedule:
    """Return the schedule of a run, with rows as `shard_rows` gives them for a name."""
    return Schedule(trace.problem.id, trace.device_ids, shard_rows(trace, compiled, name))


def shard_rows(trace: Trace, compiled: CompiledProblem, schedule: str) -> list[ShardRow]:
    """Convert a run's shards to rows with names instead of numbers, in commit order."""
    # Imported here, so that schedules can be read without the simulator.
    from fate_gym.metrics.sessions import prefilled_tokens, prefix_tokens

    prefilled, again = prefilled_tokens(trace, compiled), prefix_tokens(trace, compiled).again
    stages = [stage for workflow in trace.problem.workflows for stage in workflow.stages]
    rows = []
    for number, shard in enumerate(trace.shards):
        workflow, stage = trace.stage_ids[shard["stage"]]
        flow = int(trace.workflow_of[shard["stage"]])
        device = int(shard["device"])
        rows.append(
            ShardRow(
                schedule=schedule,
                problem=trace.problem.id,
                workflow=workflow,
                session=trace.problem.workflows[flow].session or "",
                arrival=float(trace.workflow_arrival[flow]),
                stage=stage,
                model=stages[shard["stage"]].model or "",
                device=trace.device_ids[device] if device >= 0 else "",
                queries=int(shard["queries"]),
                waves=int(shard["waves"]),
                start=float(shard["start"]),
                load_s=float(shard["load_s"]),
                transfer_s=float(shard["transfer_s"]),
                prefill_s=float(shard["prefill_s"]),
                decode_s=float(shard["decode_s"]),
                noise=float(shard["noise"]),
                first=float(shard["first"]),
                end=float(shard["end"]),
                prefilled=float(prefilled[number]),
                again=float(again[number]),
            )
        )
    return rows


def representatives(problems: Sequence[Problem]) -> list[int]:
    """Choose the numbers of the problems whose schedules are stored.

    These are the median by number of stages, then the quartiles and the largest if they have at
    most 1,000 stages.
    """
    order = sorted(range(len(problems)), key=lambda i: (problems[i].stage_count, i))
    last = len(order) - 1
    places = dict.fromkeys(order[place] for place in (last // 2, last // 4, 3 * last // 4, last))
    first, *others = places
    return [first, *(i for i in others if problems[i].stage_count <= _LARGEST)]


def traced(problems: Sequence[Problem]) -> list[int]:
    """Choose the numbers of the problems whose schedules are stored with ``trace=true``.

    These are the `representatives`, then others of at most 1,000 stages, up to 10,000 in total.
    """
    chosen = representatives(problems)
    left = _MOST_TRACED - sum(problems[i].stage_count for i in chosen)
    for i, problem in enumerate(problems):
        if i not in chosen and problem.stage_count <= min(_LARGEST, left):
            chosen.append(i)
            left -= problem.stage_count
    return chosen


def read_schedules(directory: Path) -> dict[str, dict[str, Schedule]]:
    """Read the schedules that a job stored for figures.

    By problem (the first is the one to show first), then by policy: the job's own and round robin.

    Raises:
        InputError: a file is damaged.
    """
    devices = device_ids(directory, read_config(directory))
    return schedules_of(read_table(directory / SHARDS), devices)


def schedules_of(shards: pa.Table, devices: list[str]) -> dict[str, dict[str, Schedule]]:
    """Group the rows of a table of shards as `read_schedules` does."""
    problems: dict[str, dict[str, Schedule]] = {}
    for row in shards.to_pylist():
        schedules = problems.setdefault(row["problem"], {})
        found = schedules.setdefault(row["schedule"], Schedule(row["problem"], devices, []))
        found.shards.append(row)
    return problems


def device_ids(directory: Path, config: Mapping[str, Any]) -> list[str]:
    """Return the devices in a job's configuration. Raises `InputError` if it names none."""
    try:
        devices = [device["id"] for device in config["cluster"]["devices"]]
    except (KeyError, TypeError):
        devices = []
    if not devices or not all(isinstance(name, str) for name in devices):
        raise InputError("no devices", source=directory / CONFIG)
    return devices


def first_schedules(directory: Path) -> dict[str, Schedule]:
    """Return the schedules of the problem that a job shows first, by policy."""
    return next(iter(read_schedules(directory).values()))
