"""Figures of a report and of a run. Every function returns a figure and touches no global state.

Matplotlib is imported inside the functions; ``pyplot`` is not used, so no display is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fate_gym.lab.results import Schedule, ShardRow
    from fate_gym.lab.summary import PolicySummary
    from fate_gym.metrics.statistics import Interval

# Okabe & Ito 2008: distinguishable with colour-blind vision.
_FATE = ("#0072b2", "#56b4e9", "#003f6b")
_BASELINES = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#8c6d31")
_REFERENCE = "#4d4d4d"
_OTHERS = "#c4c4c4"
_MUTED = "#8a8a8a"
_TEXT = "#222222"

PHASES = {"load": "#d55e00", "transfer": "#cc79a7", "prefill": "#9ecbe8", "decode": "#0072b2"}
"""Colours of the four phases of a shard, in the order in which they happen."""

DPI = 150


def policy_colours(policies: Sequence[str], families: Mapping[str, str]) -> dict[str, str]:
    """One colour a policy, the same in every figure; grey beyond the best of each kind.

    Args:
        policies: best first.
        families: family of each policy.
    """
    fate, baselines = iter(_FATE), iter(_BASELINES)
    colours = {}
    for policy in policies:
        if policy == "round_robin":
            colours[policy] = _REFERENCE
        else:
            colours[policy] = next(fate if families[policy] == "fate" else baselines, _OTHERS)
    return colours


def ecdf_figure(values: Mapping[str, NDArray[np.float64]], colours: Mapping[str, str]) -> Figure:
    """Share of workflows that end within x times their time under round robin.

    Args:
        values: normalised makespans by policy, best policy first.
        colours: from `policy_colours`.
    """
    figure, axes = _canvas(7.6, 4.4)
    others = [v for name, v in values.items() if name != "round_robin"]
    everything = np.concatenate([*others, np.ones(1)])
    low, high = float(everything.min()) * 0.95, float(everything.max()) * 1.05
    axes.axvline(1.0, color=_REFERENCE, lw=1, ls=(0, (4, 3)), zorder=1)
    for name in reversed(list(values)):
        if name == "round_robin":
            continue
        x = np.sort(values[name])
        y = np.arange(1, len(x) + 1) / len(x)
        muted = colours[name] == _OTHERS
        axes.step(
            np.concatenate(([low], x, [high])),
            np.concatenate(([0.0], y, [1.0])),
            where="post",
            color=colours[name],
            lw=1.0 if muted else 1.8,
            zorder=2 if muted else 3,
            label=None if muted else f"{name}  ({values[name].mean():.3f})",
        )
    if any(colours[name] == _OTHERS for name in values):
        axes.plot([], [], color=_OTHERS, lw=1.0, label="other policies")
    axes.plot([], [], color=_REFERENCE, lw=1, ls=(0, (4, 3)), label="round_robin  (1)")
    axes.set(xlim=(low, high), ylim=(0, 1.01))
    if high / low > 4:
        _log_axis(axes, low, high)
    axes.set_xlabel("makespan / round robin's makespan")
    axes.set_ylabel("share of workflows")
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: _legend_rank(labels[i], list(values)))
    axes.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        title="policy (mean)",
        alignment="left",
    )
    return figure


def _legend_rank(label: str, order: Sequence[str]) -> int:
    name = label.split("  (")[0]
    return order.index(name) if name in order else len(order)


def forest_figure(
    panels: Mapping[str, Sequence[PolicySummary]], colours: Mapping[str, str]
) -> Figure:
    """Mean normalised makespan with its 95 % interval, best policy on top; one panel a suite.

    Args:
        panels: rows by title; the order of the first panel is the order of all.
        colours: from `policy_colours`.
    """
    order = [row.policy for row in next(iter(panels.values()))]
    figure, all_axes = _canvas(
        2.4 + 4.2 * len(panels), 0.9 + 0.3 * len(order), columns=len(panels), sharey=True
    )
    for axes, (title, rows) in zip(np.atleast_1d(all_axes), panels.items(), strict=True):
        axes.axvline(1.0, color=_REFERENCE, lw=1, ls=(0, (4, 3)), zorder=1)
        for row in rows:
            y = order.index(row.policy)
            colour = _MUTED if colours[row.policy] == _OTHERS else colours[row.policy]
            axes.plot([row.norm_makespan_lo, row.norm_makespan_hi], [y, y], color=colour, lw=2.2)
            axes.plot(row.norm_makespan, y, "o", color=colour, ms=5.5, mec="white", mew=0.8)
            axes.annotate(
                f"{row.norm_makespan:.3f}",
                (1.01, y),
                xycoords=("axes fraction", "data"),
                va="center",
                color=_TEXT,
                fontsize=8,
            )
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#ececec", lw=0.8)
        ends = [row.norm_makespan_lo for row in rows] + [row.norm_makespan_hi for row in rows]
        low, high = np.nanmin([*ends, 1.0]), np.nanmax([*ends, 1.0])
        if high / low > 4:
            _log_axis(axes, low, high)
        axes.set_xlabel("mean makespan / round robin's, 95 % CI")
        if len(panels) > 1:
            axes.set_title(title, fontsize=10, loc="left", color=_TEXT)
    return figure


def gantt_figure(schedules: Mapping[str, Schedule], *, title: str = "") -> Figure:
    """What every device does over time; one panel a schedule, on a shared time axis.

    A shard is a bar: load above transfer (they overlap), then prefill, then decode. Letters
    name the model, once for every run of shards of one model. Tools, on the host, are not drawn.

    Args:
        schedules: by policy, from top to bottom; of one problem.
        title: of the figure.
    """
    from matplotlib.patches import Patch

    devices = next(iter(schedules.values())).devices
    models = sorted({row["model"] for one in schedules.values() for row in one.shards} - {""})
    letters = {model: _letter(number) for number, model in enumerate(models)}
    row = 0.3 if len(devices) <= 16 else 0.18
    figure, all_axes = _canvas(
        10.0, 1.1 + len(schedules) * (0.45 + row * len(devices)), rows=len(schedules), sharex=True
    )
    panels = np.atleast_1d(all_axes)
    horizon = max(schedule.end for schedule in schedules.values())
    for axes, (name, schedule) in zip(panels, schedules.items(), strict=True):
        axes.set_xlim(0, horizon * 1.005)
        _draw_schedule(axes, schedule, letters, horizon)
        axes.axvline(schedule.end, color=_TEXT, lw=1)
        axes.set_title(f"{name}: {schedule.end:.1f} s", fontsize=10, loc="left", color=_TEXT)
    panels[-1].set_xlabel("time, s")
    style: dict[str, Any] = {"frameon": False, "fontsize": 8}
    figure.legend(
        handles=[Patch(color=colour, label=phase) for phase, colour in PHASES.items()],
        loc="outside upper right",
        ncols=len(PHASES),
        handlelength=1.2,
        **style,
    )
    figure.legend(
        handles=[Patch(alpha=0, label=f"{letter}  {model}") for model, letter in letters.items()],
        loc="outside lower center",
        ncols=min(6, max(1, len(letters))),
        handlelength=0,
        **style,
    )
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left", color=_TEXT)
    return figure


def mechanism_figure(
    panels: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]
) -> Figure:
    """Why policies differ: one panel a mechanism, one bar a policy, in the order of the first.

    Args:
        panels: by title, a value a policy; best policy first.
        colours: from `policy_colours`.
    """
    order = list(next(iter(panels.values())))
    figure, all_axes = _canvas(
        1.6 + 2.1 * len(panels), 0.9 + 0.26 * len(order), columns=len(panels), sharey=True
    )
    for axes, (title, row) in zip(np.atleast_1d(all_axes), panels.items(), strict=True):
        values = [row[name] for name in order]
        axes.barh(range(len(order)), values, color=[colours[name] for name in order], height=0.66)
        top = max(*(value for value in values if value == value), 1e-12)
        for y, value in enumerate(values):
            if value == value:  # not NaN
                axes.text(
                    value + 0.03 * top, y, f"{value:.3g}", va="center", fontsize=7.5, color=_TEXT
                )
        axes.set_xlim(0, top * 1.32)
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([])  # every bar has its value beside it
        axes.set_title(title, fontsize=9, loc="left", color=_TEXT)
    return figure


def profile_figure(ratios: Mapping[str, NDArray[np.float64]], colours: Mapping[str, str]) -> Figure:
    """Performance profile (Dolan and Moré 2002): share of workflows within x times the best.

    Args:
        ratios: by policy, best first: time / the best policy's time on the same workflow.
        colours: from `policy_colours`.
    """
    figure, axes = _canvas(7.6, 4.4)
    ends = [float(np.quantile(values, 0.9)) for values in ratios.values() if values.size]
    high = max(1.05, min(3.0, float(np.median(ends))))
    for name in reversed(list(ratios)):
        x = np.sort(ratios[name])
        y = np.arange(1, len(x) + 1) / max(len(x), 1)
        muted = colours[name] == _OTHERS
        axes.step(
            np.concatenate(([1.0], x, [max(high, x[-1] if x.size else 1.0)])),
            np.concatenate(([0.0], y, y[-1:])),
            where="post",
            color=colours[name],
            lw=1.0 if muted else 1.8,
            zorder=2 if muted else 3,
        )
    for name in ratios:
        if colours[name] != _OTHERS:
            axes.plot([], [], color=colours[name], lw=1.8, label=name)
    axes.set(xlim=(1.0, high), ylim=(0, 1.01))
    axes.set_xlabel("makespan / the best policy's on the same workflow")
    axes.set_ylabel("share of workflows")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def intensity_figure(
    intensity: NDArray[np.float64], gain: NDArray[np.float64], *, policy: str, against: str
) -> Figure:
    """Gain of a policy over another on every workflow, against its state intensity.

    Args:
        intensity: (n,) state intensity.
        gain: (n,) percent; positive where the policy is ahead.
        policy: name of the policy.
        against: name of the other.
    """
    figure, axes = _canvas(7.6, 4.2)
    axes.axhline(0.0, color=_REFERENCE, lw=1, ls=(0, (4, 3)), zorder=1)
    axes.plot(intensity, gain, "o", color=_FATE[0], alpha=0.45, ms=4, mec="none")
    order = np.argsort(intensity)
    groups = [part for part in np.array_split(order, min(8, max(1, len(order) // 4))) if part.size]
    axes.plot(
        [np.median(intensity[part]) for part in groups],
        [np.median(gain[part]) for part in groups],
        "-o",
        color=_BASELINES[0],
        lw=1.8,
        ms=5,
        label="median of an eighth of the workflows" if len(groups) == 8 else "median of a group",
    )
    if intensity.min() > 0 and intensity.max() / intensity.min() > 4:
        _log_axis(axes, float(intensity.min()), float(intensity.max()))
    axes.set_xlabel("state intensity: (load + transfer + prefix prefill, cold) / execution")
    axes.set_ylabel(f"gain of {policy} over {against}, %")
    axes.legend(frameon=False, fontsize=8)
    return figure


def latency_figure(quantiles: Mapping[str, Sequence[float]], colours: Mapping[str, str]) -> Figure:
    """Wall-clock milliseconds of a decision on a log axis: P1 to P99, quartiles and median.

    Args:
        quantiles: by policy, at 0.01, 0.25, 0.5, 0.75, 0.99 and 1.
        colours: from `policy_colours`.
    """
    order = list(quantiles)
    figure, axes = _canvas(7.6, 0.9 + 0.3 * len(order))
    for y, name in enumerate(order):
        low, first, middle, third, high, _ = (max(value, 1e-4) for value in quantiles[name])
        colour = _MUTED if colours[name] == _OTHERS else colours[name]
        axes.plot([low, high], [y, y], color=colour, lw=1.4)
        axes.plot([first, third], [y, y], color=colour, lw=5, solid_capstyle="butt")
        axes.plot(middle, y, "o", color="white", mec=colour, ms=5)
        axes.annotate(
            f"{middle:.3g} / {high:.3g}",
            (1.01, y),
            xycoords=("axes fraction", "data"),
            va="center",
            color=_TEXT,
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(order)), order)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#ececec", lw=0.8)
    axes.set_xlabel("ms of a decision: P1–P99, quartiles, median; P50 / P99 at the right")
    return figure


def axis_figure(
    curves: Mapping[str, Mapping[float, Interval]], colours: Mapping[str, str], *, axis: str
) -> Figure:
    """Mean normalised makespan over an axis, with 95 % intervals; a line a policy.

    Args:
        curves: by policy, the interval at each value.
        colours: from `policy_colours`.
        axis: what the values are.
    """
    figure, axes = _canvas(7.6, 4.4)
    for name in reversed(list(curves)):
        x = np.array(list(curves[name]))
        spans = list(curves[name].values())
        mean = np.array([span.mean for span in spans])
        muted = colours[name] == _OTHERS
        axes.fill_between(
            x,
            [span.low for span in spans],
            [span.high for span in spans],
            color=colours[name],
            alpha=0.0 if muted else 0.15,
            lw=0,
        )
        axes.plot(x, mean, "-o", color=colours[name], lw=1.0 if muted else 1.8, ms=4)
    for name in curves:
        if colours[name] != _OTHERS:
            axes.plot([], [], "-o", color=colours[name], lw=1.8, ms=4, label=name)
    values = np.array(sorted({x for curve in curves.values() for x in curve}))
    if values.min() > 0 and values.max() / values.min() > 10:
        axes.set_xscale("log")
    # The values that were played, and no others.
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.minorticks_off()
    axes.set_xlabel(axis)
    axes.set_ylabel("mean makespan / round robin's, 95 % CI")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    return figure


def _canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, max(height, 1.8)), dpi=DPI, layout="constrained")
    all_axes = figure.subplots(rows, columns, **options)
    for axes in np.atleast_1d(all_axes).flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#999999")
        axes.tick_params(color="#999999", labelcolor=_TEXT, labelsize=8.5)
    return figure, all_axes


def _log_axis(axes: Axes, low: float, high: float) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    ticks = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if low * 0.9 <= t <= high * 1.1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _letter(number: int) -> str:
    if number < len(ascii_uppercase):
        return ascii_uppercase[number]
    return _letter(number // len(ascii_uppercase) - 1) + _letter(number % len(ascii_uppercase))


def _draw_schedule(
    axes: Axes, schedule: Schedule, letters: Mapping[str, str], horizon: float
) -> None:
    spans: dict[str, list[tuple[float, float, float, float]]] = {phase: [] for phase in PHASES}
    for y, device in enumerate(schedule.devices):
        shards = sorted(
            (row for row in schedule.shards if row["device"] == device),
            key=lambda row: row["start"],
        )
        for row in shards:
            load, transfer = row["load_s"] * row["noise"], row["transfer_s"] * row["noise"]
            begin = row["start"] + max(load, transfer)
            middle = begin + row["prefill_s"] * row["noise"]
            spans["load"].append((row["start"], load, y - 0.38, 0.38))
            spans["transfer"].append((row["start"], transfer, y, 0.38))
            spans["prefill"].append((begin, middle - begin, y - 0.38, 0.76))
            spans["decode"].append((middle, row["end"] - middle, y - 0.38, 0.76))
        _write_letters(axes, shards, y, letters, 0.012 * horizon)
    for phase, colour in PHASES.items():
        _draw_spans(axes, spans[phase], colour)
    axes.set_yticks(range(len(schedule.devices)), schedule.devices)
    axes.set_ylim(len(schedule.devices) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0, labelsize=8 if len(schedule.devices) <= 16 else 6)


def _draw_spans(
    axes: Axes, spans: Sequence[tuple[float, float, float, float]], colour: str
) -> None:
    from matplotlib.collections import PolyCollection

    corners = [
        [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        for x, width, y, height in spans
        if width > 0
    ]
    axes.add_collection(PolyCollection(corners, facecolors=colour, edgecolors="white", lw=0.3))


def _write_letters(
    axes: Axes, shards: Sequence[ShardRow], y: int, letters: Mapping[str, str], least: float
) -> None:
    """A letter on the longest shard of each run of one model, if it takes ``least`` seconds."""
    for model, run in groupby(shards, key=lambda row: row["model"]):
        longest = max(run, key=lambda row: row["end"] - row["start"])
        if model not in letters or longest["end"] - longest["start"] < least:
            continue
        text = axes.text(
            (longest["start"] + longest["end"]) / 2,
            y,
            letters[model],
            ha="center",
            va="center",
            fontsize=7,
            fontweight="bold",
            color=_TEXT,
            zorder=5,
        )
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})
