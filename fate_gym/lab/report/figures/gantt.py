"""Gantt charts of schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from string import ascii_uppercase
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fate_gym.lab.jobs.schedules import Schedule, ShardRow
from fate_gym.lab.report.figures.style import TEXT, canvas
from fate_gym.metrics.outcome import LEAST_S
from fate_gym.sim.occupancy import lanes
from fate_gym.sim.phases import phases

PHASES = {"load": "#d55e00", "transfer": "#cc79a7", "prefill": "#9ecbe8", "decode": "#0072b2"}
"""Colours of the four phases of a shard, in order of time."""


def gantt_figure(schedules: Mapping[str, Schedule], *, title: str = "") -> Figure:
    """Draw what every device does over time; one panel per schedule, on a shared time axis.

    A shard is a bar: load above transfer (they overlap), then prefill, then decode. Concurrent
    shards share the height of their device's row. Letters name the model, once for each sequence
    of shards of one model. Tools run on the host and are not drawn.

    Args:
        schedules: schedules of one problem by policy, from top to bottom.
        title: title of the figure.
    """
    devices = next(iter(schedules.values())).devices
    models = sorted({row["model"] for one in schedules.values() for row in one.shards} - {""})
    letters = {model: _letter(number) for number, model in enumerate(models)}
    row = 0.3 if len(devices) <= 16 else 0.18
    figure, all_axes = canvas(
        10.0, 1.1 + len(schedules) * (0.45 + row * len(devices)), rows=len(schedules), sharex=True
    )
    panels = np.atleast_1d(all_axes)
    horizon = max(LEAST_S, *(schedule.end for schedule in schedules.values()))
    for axes, (name, schedule) in zip(panels, schedules.items(), strict=True):
        axes.set_xlim(0, horizon * 1.005)
        _draw_schedule(axes, schedule, letters, horizon)
        axes.axvline(schedule.end, color=TEXT, lw=1)
        axes.set_title(f"{name}: {schedule.end:.1f} s", fontsize=10, loc="left", color=TEXT)
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
        figure.suptitle(title, fontsize=11, x=0.01, ha="left", color=TEXT)
    return figure


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
        ends = ([row["start"] for row in shards], [row["end"] for row in shards])
        lane = lanes(np.zeros(len(shards)), *ends)
        height = 0.76 / (lane.max(initial=0) + 1)
        for row, number in zip(shards, lane.tolist(), strict=True):
            start, loaded, moved, begin, prefilled, end = map(float, phases(row, False))
            top, half = y - 0.38 + number * height, 0.5 * height
            spans["load"].append((start, loaded - start, top, half))
            spans["transfer"].append((start, moved - start, top + half, half))
            spans["prefill"].append((begin, prefilled - begin, top, height))
            spans["decode"].append((prefilled, end - prefilled, top, height))
        _write_letters(axes, shards, y, letters, 0.012 * horizon)
    for phase, colour in PHASES.items():
        _draw_spans(axes, spans[phase], colour)
    axes.set_yticks(range(len(schedule.devices)), schedule.devices)
    axes.set_ylim(len(schedule.devices) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0, labelsize=8 if len(schedule.devices) <= 16 else 6)


def _draw_spans(
    axes: Axes, spans: Sequence[tuple[float, float, float, float]], colour: str
) -> None:
    corners = [
        [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        for x, width, y, height in spans
        if width > 0
    ]
    # Edges would hide thin bars.
    edge = 0.3 if all(height > 0.15 for _, _, _, height in spans) else 0.0
    axes.add_collection(PolyCollection(corners, facecolors=colour, edgecolors="white", lw=edge))


def _write_letters(
    axes: Axes, shards: Sequence[ShardRow], y: int, letters: Mapping[str, str], least: float
) -> None:
    """Write letters on the longest shard of each sequence of one model, if at least ``least`` s."""
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
            color=TEXT,
            zorder=5,
        )
        text.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})
