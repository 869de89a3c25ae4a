"""A running episode as a Gantt chart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.render.bars import (
    DOWN,
    PHASES,
    TEXT,
    TOOL,
    now_and_later,
    outage_bars,
    residency_bars,
    shard_bars,
)
from fate_gym.env.render.scene import horizon, shards_until
from fate_gym.errors import printable
from fate_gym.kernel.schema import TOOL_STAGE
from fate_gym.sim import CompiledProblem, Trace

Picture = NDArray[np.uint8]

DPI = 100
_GREY, _RULE = "#8a8a8a", "#e4e4e4"
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 1120, 92, 14, 34, 34
"""Pixels."""
_LEGEND_ROW, _LEGEND_COLUMNS = 22, 5


class Chart:
    """A Gantt chart of one problem; its fixed parts are drawn once, the rest for every frame.

    The upper part of each row has load (upper half) beside transfer (lower half), then prefill,
    then decode; shards that run at the same time are one below the other. The lower part has a
    strip for each model in the device's memory. Pale: committed, but yet to come.

    Args:
        compiled: the problem.
    """

    def __init__(self, compiled: CompiledProblem) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.text import Text

        self.compiled = compiled
        self._host = len(compiled.device_ids)
        self._has_tools = bool((compiled.arrays.stages["kind"] == TOOL_STAGE).any())
        self._rows = self._host + self._has_tools
        self._legend_rows = 1 + math.ceil(len(compiled.model_names) / _LEGEND_COLUMNS)
        height = 34 if self._rows <= 18 else max(4, 612 // self._rows)
        bottom = _BOTTOM + _LEGEND_ROW * self._legend_rows
        total = _TOP + bottom + height * self._rows
        total += total % 2  # video encoders want even sizes
        figure = Figure(figsize=(_WIDTH / DPI, total / DPI), dpi=DPI, facecolor="white")
        # Matplotlib's canvases have no type annotations.
        self._canvas: Any = FigureCanvasAgg(figure)
        box = (
            _LEFT / _WIDTH,
            bottom / total,
            1 - (_LEFT + _RIGHT) / _WIDTH,
            1 - (_TOP + bottom) / total,
        )
        self._axes: Any = figure.add_axes(box)
        self._draw_axes(8 if height >= 12 else 4)
        self._colours = _palette(len(compiled.model_names))
        self._draw_legends(total)
        style: dict[str, Any] = {"fontsize": 10, "color": TEXT, "animated": True}
        y = 1 - 21 / total
        self._title = figure.text(_LEFT / _WIDTH, y, "", **style)
        self._clock = figure.text(1 - _RIGHT / _WIDTH, y, "", ha="right", **style)
        # A "$" in a name would start a formula in matplotlib.
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        self._horizon = -1.0
        self._background: Any = None

    def _draw_axes(self, label_size: int) -> None:
        axes, tools = self._axes, ["tools"] if self._has_tools else []
        axes.set_ylim(self._rows - 0.5, -0.5)
        axes.set_yticks(range(self._rows), [*map(printable, self.compiled.device_ids), *tools])
        axes.tick_params(axis="y", length=0, labelsize=label_size, labelcolor=TEXT)
        axes.tick_params(axis="x", labelsize=8, labelcolor=TEXT, color=_GREY)
        axes.set_xlabel("simulated time, s", fontsize=8, color=TEXT, labelpad=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_GREY)
        for y in range(self._rows + 1):
            axes.axhline(y - 0.5, color=_RULE, lw=0.8, zorder=0)

    def _draw_legends(self, total: int) -> None:
        phases = dict(PHASES) | ({"tool": TOOL} if self._has_tools else {})
        if self.compiled.problem.options.failures is not None:
            phases["down"] = DOWN
        self._legend(phases, _LEGEND_ROW * (self._legend_rows - 1) / total, len(phases))
        models = dict(zip(self.compiled.model_names, self._colours, strict=True))
        if models:
            self._legend(models, 0.0, _LEGEND_COLUMNS)

    def _legend(self, colours: dict[str, Any], y: float, columns: int) -> None:
        from matplotlib.patches import Patch

        self._canvas.figure.legend(
            handles=[Patch(color=colour, label=label) for label, colour in colours.items()],
            loc="lower left",
            bbox_to_anchor=(86 / _WIDTH, y),
            ncols=columns,
            frameon=False,
            fontsize=8,
            handlelength=1.2,
        )

    def draw(self, trace: Trace, now: float) -> Picture:
        """Draw one frame, an array (H, W, 3)."""
        from matplotlib import rc_context

        shards = shards_until(trace, now)
        until = horizon(now, shards)
        if until != self._horizon:
            self._horizon = until
            self._axes.set_xlim(0.0, until)
            with rc_context({"text.parse_math": False}):  # for ticks created now
                self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self._canvas.figure.bbox)
        self._canvas.restore_region(self._background)
        models = self.compiled.arrays.stages["model"]
        last = max(now, float(shards["end"].max(initial=0.0)))
        for artist in (
            *shard_bars(shards, self._host),
            *residency_bars(trace, models, last, self._colours),
            *outage_bars(trace, now),
            *now_and_later(now, until, self._rows),
        ):
            self._axes.add_artist(artist)
            self._axes.draw_artist(artist)
            artist.remove()
        ended = int((trace.stage_end > 0).sum())
        self._title.set_text(printable(trace.problem.id[-70:]))
        self._clock.set_text(f"{now:.2f} s    {ended} of {len(trace.stage_ids)} stages ended")
        renderer = self._canvas.get_renderer()
        self._title.draw(renderer)
        self._clock.draw(renderer)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()


def _palette(models: int) -> list[Any]:
    """Return strong colours first, then their pale partners."""
    from matplotlib import colormaps

    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    return [colours[order[m % 20]] for m in range(models)]
