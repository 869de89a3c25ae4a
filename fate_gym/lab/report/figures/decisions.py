"""Decision times over problem size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from fate_gym.lab.report.figures import style

GOAL_MS = 50.0
"""Goal for the P99 of decision times, milliseconds."""


class DecisionTimes(NamedTuple):
    """Decision times of one run.

    Attributes:
        p50, p99: CPU milliseconds of a decision.
        total_s: CPU seconds of all decisions together.
        makespan_ratio: makespan over that of ``heft_boosted``.
    """

    p50: float
    p99: float
    total_s: float
    makespan_ratio: float


def decision_figure(lines: Mapping[str, Mapping[str, Mapping[int, DecisionTimes]]]) -> Figure:
    """Plot decision times over stages, log-log: P99 solid, P50 dotted; one panel per policy.

    Args:
        lines: decision times by policy, kind of problem and number of stages.
    """
    figure, panels = style.canvas(
        3.9 * len(lines), 3.4, columns=len(lines), sharey=True, squeeze=False
    )
    colours = (*style.FATE, *style.BASELINES)
    for axes, (policy, kinds) in zip(panels.flat, lines.items(), strict=True):
        style.dashed_line(axes, y=GOAL_MS)
        for colour, (kind, times) in zip(colours, kinds.items(), strict=False):
            stages = sorted(times)
            axes.plot(stages, [times[n].p99 for n in stages], "-o", color=colour, ms=4, label=kind)
            axes.plot(stages, [times[n].p50 for n in stages], ":", color=colour, lw=1.2)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(policy, fontsize=9, color=style.TEXT)
        axes.set_xlabel("stages of the problem")
    panels.flat[0].set_ylabel("CPU of a decision, ms: P99 (lines), P50 (dotted)")
    panels.flat[-1].legend(frameon=False, fontsize=7.5)
    return figure
