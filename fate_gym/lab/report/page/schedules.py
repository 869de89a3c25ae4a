"""The schedules included in ``report.html``: bars, graphs, decisions and memory, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from fate_gym.lab.jobs.directory import EXPLAINED
from fate_gym.lab.jobs.explained import ExplainedPlacement, ExplainedSchedule, read_explained
from fate_gym.lab.jobs.find import Job
from fate_gym.lab.jobs.schedules import Schedule, read_schedules
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.figures.occupancy import BINS, schedule_occupancy
from fate_gym.lab.report.page.graph import critical_path, places
from fate_gym.sim.occupancy import in_service, lanes
from fate_gym.sim.phases import phases

_SHARDS = 30_000
"""Most shards in a page, over all schedules; about 20 bytes each, compressed."""
_ESTIMATES = 400_000
"""Most device estimates in a page; decisions of the best policies come first."""


@dataclass
class _Room:
    """How much still fits into a page."""

    shards: int = _SHARDS
    estimates: int = _ESTIMATES


@dataclass
class _Entry:
    """A problem in the page: its names by number, and its schedules.

    Attributes:
        stages, models: numbers by name; the name of a stage is (workflow, stage).
        edges: pairs of parent and child; None: no job stored the graph.
        usual: by part and stage, the first estimates seen of the seconds on each device.
    """

    suite: str
    problem: str
    families: list[str]
    devices: list[str]
    memory: list[float] = field(default_factory=list)
    stages: dict[tuple[str, str], int] = field(default_factory=dict)
    models: dict[str, int] = field(default_factory=dict)
    stage_models: dict[int, int] = field(default_factory=dict)
    edges: list[tuple[int, int]] | None = None
    usual: dict[str, dict[int, list[float | None]]] = field(
        default_factory=lambda: {"fill": {}, "decode": {}}
    )
    schedules: list[dict[str, Any]] = field(default_factory=list)

    def know(self, explained: ExplainedSchedule) -> None:
        """Set the graph of the problem, unless it is set already."""
        if self.edges is not None:
            return
        for node in explained.stages:
            stage = self.stages.setdefault((node.workflow, node.stage), len(self.stages))
            self.stage_models[stage] = self.models.setdefault(node.model, len(self.models))
        numbers = [self.stages[node.workflow, node.stage] for node in explained.stages]
        self.edges = [(numbers[parent], numbers[child]) for parent, child in explained.edges]
        self.memory = explained.memory

    def data(self) -> dict[str, Any]:
        """Return the entry in the form that the page reads."""
        flows = {flow: n for n, flow in enumerate(dict.fromkeys(flow for flow, _ in self.stages))}
        found: dict[str, Any] = {
            "suite": self.suite,
            "problem": self.problem,
            "families": self.families,
            "devices": self.devices,
            "memory": self.memory,
            "models": list(self.models),
            "flows": list(flows),
            "flow": [flows[flow] for flow, _ in self.stages],
            "stages": [stage for _, stage in self.stages],
            "schedules": self.schedules,
        }
        if self.edges is not None:
            placed = places(len(self.stages), self.edges)
            found |= {
                "edges": self.edges,
                "column": placed.column,
                "place": placed.place,
                "usual": {
                    name: [rows.get(stage) for stage in range(len(self.stages))]
                    for name, rows in self.usual.items()
                },
                "model": [self.stage_models.get(n, -1) for n in range(len(self.stages))],
            }
        return found


def schedules(report: Report) -> list[dict[str, Any]]:
    """Collect schedules by problem, from each suite's first seed and from all traced jobs.

    Schedules of the best policies come first, as long as they fit. Problems are sorted by size,
    the largest first, since they are the most informative.
    """
    sweep = report.sweep
    families: dict[tuple[str, str], list[str]] = {
        (str(suite), str(problem)): sorted(set(rows["family"].astype(str)))
        for (suite, problem), rows in sweep.rows.groupby(["suite", "problem"])
    }
    room = _Room()
    found: dict[tuple[str, str, int], _Entry] = {}
    for (suite, seed), cell in _cells(report).items():
        for name in (policy for policy in report.order if policy in cell):
            for problem, schedule, explained in _kept(cell[name]):
                if len(schedule.shards) > room.shards:
                    continue
                room.shards -= len(schedule.shards)
                new = _Entry(suite, problem, families.get((suite, problem), []), schedule.devices)
                entry = found.setdefault((suite, problem, seed), new)
                columns = _schedule(schedule, explained, entry, room)
                entry.schedules.append({"policy": name} | columns)
    entries = sorted(found.values(), key=lambda one: -max(len(s["start"]) for s in one.schedules))
    return [entry.data() for entry in entries]


def _cells(report: Report) -> dict[tuple[str, int], dict[str, Job]]:
    """Group the jobs to show by suite and seed, then by policy; first seeds come first."""
    sweep = report.sweep
    suite_of = sweep.rows.drop_duplicates("job").set_index("job")["suite"]
    cells: dict[tuple[str, int], dict[str, Job]] = {}
    first: dict[str, int] = {}
    for job, result in sorted(sweep.finished, key=lambda pair: pair[1].seed):
        suite = str(suite_of[str(job.directory)])
        if (
            first.setdefault(suite, result.seed) == result.seed
            or (job.directory / EXPLAINED).exists()
        ):
            cell = cells.setdefault((suite, result.seed), {})
            cell.setdefault(sweep.labels[job.directory], job)
    return cells


def _kept(job: Job) -> list[tuple[str, Schedule, ExplainedSchedule | None]]:
    """Read the schedules that a job stored of its own policy, with their explanations."""
    known = None if job.result is None else job.result.checksums.get(EXPLAINED)
    explained = read_explained(job.directory, known=known)
    return [
        (problem, of_problem[job.policy], explained.get(problem))
        for problem, of_problem in read_schedules(job.directory).items()
    ]


def _schedule(
    schedule: Schedule, explained: ExplainedSchedule | None, entry: _Entry, room: _Room
) -> dict[str, Any]:
    """Convert a schedule to columns; models and stages are numbers of its problem.

    Concurrent shards on a device are in different lanes; ``service`` is how many queries of each
    are in service. ``served`` is the number of queries in service on all devices, as means over
    equal intervals.
    """
    if explained is not None:
        entry.know(explained)
    stage_of = [
        entry.stages.setdefault((row["workflow"], row["stage"]), len(entry.stages))
        for row in schedule.shards
    ]
    device = {name: number for number, name in enumerate(schedule.devices)}
    # Tools run on the host, which is not drawn.
    drawn = [i for i, row in enumerate(schedule.shards) if row["device"] in device]
    rows = [schedule.shards[i] for i in drawn]
    names = ["device", "start", "load_s", "transfer_s", "first", "noise", "end", "queries", "waves"]
    table = pd.DataFrame(rows, columns=names)
    spans = phases(table, False)
    number = [device[row["device"]] for row in rows]
    lane = lanes(number, table["start"], table["end"])
    most = np.ones(len(device), np.int64)
    np.maximum.at(most, np.array(number, np.int64), lane + 1)
    edges = np.linspace(0.0, schedule.end, BINS + 1)
    return {
        "makespan": schedule.end,
        "device": number,
        "lane": lane.tolist(),
        "lanes": most.tolist(),
        "served": schedule_occupancy(schedule).means(edges).tolist(),
        "service": in_service(table).tolist(),
        "queries": [row["queries"] for row in rows],
        "model": [entry.models.setdefault(row["model"], len(entry.models)) for row in rows],
        "stage": [stage_of[i] for i in drawn],
        "start": [row["start"] for row in rows],
        "load": (spans.loaded - spans.start).tolist(),
        "move": (spans.moved - spans.start).tolist(),
        "fill": (spans.prefilled - spans.begin).tolist(),
        "end": [row["end"] for row in rows],
    } | _explained(schedule, stage_of, explained, entry, room)


def _explained(
    schedule: Schedule,
    stage_of: Sequence[int],
    explained: ExplainedSchedule | None,
    entry: _Entry,
    room: _Room,
) -> dict[str, Any]:
    """Add the critical path, what devices held, and the decisions, as far as stored."""
    if entry.edges is None:
        return {}
    path = critical_path(schedule.shards, stage_of, entry.edges)
    found: dict[str, Any] = {
        "path": [link.stage for link in path],
        "held_up": [int(link.waits_for_device) for link in path],
    }
    if explained is None:
        return found
    numbers = [entry.stages[node.workflow, node.stage] for node in explained.stages]
    models = [entry.models.setdefault(name, len(entry.models)) for name in explained.models]
    ready = dict(zip(numbers, explained.ready, strict=True))
    found |= {
        "ready": [ready[stage] for stage in range(len(ready))],
        "held": {
            "device": [one.device for one in explained.held],
            "time": [one.time for one in explained.held],
            "weights": [one.weights for one in explained.held],
            "cached": [one.cached for one in explained.held],
            "models": [[models[m] for m in one.models] for one in explained.held],
        },
    }
    estimates = len(explained.placements) * len(explained.devices)
    if estimates > room.estimates:
        return found
    room.estimates -= estimates
    return found | {
        "quantities": explained.quantities,
        "decisions": _decisions(explained.placements, numbers, entry),
    }


def _decisions(
    placements: Sequence[ExplainedPlacement], numbers: Sequence[int], entry: _Entry
) -> dict[str, Any]:
    """Convert placements to columns.

    Estimates are lists by device, in seconds: wait, load, transfer, prefill and decode. The last
    two rarely depend on the state, so only differences from the problem's table are stored. Where
    the end is not stored, it is their sum (load and transfer overlap).
    """
    stages = [numbers[one.stage] for one in placements]
    parts = [_parts(one) for one in placements]
    sums = [
        all(row is None or _is_sum(row) for row in rows) and len(one.devices) == 1
        for one, rows in zip(placements, parts, strict=True)
    ]
    columns: dict[str, Any] = {
        name: [[None if row is None else _digits(row[i]) for row in rows] for rows in parts]
        for i, name in enumerate(("wait", "load", "move", "fill", "decode"))
    }
    for name, usual in entry.usual.items():
        columns[name] = [
            _unusual(row, usual.setdefault(stage, row))
            for stage, row in zip(stages, columns[name], strict=True)
        ]
    return columns | {
        "stage": stages,
        "devices": [one.devices for one in placements],
        "time": [one.time for one in placements],
        "end": [
            None if known or one.end is None else one.end - one.time
            for one, known in zip(placements, sums, strict=True)
        ],
        "ends": [
            None if known else [None if row is None else row[5] for row in rows]
            for rows, known in zip(parts, sums, strict=True)
        ],
        "quantity": [one.quantity for one in placements],
        "compared": [_compared(one) for one in placements],
    }


def _unusual(row: list[float | None], usual: list[float | None]) -> list[float | None] | None:
    """Replace values equal to the usual ones by -1; None: all are equal."""
    if row == usual:
        return None
    return [-1 if value == known else value for value, known in zip(row, usual, strict=True)]


def _parts(one: ExplainedPlacement) -> list[list[float] | None]:
    """Return estimates by device: wait, load, transfer, prefill, decode, and seconds to the end."""
    return [
        None if part is None else [part[0] - one.time, *part[1:5], part[5] - one.time]
        for part in one.parts
    ]


def _is_sum(row: Sequence[float]) -> bool:
    wait, load, move, fill, decode, end = row
    return abs(wait + max(load, move) + fill + decode - end) <= 1e-4 * abs(end) + 1e-6


def _compared(one: ExplainedPlacement) -> list[Any] | int:
    """Return the placements compared, with devices and value; 1: the expected ends themselves."""
    ends = {i: part[5] for i, part in enumerate(one.parts) if part is not None}
    values = {c.devices[0]: c.value for c in one.compared if len(c.devices) == 1}
    same = len(values) == len(one.compared) and values.keys() == ends.keys()
    if values and same and all(_close(values[i], end) for i, end in ends.items()):
        return 1
    return [[c.devices[0] if len(c.devices) == 1 else c.devices, c.value] for c in one.compared]


def _close(a: float | None, b: float) -> bool:
    return a is not None and abs(a - b) <= 1e-6 * max(1.0, abs(b))


def _digits(value: float) -> float:
    """Round to four digits; tables show three."""
    return float(f"{value:.4g}")
