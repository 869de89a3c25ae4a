"""The schedules that ``report.html`` carries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fate_gym.lab.jobs.schedules import Schedule, read_schedules
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.figures.occupancy import BINS, schedule_occupancy
from fate_gym.sim.occupancy import lanes
from fate_gym.sim.phases import phases

_SHARDS = 30_000
"""Most shards of all schedules that a page carries; about 50 bytes each."""


def gantts(report: Report) -> list[dict[str, Any]]:
    """Schedules of the first seed of each suite: best policies first, while they fit."""
    sweep = report.sweep
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for job, result in sorted(sweep.finished, key=lambda pair: pair[1].seed):
        cell = cells.setdefault((result.suite, result.suite_hash), {"seed": result.seed})
        if cell["seed"] == result.seed:
            cell.setdefault(sweep.labels[job.directory], job)
    left = _SHARDS
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for (suite, _), cell in cells.items():
        for name in (policy for policy in report.order if policy in cell):
            for problem, schedules in read_schedules(cell[name].directory).items():
                schedule = schedules[cell[name].policy]
                if len(schedule.shards) > left:
                    continue
                left -= len(schedule.shards)
                empty = {"devices": schedule.devices, "schedules": [], "models": {}, "stages": {}}
                names = {"suite": suite, "problem": problem}
                entry = found.setdefault((suite, problem), names | empty)
                entry["schedules"].append({"policy": name} | _schedule(schedule, entry))
    for entry in found.values():
        entry |= {kind: list(entry[kind]) for kind in ("models", "stages")}
    # First the one in which most happens: it says most.
    return sorted(found.values(), key=lambda one: -max(len(s["start"]) for s in one["schedules"]))


def _schedule(schedule: Schedule, entry: dict[str, Any]) -> dict[str, Any]:
    """A schedule in columns; models and stages are numbers in the entry of its problem.

    Shards that run at the same time on a device are in different lanes of it. ``served`` are
    queries in service, means over equal parts of the schedule.
    """
    device = {name: number for number, name in enumerate(schedule.devices)}
    # The host, on which tools run, is not drawn.
    rows = [row for row in schedule.shards if row["device"] in device]
    names = ["device", "start", "load_s", "transfer_s", "first", "noise", "end"]
    table = pd.DataFrame(rows, columns=names)
    spans = phases(table, False)
    number = [device[row["device"]] for row in rows]
    lane = lanes(number, table["start"], table["end"])
    most = np.ones(len(device), np.int64)
    np.maximum.at(most, np.array(number, np.int64), lane + 1)
    edges = np.linspace(0.0, schedule.end, BINS + 1)
    models, stages = entry["models"], entry["stages"]
    return {
        "makespan": schedule.end,
        "device": number,
        "lane": lane.tolist(),
        "lanes": most.tolist(),
        "served": schedule_occupancy(schedule).means(edges).tolist(),
        "model": [models.setdefault(row["model"], len(models)) for row in rows],
        "stage": [stages.setdefault(row["stage"], len(stages)) for row in rows],
        "start": [row["start"] for row in rows],
        "load": (spans.loaded - spans.start).tolist(),
        "move": (spans.moved - spans.start).tolist(),
        "fill": (spans.prefilled - spans.begin).tolist(),
        "end": [row["end"] for row in rows],
    }
