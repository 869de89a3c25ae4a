"""Shares of workflows within a factor: of round robin's latency, and of the best policy's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fate_gym.lab.report.figures import style
from fate_gym.lab.tables import Estimate

Values = Mapping[str, NDArray[np.float64]]


def ecdf_figure(values: Values, colours: Mapping[str, str]) -> Figure:
    """Plot the share of workflows that end within x times their latency under round robin.

    Args:
        values: latency ratios by policy, best policy first.
        colours: from `policy_colours`.
    """
    figure, axes = style.canvas(7.6, 4.4)
    others = {name: v for name, v in values.items() if name != "round_robin"}
    everything = np.concatenate([*others.values(), np.ones(1)])
    low, high = float(everything.min()) * 0.95, float(everything.max()) * 1.05
    style.dashed_line(axes, x=1.0)
    labels = {name: f"{name}  ({v.mean():.3f})" for name, v in others.items()}
    _draw_steps(axes, others, colours, labels, low, high)
    if any(colours[name] == style.OTHERS for name in values):
        axes.plot([], [], color=style.OTHERS, lw=1.0, label="other policies")
    axes.plot([], [], color=style.REFERENCE, lw=1, ls=(0, (4, 3)), label="round_robin  (1)")
    axes.set(xlim=(low, high), xlabel=style.LATENCY_RATIO)
    style.log_axis(axes, low, high)
    style.legend_beside(axes, title="policy (mean)", alignment="left")
    return figure


def profile_figure(ratios: Values, colours: Mapping[str, str]) -> Figure:
    """Plot a performance profile (Dolan and Moré 2002): share of workflows within x times the best.

    Args:
        ratios: latency / the best policy's on the same workflow, by policy, best first.
        colours: from `policy_colours`.
    """
    figure, axes = style.canvas(7.6, 4.4)
    ends = [float(np.quantile(values, 0.9)) for values in ratios.values() if values.size]
    high = max(1.05, min(3.0, float(np.median(ends))))
    _draw_steps(axes, ratios, colours, {name: name for name in ratios}, 1.0, high)
    axes.set(xlim=(1.0, high), xlabel="latency / the best policy's on the same workflow")
    style.legend_beside(axes)
    return figure


def differences_figure(
    percent: Values, means: Mapping[str, Estimate], colours: Mapping[str, str], *, against: str
) -> Figure:
    """Plot the share of workflows whose latency is at most x per cent above another policy's.

    Workflows are paired, so even policies with similar distributions can be distinguished.

    Args:
        percent: difference on each workflow, by policy, best first; negative is faster.
        means: difference of the means with its interval, by policy, for the legend.
        colours: from `policy_colours`.
        against: the other policy.
    """
    figure, axes = style.canvas(7.6, 4.4)
    everything = np.concatenate(list(percent.values()))
    low, high = np.quantile(everything, (0.005, 0.9))
    low, high = min(float(low), -1.0) * 1.1, max(float(high), 1.0) * 1.1
    style.dashed_line(axes, x=0.0)
    labels = {name: f"{name}  {means[name].text('+.1f')} %" for name in percent}
    _draw_steps(axes, percent, colours, labels, low, high)
    axes.set(xlim=(low, high), xlabel=f"latency against {against} on the same workflow, %")
    style.legend_beside(axes, title="policy, mean [95 % CI]", alignment="left")
    return figure


def _draw_steps(
    axes: Axes,
    values: Values,
    colours: Mapping[str, str],
    labels: Mapping[str, str],
    low: float,
    high: float,
) -> None:
    """Draw the cumulative share of each policy's values, from ``low`` to at least ``high``."""
    for place, (name, found) in enumerate(values.items()):
        if not found.size:
            continue
        x = np.sort(found)
        shares = np.arange(len(x) + 1) / len(x)
        axes.step(
            [low, *x, max(high, x[-1])],
            [*shares, 1.0],
            where="post",
            label=None if colours[name] == style.OTHERS else labels[name],
            **style.line_style(colours[name], place),
        )
    axes.set(ylim=(0, 1.01), ylabel="share of workflows")
