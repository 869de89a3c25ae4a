"""Occupancy of devices over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fate_gym.lab.jobs.schedules import Schedule
from fate_gym.lab.report.figures import style
from fate_gym.metrics.outcome import LEAST_S
from fate_gym.sim.occupancy import Steps, occupancy

BINS = 240
"""Number of parts of the time axis over which means are taken."""


def occupancy_figure(schedules: Mapping[str, Schedule], *, title: str = "") -> Figure:
    """Draw queries in service on every device over time; one panel per schedule, shared time axis.

    A cell is the mean over a short interval; white: nothing is in service. The number at the right
    of a row is the mean over the time in which the device is busy.

    Args:
        schedules: schedules of one problem by policy, from top to bottom.
        title: title of the figure.
    """
    devices = next(iter(schedules.values())).devices
    row = 0.14 if len(devices) <= 16 else 0.07
    figure, all_axes = style.canvas(
        10.0, 1.0 + len(schedules) * (0.45 + row * len(devices)), rows=len(schedules), sharex=True
    )
    panels = np.atleast_1d(all_axes)
    horizon = max(LEAST_S, *(schedule.end for schedule in schedules.values()))
    edges = np.linspace(0.0, horizon, BINS + 1)
    lines = {name: by_device(schedule) for name, schedule in schedules.items()}
    cells = {name: np.array([one.means(edges) for one in by]) for name, by in lines.items()}
    most = max(2.0, *(float(one.max()) for one in cells.values()))
    colours = ScalarMappable(LogNorm(0.5, most, clip=True), "viridis_r")
    for axes, (name, schedule) in zip(panels, schedules.items(), strict=True):
        shown = np.ma.masked_less(cells[name], 0.05)
        rows = np.arange(len(devices) + 1) - 0.5
        axes.pcolormesh(edges, rows, shown, cmap=colours.cmap, norm=colours.norm, rasterized=True)
        axes.axvline(schedule.end, color=style.TEXT, lw=1)
        axes.set_yticks(range(len(devices)), devices)
        axes.set(xlim=(0.0, horizon), ylim=(len(devices) - 0.5, -0.5))
        size = 6 if len(devices) <= 16 else 4
        axes.tick_params(axis="y", length=0, labelsize=size)
        for y, line in enumerate(lines[name]):
            if line.integral() > 0:
                mean = f"{line.integral() / line.positive_seconds():.1f}"
                axes.text(1.003 * horizon, y, mean, fontsize=size, va="center", color=style.TEXT)
        axes.set_title(_numbers(name, schedule), fontsize=9, loc="left", color=style.TEXT)
    panels[-1].set_xlabel("time, s")
    bar = figure.colorbar(colours, ax=list(panels), pad=0.03, aspect=40)
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= most]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.set_label("queries in service", color=style.TEXT)
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left", color=style.TEXT)
    return figure


def schedule_occupancy(schedule: Schedule) -> Steps:
    """Compute queries in service over time, on all devices together."""
    return occupancy(_on_devices(schedule))


def by_device(schedule: Schedule) -> list[Steps]:
    """Compute queries in service over time, on each device."""
    shards = _on_devices(schedule)
    return [occupancy(shards[shards["device"] == name]) for name in schedule.devices]


def _numbers(name: str, schedule: Schedule) -> str:
    """Make the title of a panel."""
    lines = by_device(schedule)
    busy = sum(line.positive_seconds() for line in lines)
    mean = sum(line.integral() for line in lines) / busy if busy > 0 else 0.0
    span = (schedule.end - schedule.start) * len(lines)
    share = busy / span if span > 0 else 0.0
    return (
        f"{name}: {schedule.end:.0f} s; {mean:.1f} queries in service on a busy device, "
        f"devices busy {share:.0%} of the time"
    )


def _on_devices(schedule: Schedule) -> pd.DataFrame:
    columns = ["device", "start", "end", "queries", "waves"]
    table = pd.DataFrame(schedule.shards, columns=columns)
    return table[table["device"] != ""]
