"""Learning curves of many trainings: ``python -m fate_gym.lab.training.report DIRECTORY``.

Reads the curves of every training below a directory and writes ``curves.csv``, ``curves.png`` and
``report.md`` beside them: the interquartile mean over seeds with a 95 % bootstrap interval, as
Agarwal et al. 2021 recommend for few runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, trim_mean

from fate_gym.errors import InputError
from fate_gym.lab.provenance import git_sha, machine
from fate_gym.lab.results import write_text
from fate_gym.lab.training.progress import RESULT, Progress, read_progress, read_train_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSV, PNG, TABLE = "curves.csv", "curves.png", "report.md"


@dataclass(frozen=True)
class Curve:
    """The seeds of one agent on one curriculum; marks are parts of round robin's time.

    Attributes:
        steps: (n,) of the validations that all seeds have.
        marks: (seeds, n).
        best: (seeds,) of the checkpoint that each training kept.
        seconds: (seeds,) of each training.
    """

    curriculum: str
    agent: str
    steps: NDArray[np.int64]
    marks: NDArray[np.float64]
    best: NDArray[np.float64]
    seconds: NDArray[np.float64]


def iqm(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """The mean without the lowest and the highest quarter."""
    return np.asarray(trim_mean(values, 0.25, axis=axis))


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the interquartile mean; itself for equal values."""
    if values.size < 2 or float(np.ptp(values)) == 0.0:
        return float(values.mean()), float(values.mean())
    found = bootstrap(
        (values,), iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def read_curves(root: Path) -> list[Curve]:
    """The curves of all finished trainings below a directory, by curriculum and agent.

    Raises:
        InputError: there is none.
    """
    runs: dict[tuple[str, str], dict[int, tuple[Progress, float, float]]] = {}
    for path in sorted(root.glob(f"**/{RESULT}")):
        result = read_train_result(path.parent)
        assert result is not None
        progress, _ = read_progress(path.parent)
        of_agent = runs.setdefault((result.curriculum, result.agent), {})
        of_agent[result.seed] = (progress, result.best, result.seconds)
    if not runs:
        raise InputError(
            "no finished training", source=root, remedy="run scripts/train.py with paths.runs there"
        )
    return [_curve(curriculum, agent, seeds) for (curriculum, agent), seeds in runs.items()]


def _curve(curriculum: str, agent: str, seeds: dict[int, tuple[Progress, float, float]]) -> Curve:
    by_step = [
        {int(row["steps"]): row["normalised"] for row in progress.curve}
        for progress, _, _ in seeds.values()
    ]
    steps = sorted(set.intersection(*(set(marks) for marks in by_step)))
    return Curve(
        curriculum,
        agent,
        np.array(steps),
        np.array([[marks[step] for step in steps] for marks in by_step]),
        np.array([best for _, best, _ in seeds.values()]),
        np.array([seconds for _, _, seconds in seeds.values()]),
    )


def curves_csv(curves: Sequence[Curve]) -> str:
    """A row for each agent and step, and one for the checkpoint that was kept (step ``best``)."""
    lines = ["curriculum,agent,seeds,step,iqm,low,high"]
    for curve in curves:
        columns = [
            *zip(map(str, curve.steps.tolist()), curve.marks.T, strict=True),
            ("best", curve.best),
        ]
        for step, values in columns:
            low, high = interval(values)
            lines.append(
                f"{curve.curriculum},{curve.agent},{values.size},{step},"
                f"{float(iqm(values)):.4f},{low:.4f},{high:.4f}"
            )
    return "\n".join(lines) + "\n"


def curves_table(curves: Sequence[Curve]) -> str:
    """What each agent's best checkpoints reach in validation, and what a training takes."""
    lines = [
        "| curriculum | agent | seeds | steps | best validation, IQM [95 % CI] | minutes each |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for curve in sorted(curves, key=lambda c: (c.curriculum, float(iqm(c.best)))):
        low, high = interval(curve.best)
        lines.append(
            f"| {curve.curriculum} | {curve.agent} | {curve.best.size} | {curve.steps.max():,} "
            f"| {float(iqm(curve.best)):.3f} [{low:.3f}, {high:.3f}] "
            f"| {curve.seconds.mean() / 60.0:.1f} |"
        )
    return "\n".join(lines) + "\n"


def curves_figure(curves: Sequence[Curve]) -> Figure:
    """Marks against steps, one line an agent; a point where a training has no steps."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(curve.curriculum for curve in curves))
    figure = Figure(figsize=(7.0 * len(names), 4.2), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), i + 1)
        for number, curve in enumerate(c for c in curves if c.curriculum == name):
            colour = f"C{number}"
            bounds = np.array([interval(column) for column in curve.marks.T])
            label = f"{curve.agent} ({curve.best.size} seeds)"
            if curve.steps.size == 1:
                error = np.abs(bounds - iqm(curve.marks)[:, None]).T
                axes.errorbar(
                    curve.steps, iqm(curve.marks), error, fmt="o", color=colour, label=label
                )
                continue
            axes.plot(curve.steps, iqm(curve.marks), color=colour, label=label)
            axes.fill_between(curve.steps, *bounds.T, color=colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="steps", ylabel="time / round robin's", title=f"validation, {name}")
        axes.set_yscale("log")
        axes.axhline(1.0, color="0.6", linewidth=0.8, zorder=0)
        axes.grid(visible=True, which="both", alpha=0.2)
        axes.legend(fontsize=8, frameon=False)
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Learning curves of many trainings.")
    parser.add_argument("directory", type=Path, help="below which the trainings are")
    root = parser.parse_args(arguments).directory
    try:
        curves = read_curves(root)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(root / CSV, curves_csv(curves))
    made = [f"- {line}" for line in (f"machine: {machine()}", f"commit: {git_sha() or 'unknown'}")]
    write_text(root / TABLE, "\n".join([curves_table(curves), *made, ""]))
    curves_figure(curves).savefig(root / PNG, dpi=110)
    for curve in curves:
        low, high = interval(curve.best)
        print(
            f"{curve.curriculum}/{curve.agent}: {float(iqm(curve.best)):.4f} [{low:.4f}, "
            f"{high:.4f}], {curve.best.size} seeds, {curve.seconds.mean():.0f} s each"
        )
    print(f"figure: {root / PNG}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
