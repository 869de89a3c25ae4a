"""Figures with one row per policy: mean latency ratios, mechanisms, serving, decision times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from fate_gym.lab.report.figures import style
from fate_gym.lab.report.summary import PolicySummary

_MOST_PANELS = 6
"""Most panels side by side."""


def forest_figure(
    panels: Mapping[str, Sequence[PolicySummary]], colours: Mapping[str, str]
) -> Figure:
    """Plot mean latency ratios with 95 % intervals, best policy on top; one panel per suite.

    Args:
        panels: rows by title; the order of the first panel is the order of all.
        colours: from `policy_colours`.
    """
    order = [row.policy for row in next(iter(panels.values()))]
    figure, all_axes = style.canvas(
        2.4 + 4.2 * len(panels), 0.9 + 0.3 * len(order), columns=len(panels), sharey=True
    )
    for axes, (title, rows) in zip(np.atleast_1d(all_axes), panels.items(), strict=True):
        style.dashed_line(axes, x=1.0)
        for row in rows:
            y, ratio = order.index(row.policy), row.latency_ratio
            colour = _visible(colours[row.policy])
            axes.plot([ratio.low, ratio.high], [y, y], color=colour, lw=2.2)
            axes.plot(ratio.value, y, "o", color=colour, ms=5.5, mec="white", mew=0.8)
            style.write_beside(axes, y, f"{ratio.value:.3f}")
        style.policy_rows(axes, order)
        axes.grid(axis="x", color="#ececec", lw=0.8)
        ends = [end for row in rows for end in row.latency_ratio[1:]]
        style.log_axis(axes, np.nanmin([*ends, 1.0]), np.nanmax([*ends, 1.0]))
        axes.set_xlabel(f"mean {style.LATENCY_RATIO}, 95 % CI")
        if len(panels) > 1:
            axes.set_title(title, fontsize=10, loc="left", color=style.TEXT)
    return figure


def bars_figure(panels: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]) -> Figure:
    """Plot several numbers of each policy: one panel per number, one bar per policy, same order.

    Args:
        panels: by title, the value of each policy; best policy first.
        colours: from `policy_colours`.
    """
    order = list(next(iter(panels.values())))
    rows = -(-len(panels) // _MOST_PANELS)
    columns = -(-len(panels) // rows)
    figure, all_axes = style.canvas(
        1.6 + 2.1 * columns, rows * (0.9 + 0.26 * len(order)), rows=rows, columns=columns,
        sharey=True, squeeze=False,
    )  # fmt: skip
    for axes in all_axes.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, row) in zip(all_axes.flat, panels.items(), strict=False):
        values = np.array([row[name] for name in order])
        axes.barh(range(len(order)), values, color=[colours[name] for name in order], height=0.66)
        top = np.nanmax([*values, 1e-12])
        for y in np.flatnonzero(~np.isnan(values)).tolist():
            axes.text(
                values[y] + 0.03 * top, y, f"{values[y]:.3g}",
                va="center", fontsize=7.5, color=style.TEXT,
            )  # fmt: skip
        axes.set_xlim(0, top * 1.32)
        style.policy_rows(axes, order)
        axes.set_xticks([])  # every bar has its value beside it
        axes.set_title(title, fontsize=9, loc="left", color=style.TEXT)
    return figure


def decision_time_figure(
    quantiles: Mapping[str, Sequence[float]], colours: Mapping[str, str]
) -> Figure:
    """Plot wall-clock milliseconds of decisions on a log axis: P1 to P99, quartiles and median.

    Args:
        quantiles: by policy, the quantiles 0.01, 0.25, 0.5, 0.75, 0.99 and 1.
        colours: from `policy_colours`.
    """
    figure, axes = style.canvas(7.6, 0.9 + 0.3 * len(quantiles))
    for y, (name, values) in enumerate(quantiles.items()):
        low, first, middle, third, high, _ = (max(value, 1e-4) for value in values)
        colour = _visible(colours[name])
        axes.plot([low, high], [y, y], color=colour, lw=1.4)
        axes.plot([first, third], [y, y], color=colour, lw=5, solid_capstyle="butt")
        axes.plot(middle, y, "o", color="white", mec=colour, ms=5)
        style.write_beside(axes, y, f"{middle:.3g} / {high:.3g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    style.policy_rows(axes, list(quantiles))
    axes.grid(axis="x", color="#ececec", lw=0.8)
    axes.set_xlabel("ms of a decision: P1–P99, quartiles, median; P50 / P99 at the right")
    return figure


def _visible(colour: str) -> str:
    return style.MUTED if colour == style.OTHERS else colour
