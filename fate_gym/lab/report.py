"""Tables and figures of a sweep, from its result files alone."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from fate_gym.errors import InputError
from fate_gym.lab import results
from fate_gym.lab.results import Job, JobResult, Schedule
from fate_gym.lab.summary import (
    SUMMARY_COLUMNS,
    PolicySummary,
    interval_text,
    mechanism_means,
    strongest_baseline,
    summarise,
)
from fate_gym.lab.sweep import Sweep, read_sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "ecdf.png": "Share of workflows within a factor of round robin's makespan",
    "forest.png": "Mean normalised makespan",
    "mechanism.png": "Mechanism, means over workflows",
    "gantt.png": "One problem, three schedules",
}
"""Files and titles of the figures, in the order of the report."""


@dataclass(frozen=True)
class Report:
    """A sweep and its statistics.

    Attributes:
        sweep: what was read.
        summary: one record a policy over all suites, best mean first.
        suites: the same for each suite.
        strongest: the strongest baseline over all suites, if there is one.
    """

    sweep: Sweep
    summary: list[PolicySummary]
    suites: dict[str, list[PolicySummary]]
    strongest: str | None

    @property
    def order(self) -> list[str]:
        """Policies, best mean first."""
        return [row.policy for row in self.summary]


def make_report(root: Path) -> Report:
    """Read a sweep and write its tables and figures beside the results.

    Writes ``summary.csv``, ``summary_by_suite.csv``, ``report.md`` and the `FIGURES` into ``root``.

    Raises:
        InputError: the directory holds no finished job, or cannot be written.
    """
    report = compute_report(root)
    figures = draw_figures(report)
    by_suite = [(suite, row) for suite, rows in report.suites.items() for row in rows]
    try:
        results.write_text(
            root / "summary.csv",
            _csv(SUMMARY_COLUMNS, (astuple(row) for row in report.summary)),
        )
        results.write_text(
            root / "summary_by_suite.csv",
            _csv(("suite", *SUMMARY_COLUMNS), ((suite, *astuple(row)) for suite, row in by_suite)),
        )
        for name, figure in figures.items():
            figure.savefig(root / name)
        results.write_text(root / "report.md", markdown(report, list(figures)))
    except OSError as error:
        raise InputError(
            f"cannot write here ({error.strerror})", source=root, remedy="check permissions"
        ) from None
    return report


def compute_report(root: Path) -> Report:
    """The statistics of a sweep; writes nothing. Raises `InputError` without a finished job."""
    sweep = read_sweep(root)
    summary = summarise(sweep.rows, sweep.decisions, sweep.families)
    by_suite = {str(suite): rows for suite, rows in sweep.rows.groupby("suite")}
    decisions = {str(suite): rows for suite, rows in sweep.decisions.groupby("suite")}
    suites = {
        suite: summary if len(by_suite) == 1 else summarise(rows, decisions[suite], sweep.families)
        for suite, rows in by_suite.items()
    }
    strongest = strongest_baseline([row.policy for row in summary], sweep.families)
    return Report(sweep, summary, suites, strongest)


def draw_figures(report: Report) -> dict[str, Figure]:
    """The report's figures by file name."""
    from fate_gym.lab import plots

    sweep, order = report.sweep, report.order
    colours = plots.policy_colours(order, sweep.families)
    by_policy = {str(name): rows["normalised"] for name, rows in sweep.rows.groupby("policy")}
    panels = {"all suites": report.summary} | report.suites
    if len(report.suites) == 1:
        panels = dict(report.suites)
    figures = {
        "ecdf.png": plots.ecdf_figure({p: by_policy[p].to_numpy() for p in order}, colours),
        "forest.png": plots.forest_figure(panels, colours),
        "mechanism.png": plots.mechanism_figure(mechanism_means(sweep.rows, order), colours),
    }
    schedules = pick_schedules(report)
    if schedules:
        title = next(iter(schedules.values())).problem
        figures["gantt.png"] = plots.gantt_figure(schedules, title=title)
    return figures


def pick_schedules(report: Report) -> dict[str, Schedule]:
    """Schedules of one problem for the Gantt picture.

    Round robin, the strongest baseline and the best FATE policy that the sweep has, on the first
    suite and seed that all of them have finished; empty if there is none.
    """
    sweep = report.sweep
    best_fate = next((name for name in report.order if sweep.families[name] == "fate"), None)
    wanted = [name for name in (report.strongest, best_fate) if name and name != "round_robin"]
    cells: dict[tuple[str, int], dict[str, Job]] = {}
    for job, result in sweep.finished:
        cell = cells.setdefault((result.suite_hash, result.seed), {})
        cell.setdefault(sweep.labels[job.directory], job)
    for cell in cells.values():
        if set(wanted) <= set(cell):
            schedules: dict[str, Schedule] = {}
            for name in wanted or list(cell)[:1]:
                kept = results.read_schedules(cell[name].directory)
                schedules.setdefault("round_robin", kept["round_robin"])
                schedules[name] = kept[cell[name].policy]
            return schedules
    return {}


def markdown(report: Report, figures: Sequence[str]) -> str:
    """The report as Markdown, with links to its figures."""
    sweep = report.sweep
    several = len(report.suites) > 1
    what = f"{len(sweep.finished)} jobs, {len(sweep.rows)} workflows"
    lines = [
        f"# {sweep.root.resolve().name}",
        "",
        f"Real topology, modelled attributes: {what}.",
        "",
        "```",
        *commands(sweep),
        shlex.join(["python", "scripts/report.py", str(sweep.root)]),
        "```",
        "",
    ]
    gaps = sweep.gaps()
    if gaps:
        lines += ["## Without a result", "", *(f"- {line}" for line in gaps), ""]
    lines += [f"## {'All suites' if several else next(iter(report.suites))}", ""]
    lines += [*_summary_lines(report.summary), "", _legend(report.strongest), ""]
    if several:
        for suite, rows in report.suites.items():
            lines += [f"## {suite}", "", *_summary_lines(rows), ""]
    for name in figures:
        lines += [f"![{FIGURES[name]}]({name})", ""]
    lines += ["## State intensity", "", *_intensity_lines(sweep), ""]
    lines += ["## Made with", "", *_origin_lines(sweep)]
    return "\n".join(lines) + "\n"


def _legend(strongest: str | None) -> str:
    against = (
        f"Wins, difference and p are against `{strongest}`, the strongest baseline here, on common "
        "workflows; p is Wilcoxon's signed-rank test on instances with Holm's correction."
        if strongest
        else "There is no baseline to compare with."
    )
    return (
        "Norm. makespan: time from arrival to end / round robin's on the same workflow, cluster "
        "and seed; mean over workflows, with a 95 % bootstrap interval that draws whole "
        "instances. P95: 95th percentile of that ratio over workflows; in a stream, the ratio of "
        f"the 95th percentiles of latency. Gap: latency / lower bound. {against}"
    )


def _summary_lines(rows: Sequence[PolicySummary]) -> list[str]:
    heads = [
        "policy",
        "n",
        "norm. makespan [95 % CI]",
        "P95 [95 % CI]",
        "gap",
        "wins",
        "vs strongest",
        "p",
        "decision ms P50 / P99",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|--:" * (len(heads) - 1) + "|"]
    for row in rows:
        cells = [
            row.policy,
            str(row.n),
            interval_text(row.norm_makespan, row.norm_makespan_lo, row.norm_makespan_hi),
            interval_text(row.norm_p95, row.norm_p95_lo, row.norm_p95_hi),
            _number(row.gap_to_bound, ".2f"),
            _number(row.win_rate, ".0%"),
            _number(row.vs_strongest_pct, "+.1f", " %"),
            _number(row.p_value, ".2g"),
            f"{row.decision_ms_p50:.2f} / {row.decision_ms_p99:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(value: float, form: str, unit: str = "") -> str:
    return "–" if isnan(value) else f"{value:{form}}{unit}"


def _intensity_lines(sweep: Sweep) -> list[str]:
    lines = [
        "(Load + transfer + prefix prefill, all cold) / execution, over workflows.",
        "",
        "| suite | mean | least | most |",
        "|---|--:|--:|--:|",
    ]
    for suite, rows in sweep.rows.groupby("suite"):
        one = rows.drop_duplicates(["problem", "workflow", "seed"])["state_intensity"]
        lines.append(f"| {suite} | {one.mean():.2f} | {one.min():.2f} | {one.max():.2f} |")
    return lines


def _origin_lines(sweep: Sweep) -> list[str]:
    made = [result for _, result in sweep.finished]
    versions = {", ".join(f"{name} {v}" for name, v in sorted(r.versions.items())) for r in made}
    return [
        *(f"- machine: {machine}" for machine in sorted({r.machine for r in made})),
        *(f"- commit: {sha}" for sha in sorted({r.git_sha or "unknown" for r in made})),
        *(f"- versions: {text}" for text in sorted(versions)),
    ]


def commands(sweep: Sweep) -> list[str]:
    """The commands that make the results, one for each set of further options."""
    groups: dict[tuple[str, ...], list[JobResult]] = {}
    for _, result in sweep.finished:
        further = tuple(
            option
            for option in result.overrides
            if option.split("=", 1)[0].split(".")[0]
            not in {"suite", "policy", "seed", "name", "tracking", "paths", "sweep", "trace"}
            or option.startswith(("suite.", "policy."))
        )
        groups.setdefault(further, []).append(result)
    lines = []
    for further, group in groups.items():
        axes = {
            "suite": sorted({result.suite for result in group}),
            "policy": sorted({result.policy for result in group}),
            "seed": [str(seed) for seed in sorted({result.seed for result in group})],
        }
        many = ["-m"] if any(len(axis) > 1 for axis in axes.values()) else []
        options = [f"name={group[0].name}", *(f"{key}={','.join(v)}" for key, v in axes.items())]
        lines.append(shlex.join(["python", "scripts/evaluate.py", *many, *options, *further]))
    return lines


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        # An empty cell where there is no value: what every reader of CSV takes for missing.
        writer.writerow(["" if value != value else value for value in row])
    return text.getvalue()
