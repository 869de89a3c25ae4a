"""Writes the report of a sweep beside its results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fate_gym.files import write_text
from fate_gym.lab.errors import unwritable
from fate_gym.lab.report.compute import Report, compute_report
from fate_gym.lab.report.figures.draw import draw_figures
from fate_gym.lab.report.figures.style import save_figure
from fate_gym.lab.report.markdown import markdown
from fate_gym.lab.report.page.render import render_page
from fate_gym.lab.report.summary_table import latex_summary


def make_report(root: Path, *, baseline_from: Path | None = None) -> Report:
    """Read a sweep and write its tables and figures beside the results.

    Writes ``report.html`` (all in one file), ``report.md``, ``summary.csv``,
    ``summary_by_suite.csv``, ``summary.tex`` and the figures, as PNG and SVG, into ``root``.

    Args:
        root: directory of the sweep.
        baseline_from: another sweep, e.g. on the training split, on which baselines are chosen.

    Raises:
        InputError: the directory holds no finished job, or cannot be written.
    """
    report = compute_report(root, baseline_from=baseline_from)
    figures = draw_figures(report)
    by_suite = [
        {"suite": suite, **row.columns()} for suite, rows in report.suites.items() for row in rows
    ]
    try:
        write_text(root / "summary.csv", _csv([row.columns() for row in report.summary]))
        write_text(root / "summary_by_suite.csv", _csv(by_suite))
        write_text(root / "summary.tex", latex_summary(report))
        for name, figure in figures.items():
            save_figure(figure, root / f"{name}.png")
            figure.set_layout_engine("none")  # keep the layout of the PNG
            save_figure(figure, root / f"{name}.svg", metadata={"Date": None})
        write_text(root / "report.md", markdown(report, figures))
        write_text(root / "report.html", render_page(report))
    except OSError as error:
        raise unwritable(root, error, remedy="check permissions") from None
    return report


def _csv(rows: list[dict[str, str | float]]) -> str:
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
