"""The map of regimes: gains by cluster and setting, as heat maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fate_gym.lab.config import MapConfig
from fate_gym.lab.report.figures import style
from fate_gym.lab.report.regimes import Gain, Panel

# Orange and blue are distinguishable with every kind of colour vision.
COLOURS = LinearSegmentedColormap.from_list(
    "gain", [style.BASELINES[0], "#f7c9a8", "#ffffff", "#a9cfea", style.FATE[0]]
)
_STEPS = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 100.0)
"""Ends of colour scales, in percent."""
_TITLE = 1.3
"""Width that the title of a map needs, inches."""


def map_figure(panels: Sequence[Panel], spec: MapConfig) -> Figure:
    """Draw gains as heat maps: one row of maps per policy, one map per baseline.

    A cell shows the gain in percent and its 95 % interval; a row label shows n, the number of
    workflows (or problems) per cell. White is no gain, blue is ahead, orange is behind. Maps share
    a scale that covers four of five cells; those over round robin have their own, since it is far
    behind. Cells at or above the published gain are outlined.

    Args:
        panels: from `regime_panels`; not empty.
        spec: rows, columns and published gains.
    """
    policies = list(dict.fromkeys(panel.policy for panel in panels))
    overs = list(dict.fromkeys(panel.over for panel in panels))
    rows, columns = list(spec.rows), list(spec.columns.values())
    figure, grid = style.canvas(
        1.9 + len(overs) * (0.25 + max(_TITLE, 0.66 * len(columns))),
        0.3 + len(policies) * (0.9 + 0.4 * len(rows)),
        rows=len(policies), columns=len(overs), squeeze=False,
    )  # fmt: skip
    far = [panel for panel in panels if panel.over == "round_robin"]
    near = [panel for panel in panels if panel.over != "round_robin"]
    scales = {over: _scale(far if over == "round_robin" else near) for over in overs}
    found = {(panel.policy, panel.over): panel for panel in panels}
    for i, policy in enumerate(policies):
        for j, over in enumerate(overs):
            axes: Axes = grid[i][j]
            panel = found.get((policy, over), Panel(policy, over, {}))
            marked = spec.marked(over)
            _draw(axes, panel, scales[over], rows, columns, marked)
            axes.set_yticks(range(len(rows)), _labels(panels, rows) if j == 0 else [])
            title = panel.title if len(columns) > 3 else f"{policy} over\n{panel.other}"
            axes.set_title(title, fontsize=9.5, loc="left", color=style.TEXT)
            _colour_bar(figure, axes, scales[over], marked)
    return figure


def _scale(panels: Sequence[Panel]) -> Normalize:
    """Make a colour scale that is symmetric around 0."""
    sizes = [abs(gain.percent.value) for panel in panels for gain in panel.gains.values()]
    known = [size for size in sizes if not isnan(size)]
    wide = float(np.quantile(known, 0.8)) if known else 0.0
    end = next((step for step in _STEPS if step >= wide), _STEPS[-1])
    return Normalize(-end, end, clip=True)


def _draw(
    axes: Axes,
    panel: Panel,
    scale: Normalize,
    rows: Sequence[str],
    columns: Sequence[str],
    marked: float | None,
) -> None:
    for (row, column), gain in panel.gains.items():
        x, y = columns.index(column), rows.index(row)
        value = gain.percent.value
        if isnan(value):
            continue
        colour = COLOURS(scale(value))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fc=colour, ec="white", lw=1))
        if marked is not None and value >= marked:
            outline = Rectangle((x - 0.45, y - 0.44), 0.9, 0.88, fc="none", ec=style.TEXT, lw=1.3)
            axes.add_patch(outline)
        ink = "white" if _luminance(colour) < 0.2 else "black"  # the higher contrast
        place: dict[str, Any] = {"ha": "center", "va": "center", "color": ink}
        axes.text(x, y - 0.15, _one_digit(value, "+"), fontsize=9.5, **place)
        axes.text(x, y + 0.25, _interval(gain), fontsize=7, **place)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.set_xticks(range(len(columns)), columns)
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#f2f2f2")


def _interval(gain: Gain) -> str:
    _, low, high = gain.percent
    return "" if isnan(low) else f"{_one_digit(low)}, {_one_digit(high)}"


def _one_digit(value: float, sign: str = "") -> str:
    return f"{round(value, 1) + 0.0:{sign}.1f}".replace("-", "−")  # no minus before zero


def _labels(panels: Sequence[Panel], rows: Sequence[str]) -> list[str]:
    """Make the row labels, with the number of workflows per cell."""
    labels = []
    for row in rows:
        counts = {gain.n for p in panels for place, gain in p.gains.items() if place[0] == row}
        span = "–".join(str(n) for n in sorted({min(counts), max(counts)})) if counts else "0"
        labels.append(f"{row}\nn = {span}")
    return labels


def _luminance(colour: tuple[float, ...]) -> float:
    """Compute the relative luminance of WCAG 2, 0 to 1."""
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _colour_bar(figure: Figure, axes: Axes, scale: Normalize, marked: float | None) -> None:
    bar = figure.colorbar(
        ScalarMappable(scale, COLOURS), ax=axes, orientation="horizontal", fraction=0.025,
        pad=0.01, aspect=35, extend="both",
    )  # fmt: skip
    end = float(scale.vmax or 0.0)
    ticks = [-end, 0.0, end]
    if marked is not None and marked < end:
        bar.ax.axvline(marked, color=style.TEXT, lw=1.3)
        ticks = [-end, 0.0, marked, *([end] if marked < 0.8 * end else [])]
    bar.set_ticks(ticks, labels=[f"{tick:+g}" if tick else "0 %" for tick in ticks])
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
