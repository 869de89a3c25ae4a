"""Results over state intensity, or over the axis of an experiment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fate_gym.lab.report.figures import style
from fate_gym.lab.tables import Estimate


def intensity_figure(
    intensity: NDArray[np.float64], gain: NDArray[np.float64], *, policy: str, against: str
) -> Figure:
    """Plot the gain of a policy over another on every workflow, against state intensity.

    Args:
        intensity: (n,) state intensity.
        gain: (n,) percent; positive where the policy is ahead.
        policy: name of the policy.
        against: name of the other.
    """
    figure, axes = style.canvas(7.6, 4.2)
    style.dashed_line(axes, y=0.0)
    axes.plot(intensity, gain, "o", color=style.FATE[0], alpha=0.45, ms=4, mec="none")
    order = np.argsort(intensity)
    groups = [part for part in np.array_split(order, min(8, max(1, len(order) // 4))) if part.size]
    axes.plot(
        [np.median(intensity[part]) for part in groups],
        [np.median(gain[part]) for part in groups],
        "-o",
        color=style.BASELINES[0],
        lw=1.8,
        ms=5,
        label="median of an eighth of the workflows" if len(groups) == 8 else "median of a group",
    )
    style.log_axis(axes, float(intensity.min()), float(intensity.max()))
    axes.set_xlabel("state intensity: (load + transfer + prefix prefill, cold) / execution")
    axes.set_ylabel(f"gain of {policy} over {against}, %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def axis_figure(
    curves: Mapping[str, Mapping[float, Estimate]],
    colours: Mapping[str, str],
    *,
    axis: str,
    reference: str | None = None,
) -> Figure:
    """Plot mean latency ratios over an axis, with 95 % intervals; one line per policy.

    Args:
        curves: by policy, the mean at each value, or the difference to the reference in percent.
        colours: from `policy_colours`.
        axis: label of the axis.
        reference: policy to which the differences are; None: the curves are means.
    """
    figure, axes = style.canvas(7.6, 4.4)
    if reference is not None:
        style.dashed_line(axes, y=0.0)
    for place, (name, curve) in enumerate(curves.items()):
        x, (mean, low, high) = list(curve), zip(*curve.values(), strict=True)
        muted = colours[name] == style.OTHERS
        if not muted:
            axes.fill_between(x, low, high, color=colours[name], alpha=0.15, lw=0)
        label = None if muted else name
        axes.plot(x, mean, "-o", ms=4, label=label, **style.line_style(colours[name], place))
    values = np.array(sorted({x for curve in curves.values() for x in curve}))
    if values.min() > 0 and values.max() / values.min() > 10:
        axes.set_xscale("log")
    # Ticks only at values that were played.
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    means = f"mean {style.LATENCY_RATIO}"
    shown = means if reference is None else f"latency against {reference}, %"
    axes.set(xlabel=axis, ylabel=f"{shown}, 95 % CI")
    style.legend_beside(axes)
    return figure
