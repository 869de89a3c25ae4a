"""The bars of a Gantt chart: matplotlib artists, made anew for every frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.render.residency import residencies, strips
from fate_gym.kernel.schema import HOST
from fate_gym.sim import Trace
from fate_gym.sim.occupancy import lanes
from fate_gym.sim.phases import phases

if TYPE_CHECKING:
    from matplotlib.collections import PolyCollection

Floats = NDArray[np.float64]

PHASES = {"load": "#d55e00", "transfer": "#cc79a7", "prefill": "#9ecbe8", "decode": "#0072b2"}
"""Colours of the four phases of a shard, in order (Okabe & Ito 2008)."""
_HEIGHT = 0.52
"""Height of the part of a row that shards share."""
TOOL, DOWN, TEXT = "#8c6d31", "#4d4d4d", "#222222"


def shard_bars(shards: NDArray[Any], host_row: int) -> list[PolyCollection]:
    """Draw load (upper half) beside transfer (lower half), then prefill, then decode.

    Shards that run at the same time share the height of their row.
    """
    tool = shards["device"] == HOST
    times = phases(shards, tool)
    row = np.where(tool, host_row, shards["device"])
    lane = lanes(row, times.start, times.end)
    most = np.ones(host_row + 1, np.int64)
    np.maximum.at(most, row, lane + 1)
    height = _HEIGHT / most[row]
    top = row - 0.42 + height * lane
    low, middle = top + height, top + 0.5 * height
    ends = np.where(tool, TOOL, PHASES["decode"]).tolist()
    return [
        _bars(times.start, times.loaded, top, middle, PHASES["load"]),
        _bars(times.start, times.moved, middle, low, PHASES["transfer"]),
        _bars(times.begin, times.prefilled, top, low, PHASES["prefill"]),
        _bars(times.prefilled, times.end, top, low, ends),
    ]


def residency_bars(
    trace: Trace, models: NDArray[Any], until: float, colours: list[Any]
) -> list[PolyCollection]:
    """Draw a strip for each model in a device's memory, below the device's shards."""
    here = residencies(trace, models, until)
    if not here:
        return []
    device, model, start, end = (np.array(column) for column in zip(*here, strict=True))
    strip = strips(here)
    height = 0.34 / max(3, int(strip.max()) + 1)
    upper = device + 0.13 + height * strip
    shades = [colours[m] for m in model.tolist()]
    return [_bars(start, end, upper, upper + height, shades, edge=False)]


def outage_bars(trace: Trace, now: float) -> list[PolyCollection]:
    """Draw the times when devices were down."""
    if not len(trace.outages):
        return []
    down, up = trace.outages["down"], np.minimum(trace.outages["up"], now)
    row = trace.outages["device"].astype(float)
    return [_bars(down, up, row - 0.42, row + 0.48, DOWN)]


def now_and_later(now: float, horizon: float, rows: int) -> list[Any]:
    """Draw a line at the present, and make what is still to come pale."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle

    return [
        Rectangle((now, -0.5), horizon - now, rows, facecolor="white", alpha=0.55, zorder=4),
        Line2D([now, now], [-0.5, rows - 0.5], color=TEXT, lw=1.2, zorder=5),
    ]


def _bars(
    start: Floats, end: Floats, upper: Floats, lower: Floats, colour: Any, *, edge: bool = True
) -> PolyCollection:
    from matplotlib.collections import PolyCollection

    corners = [(start, upper), (end, upper), (end, lower), (start, lower)]
    polygons = np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1)
    shown = end > start
    if isinstance(colour, list):
        colour = [one for one, draw in zip(colour, shown.tolist(), strict=True) if draw]
    return PolyCollection(
        list(polygons[shown]),
        facecolors=colour,
        edgecolors="white" if edge else "none",
        # Edges would hide thin bars.
        linewidths=np.where(edge & (lower - upper > 0.1), 0.4, 0.0)[shown],
        zorder=3,
    )
