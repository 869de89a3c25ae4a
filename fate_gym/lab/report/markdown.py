"""``report.md``: the report as Markdown, e.g. to copy tables from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from math import isnan

import pandas as pd

from fate_gym.lab.jobs.result import total_counters
from fate_gym.lab.report.baselines import choose_baselines
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.figures.draw import FIGURES
from fate_gym.lab.report.mean_latency import MEAN_LATENCY_LEGEND, mean_latency_table
from fate_gym.lab.report.origin import commands, origin_lines, what
from fate_gym.lab.report.regime_tables import (
    GAIN_LEGEND,
    PUBLISHED_LEGEND,
    gain_tables,
    kinds_table,
    map_legend,
    published_table,
)
from fate_gym.lab.report.serving import SERVING, serving_legend, serving_means
from fate_gym.lab.report.sessions import SESSION_LEGEND, session_table
from fate_gym.lab.report.streams import STREAM_LEGEND, stream_table
from fate_gym.lab.report.summary_table import legend, markdown_summary
from fate_gym.lab.sweep.results import WORKFLOW, Sweep
from fate_gym.lab.tables import markdown_table, markdown_text, number


def markdown(report: Report, figures: Iterable[str]) -> str:
    """Format the report as Markdown, with links to its figures; empty sections are left out."""
    sweep = report.sweep
    # On a map every cell is a suite of its own: one table per cell would be too many.
    several = len(report.suites) > 1 and not report.panels
    sections = {
        "Without a result": _items(sweep.gaps()),
        "All suites" if len(report.suites) > 1 else next(iter(report.suites)): [
            *markdown_summary(report.summary), "", legend(report)
        ],
    }  # fmt: skip
    sections |= _regimes(report)
    sections["Over the strongest baselines"] = _kinds(report)
    if several:
        sections |= {suite: markdown_summary(rows) for suite, rows in report.suites.items()}
        sections["By suite"] = _by_suite(report)
        sections["Mean latency by suite"] = _mean_latency(report)
    sections["Headroom captured"] = _headroom(report)
    if not report.panels:
        sections |= _of_suites(report, "Latency in seconds", _latency, STREAM_LEGEND)
        sections |= _of_suites(report, "Sessions", _sessions, SESSION_LEGEND)
        sections |= _of_suites(report, "Serving", _serving)
    sections["Counters"] = _counters(sweep)
    sections[f"Against {report.spec.reference}"] = _effects(report)
    pictures = [f"![{FIGURES[name]}]({name}.png)\n" for name in figures]
    last = {"State intensity": _intensity(sweep), "Made with": _items(origin_lines(sweep))}
    lines = [
        f"# {markdown_text(report.title)}",
        "",
        f"{what(report)}.",
        "",
        "```",
        *commands(report),
        "```",
        "",
    ]
    return "\n".join([*lines, *_sections(sections), *pictures, *_sections(last)])


def _sections(sections: dict[str, list[str]]) -> Iterable[str]:
    for heading, lines in sections.items():
        if lines:
            yield from (f"## {markdown_text(heading)}", "", *lines, "")


def _items(lines: Sequence[str]) -> list[str]:
    return [f"- {markdown_text(line)}" for line in lines]


def _regimes(report: Report) -> dict[str, list[str]]:
    """Make a section for each policy of the map, and one on the published gains."""
    spec = report.spec.map
    if spec is None or not report.panels:
        return {}
    sections = {
        f"Regimes: {policy}": [*markdown_table(*table, left=2), "", map_legend(spec)]
        for policy, table in gain_tables(report.panels, spec).items()
    }
    published = published_table(report.panels, spec)
    if published is not None:
        sections["Published"] = [*markdown_table(*published), "", PUBLISHED_LEGEND]
    return sections


def _kinds(report: Report) -> list[str]:
    """Format gains over each kind of baseline; pooled over several suites they mean little."""
    table = kinds_table(report.gains) if len(report.suites) == 1 else None
    return [] if table is None else [*markdown_table(*table), "", GAIN_LEGEND]


def _by_suite(report: Report) -> list[str]:
    """Format the means of every policy on every suite, with the strongest baselines in bold."""
    sweep, columns = report.sweep, []
    for rows in report.suites.values():
        cells = {row.policy: row.latency_ratio.text() for row in rows}
        # The rows of a suite are sorted by their means.
        strongest = choose_baselines(list(cells), sweep.families, sweep.boosted).strongest
        if strongest is not None:
            cells[strongest] = f"**{cells[strongest]}**"
        columns.append(cells)
    table = [[name, *(cells.get(name, "–") for cells in columns)] for name in report.order]
    heads = ["policy", *report.suites]
    return [*markdown_table(heads, table), "", "Bold: the strongest baseline of a suite."]


def _mean_latency(report: Report) -> list[str]:
    sweep = report.sweep
    table = mean_latency_table(sweep.rows, report.order, sweep.families)
    return [] if table is None else [*markdown_table(*table), "", MEAN_LATENCY_LEGEND]


def _headroom(report: Report) -> list[str]:
    baselines = report.baselines
    if all(isnan(row.headroom_strict) for row in report.summary):
        return []
    return markdown_table(
        ["policy", f"from {baselines.strict} (strict)", f"from {baselines.boosted} (boosted)"],
        [
            (row.policy, number(row.headroom_strict, ".0%"), number(row.headroom_boosted, ".0%"))
            for row in report.summary
            if row.headroom_strict > 0.0
        ],
    )


def _of_suites(
    report: Report,
    heading: str,
    lines: Callable[[pd.DataFrame, list[str]], list[str]],
    legend: str | None = None,
) -> dict[str, list[str]]:
    """Make a section for each suite (which has one kind of devices), by heading.

    The legend follows the last section. Suites without lines are left out.
    """
    rows = report.sweep.rows
    found = {
        suite: lines(rows[rows["suite"] == suite], [row.policy for row in summary])
        for suite, summary in report.suites.items()
    }
    several = len(found) > 1
    sections = {
        f"{heading}: {s}" if several else heading: part for s, part in found.items() if part
    }
    if sections and legend is not None:
        sections[list(sections)[-1]] += ["", legend]
    return sections


def _latency(rows: pd.DataFrame, order: list[str]) -> list[str]:
    table = stream_table(rows, order)
    return [] if table is None else markdown_table(*table)


def _sessions(rows: pd.DataFrame, order: list[str]) -> list[str]:
    table = session_table(rows, order)
    return [] if table is None else markdown_table(*table)


def _serving(rows: pd.DataFrame, order: list[str]) -> list[str]:
    means = serving_means(rows, order)
    if not means:
        return []
    table = [
        [name, *(number(row[name], SERVING[column].form) for column, row in means.items())]
        for name in order
    ]
    heads = ["policy", *(SERVING[column].head for column in means)]
    return [*markdown_table(heads, table), "", serving_legend(means)]


def _counters(sweep: Sweep) -> list[str]:
    """Format the policies' counters, summed over their jobs."""
    of_policy: dict[str, list[dict[str, float]]] = defaultdict(list)
    for job, result in sweep.finished:
        if result.counters:
            of_policy[sweep.labels[job.directory]].append(result.counters)
    rows = [
        (name, ", ".join(f"{key} {value:,.0f}" for key, value in total_counters(found).items()))
        for name, found in of_policy.items()
    ]
    return markdown_table(("policy", "counters, over all problems"), rows, left=2) if rows else []


def _effects(report: Report) -> list[str]:
    rows = [
        (
            name,
            str(effect.n),
            effect.difference.text("+.1f", " %"),
            number(effect.win_rate, ".0%"),
            number(effect.p_value, ".2g"),
        )
        for name, effect in report.effects.items()
    ]
    return (
        markdown_table(("policy", "n", "difference [95 % CI]", "wins", "p"), rows) if rows else []
    )


def _intensity(sweep: Sweep) -> list[str]:
    workflows = sweep.rows.drop_duplicates(WORKFLOW).groupby("suite")["state_intensity"]
    rows = [
        (str(suite), *(f"{value:.2f}" for value in (one.mean(), one.min(), one.max())))
        for suite, one in workflows
    ]
    what = "(Load + transfer + prefix prefill, all cold) / execution, over workflows."
    return [what, "", *markdown_table(("suite", "mean", "least", "most"), rows)]
