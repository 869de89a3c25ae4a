"""Common style of the figures: colours, canvas, axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from unicodedata import category

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    Formatter,
    FuncFormatter,
    NullLocator,
    StrMethodFormatter,
)

from fate_gym.errors import printable
from fate_gym.files import replacing

# Okabe & Ito 2008: distinguishable with colour-blind vision.
FATE = ("#0072b2", "#56b4e9", "#003f6b")
BASELINES = ("#d55e00", "#009e73", "#cc79a7", "#e69f00", "#8c6d31")
REFERENCE = "#4d4d4d"
OTHERS = "#c4c4c4"
MUTED = "#8a8a8a"
TEXT = "#222222"

DPI = 150
LATENCY_RATIO = "latency / RoundRobin"


def policy_colours(policies: Sequence[str], families: Mapping[str, str]) -> dict[str, str]:
    """Choose a colour for each policy, the same in every figure; grey beyond the best of a kind.

    Args:
        policies: best first.
        families: family of each policy.
    """
    fate, baselines = iter(FATE), iter(BASELINES)
    colours = {}
    for policy in policies:
        if policy == "round_robin":
            colours[policy] = REFERENCE
        else:
            colours[policy] = next(fate if families[policy] == "fate" else baselines, OTHERS)
    return colours


def line_style(colour: str, place: int) -> dict[str, Any]:
    """Return the style of a policy's line: thin if grey, and on top of those after it."""
    muted = colour == OTHERS
    return {
        "color": colour,
        "lw": 1.0 if muted else 1.8,
        "zorder": (2.5 if muted else 3.5) - 0.001 * place,
    }


def canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """Create an empty figure and its axes."""
    figure = Figure(figsize=(width, max(height, 1.8)), dpi=DPI, layout="constrained")
    all_axes = figure.subplots(rows, columns, **options)
    for axes in np.atleast_1d(all_axes).flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color("#999999")
        axes.tick_params(color="#999999", labelcolor=TEXT, labelsize=8.5)
    return figure, all_axes


def policy_rows(axes: Axes, policies: Sequence[str]) -> None:
    """Set up one row per policy, the first on top."""
    axes.set_yticks(range(len(policies)), policies)
    axes.set_ylim(len(policies) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def write_beside(axes: Axes, row: int, text: str) -> None:
    """Write a text to the right of a row."""
    beside = ("axes fraction", "data")
    axes.annotate(text, (1.01, row), xycoords=beside, va="center", color=TEXT, fontsize=8)


def dashed_line(axes: Axes, *, x: float | None = None, y: float | None = None) -> None:
    """Draw the line at which two policies are equal."""
    style: dict[str, Any] = {"color": REFERENCE, "lw": 1, "ls": (0, (4, 3)), "zorder": 1}
    if x is not None:
        axes.axvline(x, **style)
    if y is not None:
        axes.axhline(y, **style)


def legend_beside(axes: Axes, **options: Any) -> None:
    """Put the legend to the right of the axes."""
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, **options)


def log_axis(axes: Axes, low: float, high: float) -> None:
    """Make the x axis logarithmic with round ticks, if values span more than a factor of 4."""
    if low <= 0 or high / low <= 4:
        return
    ticks = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20, 50, 100)
    axes.set_xscale("log")
    log_ticks(axes.xaxis, [t for t in ticks if low * 0.9 <= t <= high * 1.1])


def log_ticks(axis: Axis, ticks: Sequence[float], text: str = "{x:g}") -> None:
    """Label these places of a logarithmic axis, and no others."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter(text))


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure atomically; the suffix of the path gives the format.

    Args:
        figure: the figure.
        path: path of the file.
        options: options of matplotlib's ``savefig``.
    """
    with replacing(path) as temporary:
        draw_into(figure, temporary, **options)


def draw_into(figure: Figure, file: Path | IO[bytes], **options: Any) -> None:
    """Draw a figure with all texts verbatim: matplotlib would read ``$`` in a name as a formula.

    Characters that XML forbids or that no font has are escaped. Tick texts are created while a
    figure is drawn, so their formatters are changed; all other texts exist before.
    """
    with rc_context({"text.parse_math": False}):
        for text in figure.findobj(Text):
            assert isinstance(text, Text)
            text.set_parse_math(False)
            text.set_text(_shown(text.get_text()))
        for axes in figure.axes:
            for axis in (axes.xaxis, axes.yaxis):
                _show_ticks(axis.get_major_formatter())
        figure.savefig(file, **options)


def _shown(text: str) -> str:
    """Escape control characters, surrogates and text-direction marks in a text."""
    return "".join(
        printable(one) if one != "\n" and category(one) in _NOT_SHOWN else one for one in text
    )


_NOT_SHOWN = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")


def _show_ticks(formatter: Formatter) -> None:
    """Escape tick texts in their formatter, which creates them while the figure is drawn."""
    if isinstance(formatter, FixedFormatter):
        formatter.seq = [_shown(text) for text in formatter.seq]
    elif isinstance(formatter, FuncFormatter):
        make = formatter.func

        def shown(value: float, place: int | None = None) -> str:
            return _shown(make(value, place))

        formatter.func = shown
