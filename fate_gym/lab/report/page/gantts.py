"""The schedules that ``report.html`` carries."""

from __future__ import annotations

from typing import Any

from fate_gym.lab.jobs.schedules import Schedule, read_schedules
from fate_gym.lab.report.compute import Report

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
                entry = found.setdefault(
                    (suite, problem),
                    {"devices": schedule.devices, "schedules": [], "models": {}, "stages": {}},
                )
                drawn = _schedule(schedule, entry["models"], entry["stages"])
                entry["schedules"].append({"policy": name, **drawn})
    drawn_gantts = [
        {"suite": suite, "problem": problem}
        | entry
        | {kind: list(entry[kind]) for kind in ("models", "stages")}
        for (suite, problem), entry in found.items()
    ]
    # First the one in which most happens: it says most.
    return sorted(drawn_gantts, key=lambda one: -max(len(s["start"]) for s in one["schedules"]))


def _schedule(schedule: Schedule, models: dict[str, int], stages: dict[str, int]) -> dict[str, Any]:
    device = {name: number for number, name in enumerate(schedule.devices)}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("device", "model", "stage", "start", "load", "move", "fill", "end")
    }
    for row in schedule.shards:
        if row["device"] not in device:
            continue  # a tool, on the host
        noise = row["noise"]
        columns["device"].append(device[row["device"]])
        columns["model"].append(models.setdefault(row["model"], len(models)))
        columns["stage"].append(stages.setdefault(row["stage"], len(stages)))
        columns["start"].append(row["start"])
        columns["load"].append(row["load_s"] * noise)
        columns["move"].append(row["transfer_s"] * noise)
        columns["fill"].append(row["prefill_s"] * noise)
        columns["end"].append(row["end"])
    return {"makespan": schedule.end, **columns}
