"""Figures of the cost model: predicted against measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fate_gym.lab.cost_fit.formulas import Frame

_GPUS = {  # Okabe & Ito 2008
    "A100-80": "#0072b2",
    "H100-SXM": "#d55e00",
    "H200-SXM": "#009e73",
    "L40S": "#cc79a7",
}
_PANELS = (
    ("layer", "prefill", "Prefill of a layer"),
    ("layer", "decode", "Decode step of a layer"),
    ("engine", "ttft", "Engine: time to first token"),
    ("engine", "tpot", "Engine: time a token"),
    ("engine", "request", "Engine: time of a request"),
)
_TEXT = "#222222"
_DPI = 150


def draw(rows: Frame, folder: Path) -> None:
    """Write ``cost_model_scatter.png`` and ``cost_model_curves.png`` into a folder.

    Args:
        rows: from `fate_gym.lab.cost_fit.predictions.compare`.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scatter_figure(rows).savefig(folder / "cost_model_scatter.png", dpi=_DPI)
    curves_figure(rows).savefig(folder / "cost_model_curves.png", dpi=_DPI)


def scatter_figure(rows: Frame) -> Figure:
    """Predicted against measured seconds, both logarithmic, with the band of 15 %."""
    figure = Figure(figsize=(12.0, 8.0), layout="constrained")
    *panels, legend = figure.subplots(2, 3).flat
    for axes, (level, phase, title) in zip(panels, _PANELS, strict=True):
        part = rows[rows.level.str.startswith(level) & (rows.phase == phase)]
        _scatter(axes, part)
        held_out = part[part.split == "test"]
        error = (held_out.predicted_s / held_out.measured_s - 1).abs()
        axes.set_title(f"{title}: median error {error.median():.1%}", fontsize=10, color=_TEXT)
    legend.axis("off")
    legend.legend(*_handles(), loc="center", frameon=False, fontsize=10)
    return figure


def _scatter(axes: Axes, part: Frame) -> None:
    both = part[["measured_s", "predicted_s"]]
    low, high = both.min(axis=None) / 1.5, both.max(axis=None) * 1.5
    line = np.array([low, high])
    axes.fill_between(line, line * 0.85, line * 1.15, color="#e8e8e8", lw=0)
    axes.plot(line, line, color="#8a8a8a", lw=0.8)
    for gpu, colour in _GPUS.items():
        for split, face in (("train", "none"), ("test", colour)):
            chosen = part[(part.gpu == gpu) & (part.split == split)]
            full = chosen.level == "engine, KV full"
            axes.scatter(
                chosen.measured_s[~full], chosen.predicted_s[~full], s=14, lw=0.8,
                facecolors=face, edgecolors=colour, alpha=0.8,
            )  # fmt: skip
            axes.scatter(
                chosen.measured_s[full], chosen.predicted_s[full], s=22, lw=1.0,
                marker="x", color=colour, alpha=0.8,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel("measured, s")
    axes.set_ylabel("predicted, s")


def _handles() -> tuple[list[Artist], list[str]]:
    def dot(colour: str, face: str, marker: str = "o") -> Artist:
        return Line2D([], [], marker=marker, ls="", color=colour, markerfacecolor=face)

    handles = [dot(colour, colour) for colour in _GPUS.values()]
    handles += [dot("#4d4d4d", "none"), dot("#4d4d4d", "#4d4d4d"), dot("#4d4d4d", "#4d4d4d", "x")]
    return handles, [*_GPUS, "fitted on", "held out", "held out, not all clients' KV fits"]


def curves_figure(rows: Frame) -> Figure:
    """Held-out pairs by size: linear layers, time a token, and time to first token in a queue."""
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
    """By clients, a curve for each length of prompt and output."""
    groups = part.groupby(["prompt", "output"])
    for ((prompt, output), curve), colour in zip(groups, _GPUS.values(), strict=False):
        _curve(axes, curve, colour, f"{prompt} tokens in, {output} out")
    axes.set(xscale="log", yscale="log", xlabel="clients", ylabel=label)
    axes.legend(frameon=False, fontsize=8)
    axes.minorticks_off()
    ticks = sorted(part["size"].unique())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])


def _curve(axes: Axes, part: Frame, colour: str, label: str) -> None:
    """A line of predictions and a dot for each measurement."""
    part = part.sort_values("size")
    axes.plot(part["size"], part.predicted_s * 1e3, color=colour, lw=1.4, label=label)
    axes.plot(part["size"], part.measured_s * 1e3, "o", color=colour, ms=4)
