"""The figures of a report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from fate_gym.errors import InputError, near_matches
from fate_gym.lab.jobs.find import Job
from fate_gym.lab.jobs.schedules import Schedule, first_schedules
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.figures.curves import axis_figure, intensity_figure
from fate_gym.lab.report.figures.gantt import gantt_figure
from fate_gym.lab.report.figures.heatmap import map_figure
from fate_gym.lab.report.figures.occupancy import occupancy_figure
from fate_gym.lab.report.figures.rows import bars_figure, decision_time_figure, forest_figure
from fate_gym.lab.report.figures.session import most_again, session_figure
from fate_gym.lab.report.figures.shares import (
    differences_figure,
    ecdf_figure,
    profile_figure,
)
from fate_gym.lab.report.figures.style import OTHERS, policy_colours
from fate_gym.lab.report.mechanism import decision_quantiles, mechanism_means
from fate_gym.lab.report.serving import serving_panels
from fate_gym.lab.report.sessions import session_rows
from fate_gym.lab.sweep.command import SWEEP
from fate_gym.lab.sweep.results import WORKFLOW

FIGURES = {
    "map": "Gains by devices and setting, percent",
    "forest": "Mean latency / RoundRobin",
    "ecdf": "Share of workflows within a factor of round robin's latency",
    "differences": "Difference to the strongest baseline, workflow by workflow",
    "profile": "Share of workflows within a factor of the best policy's latency",
    "axis": "Results over an axis",
    "intensity": "Gain over the strongest baseline against state intensity",
    "mechanism": "Mechanism, means over workflows",
    "serving": "Serving metrics, means over runs",
    "occupancy": "Queries in service over time",
    "decision_time": "Wall-clock time of a decision",
    "gantt": "One problem, three schedules",
    "session": "Who prefills what again: one session",
}
"""Names and titles of the figures in report order; each is written as a PNG and an SVG file."""

MOST_PANELS = 5
"""Most policies whose schedules are drawn together; if there are more, only the best."""


def draw_figures(report: Report) -> dict[str, Figure]:
    """Draw the report's figures by name: those its experiment asks for and its data allow.

    Raises:
        InputError: the experiment names an unknown figure.
    """
    sweep, order = report.sweep, report.order
    colours = policy_colours(order, sweep.families)
    table = sweep.rows.pivot_table(index=WORKFLOW, columns="policy", values="latency_ratio")
    ratios = {name: table[name].dropna().to_numpy() for name in order}
    to_best = table.div(table.min(axis=1), axis=0)
    profile = {name: to_best[name].dropna().to_numpy() for name in order}
    panels = (
        report.suites if len(report.suites) == 1 else {"all suites": report.summary} | report.suites
    )
    draw: dict[str, Callable[[], Figure | None]] = {
        "map": lambda: _map(report),
        "forest": lambda: forest_figure(panels, colours),
        "ecdf": lambda: ecdf_figure(ratios, colours),
        "differences": lambda: _differences(report, table, colours),
        "profile": lambda: profile_figure(profile, colours),
        "axis": lambda: _axis(report),
        "intensity": lambda: _intensity(report, table),
        "mechanism": lambda: bars_figure(mechanism_means(sweep.rows, order), colours),
        "serving": lambda: _serving(report, colours),
        "occupancy": lambda: _occupancy(report),
        "decision_time": lambda: decision_time_figure(
            decision_quantiles(sweep.decisions, order), colours
        ),
        "gantt": lambda: _gantt(report),
        "session": lambda: _session(report),
    }
    wanted = report.spec.figures or tuple(FIGURES)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise InputError(
            f"unknown figure {unknown[0]!r}",
            source=sweep.root / SWEEP,
            field="report.figures",
            remedy=near_matches(unknown[0], FIGURES),
        )
    drawn = {name: draw[name]() for name in wanted}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _map(report: Report) -> Figure | None:
    spec = report.spec.map
    return map_figure(report.panels, spec) if spec is not None and report.panels else None


def _axis(report: Report) -> Figure | None:
    if not report.curves:
        return None
    lines = sorted(report.curves, key=[*report.order, *report.curves].index)
    names = {job.policy: result.family for job, result in report.sweep.finished}
    colours = policy_colours(lines, names | report.sweep.families)
    curves = {name: report.curves[name] for name in lines}
    words = str(report.spec.axis_name or report.spec.axis)
    return axis_figure(curves, colours, axis=words, reference=report.spec.reference)


def _differences(report: Report, table: pd.DataFrame, colours: Mapping[str, str]) -> Figure | None:
    """Draw the differences to the strongest baseline, for the policies that have a colour."""
    strongest = report.strongest
    if strongest is None or strongest not in table:
        return None
    shown = {
        row.policy: row.vs_strongest_pct
        for row in report.summary
        if row.policy not in (strongest, "round_robin") and colours[row.policy] != OTHERS
    }
    percent = {
        name: (100.0 * (table[name] / table[strongest] - 1.0)).dropna().to_numpy() for name in shown
    }
    if not any(values.size for values in percent.values()):
        return None
    return differences_figure(percent, shown, colours, against=strongest)


def _intensity(report: Report, table: pd.DataFrame) -> Figure | None:
    """Draw the gain over the strongest baseline of the best FATE policy, or best policy."""
    best, strongest = report.best, report.strongest
    if strongest not in table or strongest == best:
        return None
    ratio = (table[best] / table[strongest]).dropna()
    if ratio.empty:  # an unfinished sweep may have no workflow that both have played
        return None
    keyed = report.sweep.rows.drop_duplicates(WORKFLOW).set_index(WORKFLOW)
    return intensity_figure(
        keyed["state_intensity"][ratio.index].to_numpy(),
        100.0 * (1.0 - ratio.to_numpy()),
        policy=best,
        against=str(strongest),
    )


def _serving(report: Report, colours: Mapping[str, str]) -> Figure | None:
    panels = serving_panels(report.sweep.rows, report.order)
    return bars_figure(panels, colours) if panels else None


def _occupancy(report: Report) -> Figure | None:
    """Draw the occupancy of every policy, or of the best if there are many."""
    few = len(report.order) <= MOST_PANELS
    schedules = pick_schedules(report, report.order if few else best_policies(report))
    if not schedules:
        return None
    ordered = {name: schedules[name] for name in report.order if name in schedules} | schedules
    return occupancy_figure(ordered, title=next(iter(schedules.values())).problem)


def _gantt(report: Report) -> Figure | None:
    schedules = pick_schedules(report, best_policies(report))
    if not schedules:
        return None
    return gantt_figure(schedules, title=next(iter(schedules.values())).problem)


def _session(report: Report) -> Figure | None:
    """Draw a session of a suite that has sessions."""
    suites = set(session_rows(report.sweep.rows)["suite"])
    few = len(report.order) <= MOST_PANELS
    schedules = pick_schedules(report, report.order if few else best_policies(report), suites)
    session = most_again(schedules.values())
    if not session:
        return None
    ordered = {name: schedules[name] for name in report.order if name in schedules} | schedules
    title = f"{session}, a session of {next(iter(schedules.values())).problem}"
    return session_figure(ordered, session, title=title)


def best_policies(report: Report) -> list[str]:
    """Return the strongest baseline and the best FATE policy, as far as the sweep has them."""
    return [name for name in (report.strongest, report.best_fate) if name is not None]


def pick_schedules(
    report: Report, policies: Sequence[str], suites: Collection[str] | None = None
) -> dict[str, Schedule]:
    """Read schedules of one problem: those of round robin and of some policies.

    The problem is from the first suite and seed that all of them have finished; empty if there is
    none. Without policies, any finished one is used. ``suites`` restricts the suites.
    """
    sweep = report.sweep
    suite_of = sweep.rows.drop_duplicates("job").set_index("job")["suite"]
    wanted = [name for name in policies if name != "round_robin"]
    cells: dict[tuple[str, int], dict[str, Job]] = defaultdict(dict)
    for job, result in sweep.finished:
        if suites is not None and suite_of[str(job.directory)] not in suites:
            continue
        cell = cells[result.suite_hash, result.seed]
        cell.setdefault(sweep.labels[job.directory], job)
    for cell in cells.values():
        if set(wanted) <= set(cell):
            schedules: dict[str, Schedule] = {}
            for name in wanted or list(cell)[:1]:
                kept = first_schedules(cell[name].directory)
                schedules.setdefault("round_robin", kept["round_robin"])
                schedules[name] = kept[cell[name].policy]
            return schedules
    return {}
