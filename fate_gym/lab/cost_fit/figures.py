"""Figures of the cost model: predicted against measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.report.figures.style import save_figure

_GPUS = {  # Okabe & Ito 2008
    "A100-80": "#0072b2",
    "H100-SXM": "#d55e00",
    "H200-SXM": "#009e73",
    "L40S": "#cc79a7",
}
_PANELS = (
    ("layer", "prefill", "Prefill of a layer"),
    ("layer", "decode", "Decode step of a layer"),
)
_ENGINE_PANELS = (
    ("ttft", "Time to first token"),
    ("tpot", "Time per output token"),
    ("request", "Time of a request"),
)
_ENGINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d")
_TEXT = "#222222"
_DPI = 150


def draw(rows: Frame, folder: Path) -> None:
    """Write ``cost_model_scatter.png``, ``…_engines.png`` and ``…_curves.png`` into a folder.

    Args:
        rows: from `fate_gym.lab.cost_fit.predictions.compare`.
        folder: created if it does not exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(scatter_figure(rows), folder / "cost_model_scatter.png", dpi=_DPI)
    save_figure(engines_figure(rows), folder / "cost_model_engines.png", dpi=_DPI)
    save_figure(curves_figure(rows), folder / "cost_model_curves.png", dpi=_DPI)


def scatter_figure(rows: Frame) -> Figure:
    """Plot predicted against measured seconds of layers, on log scales, with a 15 % band."""
    figure = Figure(figsize=(10.4, 4.0), layout="constrained")
    *panels, legend = figure.subplots(1, 3, width_ratios=(4, 4, 1.3))
    for axes, (level, phase, title) in zip(panels, _PANELS, strict=True):
        part = rows[(rows.level == level) & (rows.phase == phase)]
        band(axes, part)
        for gpu, colour in _GPUS.items():
            for split, face in (("train", "none"), ("test", colour)):
                chosen = part[(part.gpu == gpu) & (part.split == split)]
                _dots(axes, chosen, edgecolors=colour, facecolors=face)
        _head(axes, title, part[part.split == "test"])
    handles = [_dot(colour, colour) for colour in _GPUS.values()]
    handles += [_dot("#4d4d4d", "none"), _dot("#4d4d4d", "#4d4d4d")]
    legend.axis("off")
    legend.legend(handles, [*_GPUS, "fitted on", "held out"], loc="center", frameon=False)
    return figure


def engines_figure(rows: Frame) -> Figure:
    """Plot the same for engines: every run of each model, precision, engine and GPU."""
    figure = Figure(figsize=(13.2, 5.0), layout="constrained")
    engines = rows[rows.level.str.startswith("engine")]
    groups = dict(list(engines.groupby(["model", "precision", "engine", "gpu"])))
    for axes, (phase, title) in zip(figure.subplots(1, 3), _ENGINE_PANELS, strict=True):
        band(axes, engines[engines.phase == phase])
        for group, colour in zip(groups.values(), _ENGINES, strict=True):
            chosen = group[group.phase == phase]
            full = chosen.level == "engine, KV full"
            _dots(axes, chosen[~full], edgecolors=colour, facecolors=colour)
            _dots(axes, chosen[full], color=colour, marker="x")
        _head(axes, title, engines[engines.phase == phase])
    handles = [_dot(colour, colour) for colour in _ENGINES]
    handles.append(_dot("#4d4d4d", "#4d4d4d", "x"))
    names = [
        f"{model}, {8 if precision == 'fp8' else 16} bits, {engine}, {gpu.partition('-')[0]}"
        for model, precision, engine, gpu in groups
    ]
    names.append("KV of all clients does not fit")
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def band(axes: Axes, part: Frame) -> None:
    """Draw the line of no error and a 15 % band, with limits that show all of ``part``."""
    both = part[["measured_s", "predicted_s"]]
    low, high = both.min(axis=None) / 1.5, both.max(axis=None) * 1.5
    line = np.array([low, high])
    axes.fill_between(line, line * 0.85, line * 1.15, color="#e8e8e8", lw=0)
    axes.plot(line, line, color="#8a8a8a", lw=0.8)
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel("measured, s")
    axes.set_ylabel("computed, s")


def _dots(axes: Axes, chosen: Frame, **style: Any) -> None:
    axes.scatter(chosen.measured_s, chosen.predicted_s, s=16, lw=0.8, alpha=0.8, **style)


def _head(axes: Axes, title: str, part: Frame) -> None:
    error = (part.predicted_s / part.measured_s - 1).abs()
    axes.set_title(f"{title}: median error {error.median():.1%}", fontsize=10, color=_TEXT)


def _dot(colour: str, face: str, marker: str = "o") -> Artist:
    return Line2D([], [], marker=marker, ls="", color=colour, markerfacecolor=face)


def curves_figure(rows: Frame) -> Figure:
    """Plot held-out pairs by size: linear layers, time per token, queued time to first token."""
    figure = Figure(figsize=(12.6, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    linear = rows[(rows.phase == "linear") & (rows.model == "Llama-2-70b-hf")]
    for gpu, colour in _GPUS.items():
        _curve(left, linear[linear.gpu == gpu], colour, gpu)
    left.set(xscale="log", yscale="log", xlabel="tokens in the batch", ylabel="ms a layer")
    left.set_title("Linear layers of Llama-2-70B", fontsize=10, color=_TEXT)
    left.legend(frameon=False, fontsize=8)
    tokens = rows[(rows.phase == "tpot") & (rows.model == "Llama-3.1-8B") & (rows.output == 256)]
    _engine_curves(middle, tokens, "ms a token")
    middle.set_title("Llama-3.1-8B on an H100, TensorRT-LLM", fontsize=10, color=_TEXT)
    middle.set_yticks([10, 20, 50], ["10", "20", "50"])
    queued = rows[(rows.phase == "ttft") & (rows.model == "Llama-3.1-70B")]
    _engine_curves(right, queued[queued.engine == "trtllm"], "time to first token, ms")
    right.set_title("Llama-3.1-70B on an H200, TensorRT-LLM", fontsize=10, color=_TEXT)
    return figure


def _engine_curves(axes: Axes, part: Frame, label: str) -> None:
    """Plot times against clients, one curve per length of prompt and output."""
    groups = part.groupby(["prompt", "output"])
    for ((prompt, output), curve), colour in zip(groups, _GPUS.values(), strict=False):
        _curve(axes, curve, colour, f"{prompt} tokens in, {output} out")
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    axes.minorticks_off()
    ticks = sorted(part["size"].unique())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])


def _curve(axes: Axes, part: Frame, colour: str, label: str) -> None:
    """Plot predictions as a line and measurements as dots."""
    part = part.sort_values("size")
    axes.plot(part["size"], part.predicted_s * 1e3, color=colour, lw=1.4, label=label)
    axes.plot(part["size"], part.measured_s * 1e3, "o", color=colour, ms=4)
