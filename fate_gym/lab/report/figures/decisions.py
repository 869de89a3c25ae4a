"""Decision times over problem size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from matplotlib.figure import Figure

from fate_gym.lab.report.figures import style

GOAL_MS = 50.0
"""Goal for the P99 of decision times, milliseconds."""

_STAGES = (10, 100, 1_000, 10_000, 100_000)
_MILLISECONDS = (0.01, 0.1, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


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
        3.4 * len(lines) + 1.8, 3.4, columns=len(lines), sharey=True, squeeze=False
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
        style.log_ticks(axes.xaxis, _STAGES, "{x:,.0f}")
        style.log_ticks(axes.yaxis, _MILLISECONDS)
        axes.set_title(policy, fontsize=9, color=style.TEXT)
        axes.set_xlabel("stages of the problem")
    panels.flat[0].set_ylabel("CPU ms of a decision: P99, P50 (dotted)", fontsize=8.5)
    style.legend_beside(panels.flat[-1], fontsize=8)
    return figure
