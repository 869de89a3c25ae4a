"""The report of many trainings: ``python -m fate_gym.lab.training.report DIRECTORY``.

Reads the curves of every training below a directory and writes ``curves.csv``, ``curves.png`` and
``report.md`` beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.provenance import git_sha, machine
from fate_gym.lab.report.figures.style import save_figure
from fate_gym.lab.tables import markdown_table
from fate_gym.lab.training.curves import Curve, iqm, iqm_estimate, read_curves

CSV, PNG, TABLE = "curves.csv", "curves.png", "report.md"


def curves_csv(curves: Sequence[Curve]) -> str:
    """Return CSV: a row per agent and step, and one for the kept checkpoint (step ``best``)."""
    rows = []
    for curve in curves:
        steps = [*map(str, curve.steps.tolist()), "best"]
        for step, values in zip(steps, [*curve.latency_ratios.T, curve.best], strict=True):
            rows.append((curve.curriculum, curve.agent, values.size, step, *iqm_estimate(values)))
    columns = ["curriculum", "agent", "seeds", "step", "iqm", "low", "high"]
    table = pd.DataFrame(rows, columns=columns)
    return table.to_csv(index=False, float_format="%.4f", lineterminator="\n")


def curves_table(curves: Sequence[Curve]) -> list[str]:
    """Return a Markdown table of each agent's best validation result and training time."""
    rows = [
        (
            curve.curriculum,
            curve.agent,
            str(curve.best.size),
            f"{curve.steps.max():,}",
            iqm_estimate(curve.best).text(),
            f"{curve.seconds.mean() / 60.0:.1f}",
        )
        for curve in sorted(curves, key=lambda c: (c.curriculum, float(iqm(c.best))))
    ]
    best = "best validation, latency / RoundRobin, IQM [95 % CI]"
    heads = ("curriculum", "agent", "seeds", "steps", best, "minutes each")
    return markdown_table(heads, rows, left=2)


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """Plot latency ratios against steps, a line per agent; a point if there is only one step."""
    names = list(dict.fromkeys(curve.curriculum for curve in curves))
    figure = Figure(figsize=(7.0 * len(names), 4.2), layout="constrained")
    all_axes = figure.subplots(1, len(names), squeeze=False).flat
    for axes, name in zip(all_axes, names, strict=True):
        for number, curve in enumerate(c for c in curves if c.curriculum == name):
            style = {"color": f"C{number}", "label": f"{curve.agent} ({curve.best.size} seeds)"}
            mean, low, high = np.array(
                [iqm_estimate(column) for column in curve.latency_ratios.T]
            ).T
            if curve.steps.size == 1:
                axes.errorbar(curve.steps, mean, (mean - low, high - mean), fmt="o", **style)
                continue
            axes.plot(curve.steps, mean, **style)
            axes.fill_between(curve.steps, low, high, color=f"C{number}", alpha=0.18, linewidth=0)
        axes.set(xlabel="steps", ylabel="latency / RoundRobin", title=f"validation, {name}")
        axes.set_yscale("log")
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            ticks(StrMethodFormatter("{x:g}"))
        axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize=8, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); return the exit code."""
    parser = argparse.ArgumentParser(description="Learning curves of many trainings.")
    parser.add_argument("directory", type=Path, help="below which the trainings are")
    root = parser.parse_args(arguments).directory
    try:
        curves = read_curves(root)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(root / CSV, curves_csv(curves))
    made = ["", f"- machine: {machine()}", f"- commit: {git_sha() or 'unknown'}", ""]
    write_text(root / TABLE, "\n".join([*curves_table(curves), *made]))
    save_figure(curves_figure(curves), root / PNG, dpi=110)
    for curve in curves:
        print(
            f"{curve.curriculum}/{curve.agent}: {iqm_estimate(curve.best).text('.4f')}, "
            f"{curve.best.size} seeds, {curve.seconds.mean():.0f} s each"
        )
    print(f"figure: {root / PNG}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
