"""``report.html``: one file that works without a network, with figures that answer to filters.

The numbers are computed here and embedded as JSON; ``report.js`` draws them as SVG. Intervals and
tests of whole suites come from Python; only a selection by workflow family is averaged in the page.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fate_gym.lab.results import JobResult
from fate_gym.lab.summary import (
    MECHANISMS,
    PolicySummary,
    decision_quantiles,
    mechanism_means,
)

if TYPE_CHECKING:
    import pandas as pd

    from fate_gym.lab.report import Report
    from fate_gym.lab.results import Schedule

_KEY = ["suite", "problem", "workflow", "seed"]
_SHARDS = 30_000
"""Most shards of all schedules that a page carries; about 50 bytes each."""


def render_page(report: Report) -> str:
    """The report as one HTML file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from fate_gym.lab.report import commands, legend, origin_lines, what

    environment = Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = files(__name__)
    data = json.dumps(_rounded(page_data(report)), separators=(",", ":"), allow_nan=False)
    return environment.get_template("report.html.j2").render(
        title=report.title,
        subtitle=what(report),
        rows=report.summary,
        strongest=report.strongest,
        legend=legend(report).replace("`", ""),
        commands=commands(report),
        gaps=report.sweep.gaps(),
        origin=origin_lines(report.sweep),
        css=(here / "report.css").read_text(encoding="utf-8"),
        script=(here / "report.js").read_text(encoding="utf-8"),
        # The only way out of a script element is its end tag.
        data=data.replace("</", "<\\/"),
    )


def page_data(report: Report) -> dict[str, Any]:
    """Everything that the page draws, as plain values; a number that is missing is None."""
    sweep, order = report.sweep, report.order
    place = {name: number for number, name in enumerate(order)}
    suites = list(report.suites)
    summaries = {"": report.summary} | (report.suites if len(suites) > 1 else {})
    return {
        "policies": [{"name": name, "family": sweep.families[name]} for name in order],
        "suites": suites,
        "strongest": report.strongest,
        "best": next((p for p in order if sweep.families[p] == "fate"), order[0]),
        "summaries": {
            suite: [vars(row) | {"policy": place[row.policy]} for row in rows]
            for suite, rows in summaries.items()
        },
        "mechanism": {
            suite: _mechanism(
                sweep.rows if not suite else sweep.rows[sweep.rows["suite"] == suite], order
            )
            for suite in summaries
        },
        "latency": {
            suite: decision_quantiles(
                sweep.decisions
                if not suite
                else sweep.decisions[sweep.decisions["suite"] == suite],
                order,
            )
            for suite in summaries
        },
        "effects": {
            "reference": report.spec.reference,
            "rows": [
                {"policy": name, **effect._asdict()} for name, effect in report.effects.items()
            ],
        },
        "axis": {
            "name": report.spec.axis,
            "lines": [
                {
                    "policy": name,
                    "points": [[x, one.mean, one.low, one.high] for x, one in curve.items()],
                }
                for name, curve in report.curves.items()
            ],
        },
        "gantts": _gantts(report),
        "runs": _runs(report, place),
    } | _workflows(sweep.rows, place, suites)


def _workflows(rows: pd.DataFrame, place: dict[str, int], suites: list[str]) -> dict[str, Any]:
    """One entry for each workflow and seed, and one value for each policy that ran it."""
    keyed = rows.assign(_key=rows.groupby(_KEY, sort=False).ngroup())
    keys = keyed.drop_duplicates("_key").sort_values("_key")
    families = sorted({str(name) for name in keys["family"]})
    instances = list(dict.fromkeys(keys["instance"].astype(str)))
    number = {name: i for i, name in enumerate(instances)}
    names = [
        str(workflow).removesuffix(f"/s{seed}")
        for workflow, seed in zip(keys["workflow"], keys["seed"], strict=True)
    ]
    labels = list(dict.fromkeys(names))
    label = {name: i for i, name in enumerate(labels)}
    return {
        "families": families,
        "instances": instances,
        "labels": labels,
        "keys": {
            "suite": [suites.index(str(suite)) for suite in keys["suite"]],
            "family": [families.index(str(family)) for family in keys["family"]],
            "instance": [number[str(instance)] for instance in keys["instance"]],
            "label": [label[name] for name in names],
            "seed": keys["seed"].tolist(),
            "stages": keys["stages"].tolist(),
            "intensity": keys["state_intensity"].tolist(),
        },
        "values": {
            "policy": keyed["policy"].map(place).tolist(),
            "key": keyed["_key"].tolist(),
            "norm": keyed["normalised"].tolist(),
        },
    }


def _mechanism(rows: pd.DataFrame, order: list[str]) -> list[dict[str, Any]]:
    present = [name for name in order if name in set(rows["policy"])]
    better = {title: column.endswith(("rate", "utilisation"))
              for column, (title, _) in MECHANISMS.items()}  # fmt: skip
    return [
        {"title": title, "more": better[title], "values": values}
        for title, values in mechanism_means(rows, present).items()
    ]


def _runs(report: Report, place: dict[str, int]) -> list[dict[str, Any]]:
    from fate_gym.lab.tracking import run_id

    sweep = report.sweep

    def run(label: str, where: str, result: JobResult) -> dict[str, Any]:
        return {
            "policy": place[label],
            "suite": result.suite,
            "seed": result.seed,
            "where": where,
            "norm": result.means["normalised"],
            "seconds": result.seconds["total"],
            "id": run_id(result),
        }

    return [
        run(sweep.labels[job.directory], job.directory.relative_to(sweep.root).as_posix(), result)
        for job, result in sweep.finished
    ]


def _gantts(report: Report) -> list[dict[str, Any]]:
    """Schedules of the first seed of each suite: best policies first, while they fit."""
    from fate_gym.lab.results import read_schedules

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
    gantts = [
        {"suite": suite, "problem": problem}
        | entry
        | {kind: list(entry[kind]) for kind in ("models", "stages")}
        for (suite, problem), entry in found.items()
    ]
    # First the one in which most happens: it says most.
    return sorted(gantts, key=lambda one: -max(len(s["start"]) for s in one["schedules"]))


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


def _rounded(value: Any) -> Any:
    """Floats with five significant digits, and None for what is no number: half the size."""
    if isinstance(value, float):
        return None if value != value or value in (float("inf"), -float("inf")) else _short(value)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def _short(value: float) -> float | int:
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e9 else short


__all__ = ["PolicySummary", "page_data", "render_page"]
