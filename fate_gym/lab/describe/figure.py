"""Figures of a suite's workflows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from fate_gym.errors import InputError
from fate_gym.lab.describe.facts import Facts, by_family

_PICTURES = 16
_FEW = 4  # least number of pictures, if there are as many sizes
_TOOL = "#4d4d4d"
_EDGE = "#b0b0b0"


def draw_suite(title: str, facts: Sequence[Facts]) -> Figure:
    """Draw workflows of each family, small ones first, and histograms of lengths.

    With many families the smallest workflow of each is shown, with few several up to the median
    size; workflows of one stage only if there are no others.

    Stages are in columns by level and coloured by model; tools are squares.
    """
    shown = _shown(list(by_family(facts).values())[:_PICTURES])
    models = sorted({model for row in shown for model in row.models})
    columns = min(4, len(shown))
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(12, 2.6 * lines + 3.4), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.6 * lines, 3.0])
    top, bottom = parts
    axes = top.subplots(lines, columns, squeeze=False).ravel()
    colours = _colours(models)
    for place, ax in enumerate(axes):
        ax.axis("off")
        if place < len(shown):
            _draw_dag(ax, shown[place], colours)
    tools = any(stage.kind != "model" for row in shown for stage in row.workflow.stages)
    _legend(top, colours, tools=tools)
    _draw_histograms(bottom.subplots(1, 4), facts)
    return figure


def _colours(models: Sequence[str]) -> dict[str, Any]:
    palette = colormaps["tab20"].colors  # type: ignore[attr-defined]
    return {model: palette[place % len(palette)] for place, model in enumerate(models)}


def _shown(families: Sequence[Sequence[Facts]]) -> list[Facts]:
    """Choose workflows of different sizes: the smallest of each family, more with few families."""
    each = max(1, _FEW // len(families))
    shown: list[Facts] = []
    for rows in families:
        graphs = [row for row in rows if row.stages > 1] or rows
        ordered = sorted(graphs, key=lambda row: row.stages)
        places = np.linspace(0, (len(ordered) - 1) // 2 if each > 1 else 0, each).astype(int)
        sizes = {ordered[place].stages: ordered[place] for place in places.tolist()}
        shown += sizes.values()
    return shown


def _legend(figure: Any, colours: dict[str, Any], *, tools: bool) -> None:
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=model)
        for model, colour in colours.items()
    ]
    if tools:
        tool = Line2D([], [], marker="s", linestyle="", color=_TOOL, label="tool or fixed")
        handles.append(tool)
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False, fontsize=8)


def _draw_dag(ax: Axes, facts: Facts, colours: dict[str, Any]) -> None:
    stages = facts.workflow.stages
    sizes = np.bincount(facts.levels)
    seen = np.zeros(len(sizes))
    x, y = np.zeros(len(stages)), np.zeros(len(stages))
    for place, level in enumerate(facts.levels.tolist()):
        x[place] = level
        y[place] = (seen[level] + 0.5) / sizes[level]
        seen[level] += 1
    points = {stage.id: point for stage, *point in zip(stages, x, y, strict=True)}
    lines = [[points[edge.parent], points[edge.child]] for edge in facts.workflow.edges]
    ax.add_collection(LineCollection(lines, colors=_EDGE, linewidths=0.5, zorder=1))
    size = float(np.clip(400 / max(facts.width, facts.depth), 4, 40))
    for marker, kind in (("o", True), ("s", False)):
        chosen = [place for place, stage in enumerate(stages) if (stage.kind == "model") == kind]
        ax.scatter(
            x[chosen],
            y[chosen],
            s=size,
            marker=marker,
            c=[colours.get(stages[place].model or "", _TOOL) for place in chosen],
            zorder=2,
        )
    ax.set_xlim(-0.5, len(sizes) - 0.5)
    ax.set_ylim(0, 1)
    label = facts.workflow.family or facts.workflow.id
    stages_of = "1 stage" if facts.stages == 1 else f"{facts.stages} stages"
    ax.set_title(f"{label}: {stages_of}", fontsize=9, loc="left")


def _draw_histograms(axes: NDArray[Any], facts: Sequence[Facts]) -> None:
    """Draw histograms of tokens and bytes; the number of zeros is in the title."""
    stages = [stage for row in facts for stage in row.workflow.stages if stage.model]
    columns: list[tuple[str, list[float]]] = [
        ("prefix tokens of a stage", [stage.prefix_tokens for stage in stages]),
        ("own prompt tokens of a query", [stage.prompt_tokens for stage in stages]),
        ("output tokens of a query", [stage.output_tokens for stage in stages]),
        ("MB of an edge", [edge.bytes / 1e6 for row in facts for edge in row.workflow.edges]),
    ]
    for ax, (title, values) in zip(axes, columns, strict=True):
        positive = [value for value in values if value > 0]
        if positive:
            low, high = np.log10(min(positive)), np.log10(max(positive))
            edges = np.logspace(low - 0.05, high + 0.05, 30)
            ax.hist(positive, bins=edges, color="#0072b2")
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.xaxis.set_major_locator(
                LogLocator(subs=(1.0,) if high - low > 2 else (1.0, 2.0, 5.0), numticks=6)
            )
        else:
            ax.set_xticks([])
            ax.set_yticks([])
        nothing = len(values) - len(positive)
        aside = f" ({nothing} have none)" if nothing else "" if values else " (no edges)"
        ax.set_title(title + aside, fontsize=9, loc="left")
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)


def check_figure_path(path: Path) -> None:
    """Raise `InputError` unless matplotlib can write this kind of file."""
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in known:
        raise InputError(
            f"cannot draw a {path.suffix or 'file without suffix'}",
            source=path,
            remedy="use .png, .svg or .pdf",
        )
