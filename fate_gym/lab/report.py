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

from pydantic import ValidationError

from fate_gym.errors import InputError, near_matches
from fate_gym.lab import results
from fate_gym.lab.config import ReportConfig
from fate_gym.lab.launch import SWEEP, read_remembered
from fate_gym.lab.results import Job, JobResult, Schedule, total_counters
from fate_gym.lab.summary import (
    SUMMARY_COLUMNS,
    Baselines,
    PolicySummary,
    Versus,
    choose_baselines,
    decision_quantiles,
    effects_of,
    interval_text,
    mean_interval,
    mean_order,
    mechanism_means,
    summarise,
)
from fate_gym.lab.sweep import Sweep, read_sweep
from fate_gym.metrics.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {
    "forest": "Mean normalised makespan",
    "ecdf": "Share of workflows within a factor of round robin's makespan",
    "profile": "Share of workflows within a factor of the best policy",
    "axis": "Mean normalised makespan over an axis",
    "intensity": "Gain over the strongest baseline against state intensity",
    "mechanism": "Mechanism, means over workflows",
    "latency": "Wall-clock time of a decision",
    "gantt": "One problem, three schedules",
}
"""Names and titles of the figures, in the order of the report; each is a PNG and an SVG file."""


@dataclass(frozen=True)
class Report:
    """A sweep and its statistics.

    Attributes:
        sweep: what was read.
        spec: what the sweep's experiment wants to see.
        baselines: what policies are compared with.
        baseline_source: the sweep that they were chosen on, if it is another.
        summary: one record a policy over all suites, best mean first.
        suites: the same for each suite.
        effects: every other policy against the reference that ``spec`` names.
        curves: by policy, the mean at each value of the axis that ``spec`` names.
    """

    sweep: Sweep
    spec: ReportConfig
    baselines: Baselines
    baseline_source: Path | None
    summary: list[PolicySummary]
    suites: dict[str, list[PolicySummary]]
    effects: dict[str, Versus]
    curves: dict[str, dict[float, Interval]]

    @property
    def strongest(self) -> str | None:
        return self.baselines.strongest

    @property
    def order(self) -> list[str]:
        """Policies, best mean first."""
        return [row.policy for row in self.summary]

    @property
    def title(self) -> str:
        return self.spec.title or self.sweep.root.resolve().name


def make_report(root: Path, *, baseline_from: Path | None = None) -> Report:
    """Read a sweep and write its tables and figures beside the results.

    Writes ``report.html`` (all in one file), ``report.md``, ``summary.csv``,
    ``summary_by_suite.csv``, ``summary.tex`` and the `FIGURES` into ``root``.

    Args:
        root: directory of the sweep.
        baseline_from: another sweep, on the training split, whose best baselines are taken.

    Raises:
        InputError: the directory holds no finished job, or cannot be written.
    """
    from fate_gym.lab.page import render_page

    report = compute_report(root, baseline_from=baseline_from)
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
        results.write_text(root / "summary.tex", latex(report))
        for name, figure in figures.items():
            figure.savefig(root / f"{name}.png")
            figure.set_layout_engine("none")  # it is laid out: once is enough
            figure.savefig(root / f"{name}.svg", metadata={"Date": None})
        results.write_text(root / "report.md", markdown(report, list(figures)))
        results.write_text(root / "report.html", render_page(report))
    except OSError as error:
        raise InputError(
            f"cannot write here ({error.strerror})", source=root, remedy="check permissions"
        ) from None
    return report


def compute_report(root: Path, *, baseline_from: Path | None = None) -> Report:
    """The statistics of a sweep; writes nothing. Raises `InputError` without a finished job."""
    sweep = read_sweep(root)
    spec = _spec(root)
    chosen_on = sweep if baseline_from is None else read_sweep(baseline_from)
    baselines = choose_baselines(mean_order(chosen_on.rows), chosen_on.families, chosen_on.boosted)
    if baseline_from is not None and baselines.strongest not in sweep.families:
        raise InputError(
            f"{baselines.strongest} is not in this sweep, and is the strongest of {baseline_from}",
            source=root,
            remedy=f"run it here too: policy={baselines.strongest}",
        )
    summary = summarise(sweep.rows, sweep.decisions, sweep.families, baselines)
    by_suite = {str(suite): rows for suite, rows in sweep.rows.groupby("suite")}
    decisions = {str(suite): rows for suite, rows in sweep.decisions.groupby("suite")}
    suites = {
        suite: summary
        if len(by_suite) == 1
        else summarise(rows, decisions[suite], sweep.families, baselines)
        for suite, rows in by_suite.items()
    }
    return Report(
        sweep=sweep,
        spec=spec,
        baselines=baselines,
        baseline_source=baseline_from,
        summary=summary,
        suites=suites,
        effects=effects_of(sweep.rows, sweep.families, spec.reference) if spec.reference else {},
        curves=curves_over(sweep, spec.axis) if spec.axis else {},
    )


def _spec(root: Path) -> ReportConfig:
    """What the experiment of a sweep wants its report to show, kept by the sweep itself."""
    try:
        return ReportConfig.model_validate(read_remembered(root).get("report") or {})
    except ValidationError as error:
        raise InputError(
            error.errors()[0]["msg"], source=root / SWEEP, remedy="delete the file"
        ) from None


def curves_over(sweep: Sweep, axis: str) -> dict[str, dict[float, Interval]]:
    """By policy, the mean normalised makespan and its interval at each value of an axis.

    Args:
        sweep: the sweep.
        axis: a column of ``workflows.parquet``, or an option of the jobs. Of a column with more
            than twelve values, eight quantile groups at their medians.

    Raises:
        InputError: the axis is neither, or its values are no numbers.
    """
    import pandas as pd

    rows = sweep.rows
    if axis in rows:
        values = pd.to_numeric(rows[axis], errors="coerce")
        names = rows["policy"]
    else:
        options = {str(job.directory): sweep.option(job, axis) for job, _ in sweep.finished}
        plain = {str(job.directory): job.policy for job, _ in sweep.finished}
        values = pd.to_numeric(rows["job"].map(options), errors="coerce")
        # Variants along the axis are one line, not a policy each.
        names = rows["job"].map(plain) if axis.startswith("policy.") else rows["policy"]
    if values.isna().all():
        raise InputError(
            f"no numbers to draw over: {axis!r} is neither a column of workflows nor an option",
            source=sweep.root / SWEEP,
            field="report.axis",
            remedy="e.g. report.axis=devices or report.axis=policy.params.horizon",
        )
    if values.nunique() > 12:
        groups = pd.qcut(values, 8, duplicates="drop", labels=False)
        values = values.groupby(groups).transform("median")
    table = rows.assign(_name=names, _x=values).dropna(subset="_x")
    return {
        str(name): {x: mean_interval(line[line["_x"] == x]) for x in sorted(set(line["_x"]))}
        for name, line in table.groupby("_name")
    }


def draw_figures(report: Report) -> dict[str, Figure]:
    """The report's figures by name."""
    from fate_gym.lab import plots

    sweep, order = report.sweep, report.order
    colours = plots.policy_colours(order, sweep.families)
    by_policy = {str(name): rows["normalised"] for name, rows in sweep.rows.groupby("policy")}
    panels = {"all suites": report.summary} | report.suites
    if len(report.suites) == 1:
        panels = dict(report.suites)
    table = sweep.rows.pivot_table(
        index=["suite", "problem", "workflow", "seed"], columns="policy", values="normalised"
    )
    figures = {
        "forest": plots.forest_figure(panels, colours),
        "ecdf": plots.ecdf_figure({p: by_policy[p].to_numpy() for p in order}, colours),
        "profile": plots.profile_figure(
            {p: (table[p] / table.min(axis=1)).dropna().to_numpy() for p in order}, colours
        ),
        "mechanism": plots.mechanism_figure(mechanism_means(sweep.rows, order), colours),
        "latency": plots.latency_figure(decision_quantiles(sweep.decisions, order), colours),
    }
    best = best_of_family(report, "fate") or next(iter(order))
    if report.strongest in table and report.strongest != best:
        ratio = (table[best] / table[report.strongest]).dropna()
        keyed = sweep.rows.drop_duplicates(list(table.index.names)).set_index(table.index.names)
        if not ratio.empty:  # an unfinished sweep may hold no workflow that both have played
            figures["intensity"] = plots.intensity_figure(
                keyed["state_intensity"][ratio.index].to_numpy(),
                100.0 * (1.0 - ratio.to_numpy()),
                policy=best,
                against=str(report.strongest),
            )
    if report.curves:
        assert report.spec.axis is not None
        lines = [name for name in order if name in report.curves]
        lines += [name for name in report.curves if name not in lines]
        families = {job.policy: result.family for job, result in sweep.finished} | sweep.families
        figures["axis"] = plots.axis_figure(
            {name: report.curves[name] for name in lines},
            plots.policy_colours(lines, families),
            axis=report.spec.axis,
        )
    schedules = pick_schedules(report)
    if schedules:
        title = next(iter(schedules.values())).problem
        figures["gantt"] = plots.gantt_figure(schedules, title=title)
    wanted = report.spec.figures or tuple(FIGURES)
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise InputError(
            f"unknown figure {unknown[0]!r}",
            source=sweep.root / SWEEP,
            field="report.figures",
            remedy=near_matches(unknown[0], FIGURES),
        )
    return {name: figures[name] for name in wanted if name in figures}


def best_of_family(report: Report, family: str) -> str | None:
    """The best policy of a family in a sweep."""
    return next((name for name in report.order if report.sweep.families[name] == family), None)


def pick_schedules(report: Report) -> dict[str, Schedule]:
    """Schedules of one problem for the Gantt picture.

    Round robin, the strongest baseline and the best FATE policy that the sweep has, on the first
    suite and seed that all of them have finished; empty if there is none.
    """
    sweep = report.sweep
    wanted = [
        name
        for name in (report.strongest, best_of_family(report, "fate"))
        if name and name != "round_robin"
    ]
    cells: dict[tuple[str, int], dict[str, Job]] = {}
    for job, result in sweep.finished:
        cell = cells.setdefault((result.suite_hash, result.seed), {})
        cell.setdefault(sweep.labels[job.directory], job)
    for cell in cells.values():
        if set(wanted) <= set(cell):
            schedules: dict[str, Schedule] = {}
            for name in wanted or list(cell)[:1]:
                kept = results.first_schedules(cell[name].directory)
                schedules.setdefault("round_robin", kept["round_robin"])
                schedules[name] = kept[cell[name].policy]
            return schedules
    return {}


def markdown(report: Report, figures: Sequence[str]) -> str:
    """The report as Markdown, with links to its figures."""
    sweep = report.sweep
    several = len(report.suites) > 1
    lines = [f"# {report.title}", "", f"{what(report)}.", "", "```", *commands(report), "```", ""]
    gaps = sweep.gaps()
    if gaps:
        lines += ["## Without a result", "", *(f"- {line}" for line in gaps), ""]
    lines += [f"## {'All suites' if several else next(iter(report.suites))}", ""]
    lines += [*_summary_lines(report.summary), "", legend(report), ""]
    if several:
        for suite, rows in report.suites.items():
            lines += [f"## {suite}", "", *_summary_lines(rows), ""]
        lines += ["## By suite", "", *_by_suite_lines(report), ""]
    if any(not isnan(row.headroom_strict) for row in report.summary):
        lines += ["## Headroom captured", "", *_headroom_lines(report), ""]
    counters = _counter_lines(sweep)
    if counters:
        lines += ["## Counters", "", *counters, ""]
    if report.effects:
        lines += [f"## Against {report.spec.reference}", "", *_effect_lines(report), ""]
    for name in figures:
        lines += [f"![{FIGURES[name]}]({name}.png)", ""]
    lines += ["## State intensity", "", *_intensity_lines(sweep), ""]
    lines += ["## Made with", "", *(f"- {line}" for line in origin_lines(sweep))]
    return "\n".join(lines) + "\n"


def what(report: Report) -> str:
    """What was run, in a line."""
    sweep = report.sweep
    return (
        f"Real topology, modelled attributes: {len(sweep.finished)} jobs, "
        f"{len(sweep.rows)} workflows"
    )


def latex(report: Report) -> str:
    """The summary as a LaTeX table, for the package ``booktabs``."""
    lines = [f"% {line}" for line in ("made by:", *commands(report))] + [
        r"\begin{tabular}{lrlrrrr}",
        r"\toprule",
        r"policy & $n$ & norm.\ makespan [95\,\% CI] & P95 & gap & vs strongest & $p$ \\",
        r"\midrule",
    ]
    for row in report.summary:
        cells = [
            row.policy.replace("_", r"\_"),
            str(row.n),
            interval_text(row.norm_makespan, row.norm_makespan_lo, row.norm_makespan_hi),
            number(row.norm_p95, ".3f"),
            number(row.gap_to_bound, ".2f"),
            number(row.vs_strongest_pct, "+.1f", r"\,\%"),
            number(row.p_value, ".2g"),
        ]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def legend(report: Report) -> str:
    """What the columns of the summary mean."""
    strongest = report.strongest
    chosen = f"chosen on {report.baseline_source}" if report.baseline_source else "chosen here"
    against = (
        f"Wins, difference [95 % CI] and p are against `{strongest}`, the strongest baseline "
        f"({chosen}), on common workflows; p is Wilcoxon's signed-rank test on instances with "
        "Holm's correction."
        if strongest
        else "There is no baseline to compare with."
    )
    return (
        "Norm. makespan: time from arrival to end / round robin's on the same workflow, cluster "
        "and seed; mean over workflows, with a 95 % bootstrap interval that draws whole "
        "instances (graphs, or streams). P95: 95th percentile of that ratio over workflows; in a "
        "stream, the ratio of the 95th percentiles of latency. Gap: latency / lower bound. "
        f"{against}"
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
            number(row.gap_to_bound, ".2f"),
            number(row.win_rate, ".0%"),
            percent_text(row.vs_strongest_pct, row.vs_strongest_lo, row.vs_strongest_hi),
            number(row.p_value, ".2g"),
            f"{row.decision_ms_p50:.2f} / {row.decision_ms_p99:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _by_suite_lines(report: Report) -> list[str]:
    """Means of every policy on every suite, and who is the strongest baseline there."""
    columns = []
    for rows in report.suites.values():
        cells = {
            row.policy: interval_text(row.norm_makespan, row.norm_makespan_lo, row.norm_makespan_hi)
            for row in rows
        }
        # The rows of a suite are in the order of their means.
        strongest = choose_baselines(
            list(cells), report.sweep.families, report.sweep.boosted
        ).strongest
        if strongest is not None:
            cells[strongest] = f"**{cells[strongest]}**"
        columns.append(cells)
    lines = [f"| policy | {' | '.join(report.suites)} |", "|---" + "|--:" * len(columns) + "|"]
    for name in report.order:
        lines.append(f"| {name} | {' | '.join(cells.get(name, '–') for cells in columns)} |")
    return [*lines, "", "Bold: the strongest baseline of a suite."]


def _headroom_lines(report: Report) -> list[str]:
    baselines = report.baselines
    lines = [
        f"| policy | from {baselines.strict} (strict) | from {baselines.boosted} (boosted) |",
        "|---|--:|--:|",
    ]
    for row in report.summary:
        if not isnan(row.headroom_strict) and row.headroom_strict > 0.0:
            cells = [number(row.headroom_strict, ".0%"), number(row.headroom_boosted, ".0%")]
            lines.append(f"| {row.policy} | {' | '.join(cells)} |")
    return lines


def _counter_lines(sweep: Sweep) -> list[str]:
    """What policies count, summed over their jobs."""
    of_policy: dict[str, list[dict[str, float]]] = {}
    for job, result in sweep.finished:
        if result.counters:
            of_policy.setdefault(sweep.labels[job.directory], []).append(result.counters)
    lines = [
        f"| {name} | {', '.join(f'{key} {value:,.0f}' for key, value in totals.items())} |"
        for name, totals in ((n, total_counters(found)) for n, found in of_policy.items())
    ]
    return ["| policy | counters, over all problems |", "|---|---|", *lines] if lines else []


def _effect_lines(report: Report) -> list[str]:
    lines = ["| policy | n | difference [95 % CI] | wins | p |", "|---|--:|--:|--:|--:|"]
    for name, effect in report.effects.items():
        cells = [
            name,
            str(effect.n),
            percent_text(effect.percent, effect.low, effect.high),
            number(effect.win_rate, ".0%"),
            number(effect.p_value, ".2g"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent_text(value: float, low: float, high: float) -> str:
    """A difference in percent with its interval, where there is one."""
    text = number(value, "+.1f", " %")
    return text if isnan(low) else f"{text} [{low:+.1f}, {high:+.1f}]"


def number(value: float, form: str, unit: str = "") -> str:
    """A number with its unit, or a dash where there is none."""
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


def origin_lines(sweep: Sweep) -> list[str]:
    """Machines, commits and versions that the results were made with."""
    made = [result for _, result in sweep.finished]
    versions = {", ".join(f"{name} {v}" for name, v in sorted(r.versions.items())) for r in made}
    return [
        *(f"machine: {machine}" for machine in sorted({r.machine for r in made})),
        *(f"commit: {sha}" for sha in sorted({r.git_sha or "unknown" for r in made})),
        *(f"versions: {text}" for text in sorted(versions)),
    ]


def commands(report: Report) -> list[str]:
    """The commands that make the results and the report.

    Those that the sweeps kept; of single jobs, one for each set of further options.
    """
    sweep = report.sweep
    kept = read_remembered(sweep.root).get("commands", [])
    script = ["python", "scripts/evaluate.py"]
    lines = [shlex.join([*script, *map(str, command)]) for command in kept]
    last = ["python", "scripts/report.py", str(sweep.root)]
    if report.baseline_source is not None:
        last += ["--baseline-from", str(report.baseline_source)]
    return [*(lines or _job_commands(sweep)), shlex.join(last)]


def _job_commands(sweep: Sweep) -> list[str]:
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
