"""The data that ``report.html`` draws, as plain values; missing numbers are NaN."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from fate_gym.lab.report.axis import curves_over
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.mechanism import decision_quantiles, mechanism_means
from fate_gym.lab.report.serving import serving_panels
from fate_gym.lab.report.versus import Versus, effects_of
from fate_gym.lab.sweep.results import WORKFLOW, Sweep
from fate_gym.lab.tables import Estimate


def page_data(report: Report) -> dict[str, Any]:
    """Collect everything that the page draws; the key for all suites together is ``""``."""
    sweep, order = report.sweep, report.order
    place = {name: number for number, name in enumerate(order)}
    suites = list(report.suites)
    summaries = {"": report.summary} | (report.suites if len(suites) > 1 else {})
    parts = {suite: sweep.of_suite(suite) if suite else sweep for suite in summaries}
    return {
        "policies": [{"name": name, "family": sweep.families[name]} for name in order],
        "suites": suites,
        "strongest": report.strongest,
        "best": report.best,
        "summaries": {
            suite: [row.columns() | {"policy": place[row.policy]} for row in rows]
            for suite, rows in summaries.items()
        },
        "mechanism": {suite: _by_family(part, order, _mechanism) for suite, part in parts.items()},
        "serving": {suite: _by_family(part, order, _serving) for suite, part in parts.items()},
        "decision_time": {
            suite: decision_quantiles(part.decisions, order) for suite, part in parts.items()
        },
        "effects": {
            "reference": report.spec.reference,
            "rows": {
                family: [
                    {"policy": name, "p_value": effect.p_value}
                    | effect.difference.columns("difference")
                    for name, effect in effects.items()
                ]
                for family, effects in _effects(report).items()
            },
        },
        "axis": {
            "name": report.spec.axis_name or report.spec.axis,
            "reference": report.spec.reference,
            "lines": {
                family: [
                    {"policy": name, "points": [[x, *one] for x, one in curve.items()]}
                    for name, curve in curves.items()
                ]
                for family, curves in _curves(report).items()
            },
        },
        "runs": _runs(report, place),
    } | _workflows(sweep.rows, place, suites)


def _workflows(rows: pd.DataFrame, place: dict[str, int], suites: list[str]) -> dict[str, Any]:
    """Make one entry per workflow and seed, and one value per policy that ran it."""
    keyed = rows.assign(_key=rows.groupby(WORKFLOW, sort=False).ngroup())
    keys = keyed.drop_duplicates("_key").sort_values("_key")
    family, families = pd.factorize(keys["family"].astype(str), sort=True)
    instance, instances = pd.factorize(keys["instance"].astype(str))
    names = [
        str(workflow).removesuffix(f"/s{seed}")
        for workflow, seed in zip(keys["workflow"], keys["seed"], strict=True)
    ]
    label, labels = pd.factorize(pd.Series(names))
    return {
        "families": list(families),
        "instances": list(instances),
        "labels": list(labels),
        "keys": {
            "suite": keys["suite"].map(suites.index).tolist(),
            "family": family.tolist(),
            "instance": instance.tolist(),
            "label": label.tolist(),
            "seed": keys["seed"].tolist(),
            "stages": keys["stages"].tolist(),
            "intensity": keys["state_intensity"].tolist(),
        },
        "values": {
            "policy": keyed["policy"].map(place).tolist(),
            "key": keyed["_key"].tolist(),
            "latency_ratio": keyed["latency_ratio"].tolist(),
        },
    }


def families_of(part: Sweep) -> list[tuple[str, Sweep]]:
    """Split part of a sweep by family; the whole part comes first, with the name ``""``."""
    families = sorted(set(part.rows["family"].astype(str)))
    return [("", part), *((family, part.of_family(family)) for family in families)]


def _by_family(
    part: Sweep, order: list[str], panels: Callable[[Sweep, list[str]], list[dict[str, Any]]]
) -> dict[str, list[dict[str, Any]]]:
    return {family: panels(rows, order) for family, rows in families_of(part)}


def _effects(report: Report) -> dict[str, dict[str, Versus]]:
    """Compare, by family, every other policy with the reference."""
    found = {"": report.effects}
    reference = report.spec.reference
    if report.effects and reference is not None:
        for family, part in families_of(report.sweep)[1:]:
            if (part.rows["policy"] == reference).any():
                found[family] = effects_of(part.rows, part.families, reference)
    return found


def _curves(report: Report) -> dict[str, dict[str, dict[float, Estimate]]]:
    """Compute, by family, the curves over the axis."""
    found = {"": report.curves}
    if report.curves and report.spec.axis is not None:
        for family, part in families_of(report.sweep)[1:]:
            found[family] = curves_over(part, report.spec.axis, report.spec.reference)
    return found


def _serving(part: Sweep, order: list[str]) -> list[dict[str, Any]]:
    present = set(part.rows["policy"])
    panels = serving_panels(part.rows, [name for name in order if name in present])
    return [{"title": title, "values": values} for title, values in panels.items()]


def _mechanism(part: Sweep, order: list[str]) -> list[dict[str, Any]]:
    present = set(part.rows["policy"])
    means = mechanism_means(part.rows, [name for name in order if name in present])
    return [{"title": title, "values": values} for title, values in means.items()]


def _runs(report: Report, place: dict[str, int]) -> list[dict[str, Any]]:
    sweep = report.sweep
    suite_of = sweep.rows.drop_duplicates("job").set_index("job")["suite"]
    return [
        {
            "policy": place[sweep.labels[job.directory]],
            "suite": suite_of[str(job.directory)],
            "seed": result.seed,
            "where": job.directory.relative_to(sweep.root).as_posix(),
            "link": _link(job.directory.relative_to(sweep.root)),
            "latency_ratio": result.means.get("latency_ratio", math.inf),
            "seconds": result.seconds["total"],
            "id": result.run_id,
        }
        for job, result in sweep.finished
    ]


def _link(path: Path) -> str:
    """Make a relative URL in which no name, such as ``javascript:x``, can be read as a scheme."""
    return "./" + quote(os.fsencode(path.as_posix()))
