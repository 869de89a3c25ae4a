"""Predicted against measured times of one GPU: rows, errors by part, a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from fate_gym.catalog import Gpu
from fate_gym.lab.calibrate.fit import predicted_s
from fate_gym.lab.calibrate.plan import Measured
from fate_gym.lab.cost_fit.figures import band
from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.decoder.shape import DecoderShape
from fate_gym.lab.report.figures.style import BASELINES, FATE, TEXT, canvas, save_figure
from fate_gym.lab.tables import markdown_table

_PARTS = {
    "gemm": "matrix products of a layer",
    "prefill": "attention of a layer, prefill",
    "decode": "attention of a layer, decode",
    "pass": "whole pass",
    "load": "load from host memory",
    "peer": "copy to another device",
}
HEADS = ("what", "fitted on", "rows", "median error", "90th percentile", "bias")


def comparison(
    measured: Sequence[Measured], shapes: Mapping[str, DecoderShape], gpu: Gpu
) -> pd.DataFrame:
    """Make one row per measurement that the cost model covers."""
    rows = []
    for one in measured:
        task, predicted = one.task, predicted_s(one.task, shapes, gpu)
        if predicted is None:
            continue
        rows.append(
            {
                "what": task.kind,
                "model": task.model,
                "split": task.split,
                "queries": task.queries,
                "tokens": task.tokens,
                "context": task.context,
                "bytes": task.bytes,
                "measured_s": one.seconds,
                "low_s": one.low,
                "high_s": one.high,
                "rounds": one.rounds,
                "predicted_s": predicted,
            }
        )
    return pd.DataFrame(rows)


def errors(rows: Frame) -> pd.DataFrame:
    """Median, 90th percentile and bias of the relative error, by part and split over all models."""
    error = rows.predicted_s / rows.measured_s - 1.0
    groups = error.groupby([rows.what, rows.split])
    table = pd.DataFrame(
        {
            "rows": groups.size(),
            "median_abs_error": groups.apply(lambda e: e.abs().median()),
            "p90_abs_error": groups.apply(lambda e: e.abs().quantile(0.9)),
            "median_error": groups.median(),
        }
    ).reset_index()
    order = {part: place for place, part in enumerate(_PARTS)}
    # Within a part, the rows that constants were fitted on come first.
    place = table.what.map(order) + 0.5 * (table.split == "test")
    return table.iloc[np.argsort(place, kind="stable")].round(4).reset_index(drop=True)


def error_rows(table: Frame) -> list[tuple[str, ...]]:
    """Format an error table as rows of text."""
    return [
        (
            _PARTS[row.what],
            "yes" if row.split == "train" else "no",
            str(row.rows),
            f"{row.median_abs_error:.1%}",
            f"{row.p90_abs_error:.1%}",
            f"{row.median_error:+.1%}",
        )
        for row in table.itertuples()
    ]


def error_markdown(table: Frame) -> str:
    """Format an error table as Markdown."""
    return "\n".join(markdown_table(HEADS, error_rows(table), left=2))


def draw(rows: Frame, path: Path, title: str) -> None:
    """Draw the figure of predicted against measured times to a file."""
    save_figure(figure(rows, title), path)


def figure(rows: Frame, title: str) -> Figure:
    """Plot whole passes on the left, parts of layers and loads on the right, with a 15 % band."""
    drawn, (left, right) = canvas(9.2, 4.2, columns=2)
    passes = rows[rows.what == "pass"]
    band(left, passes)
    for split, label, face in (("train", "fitted on", "none"), ("test", "held out", FATE[0])):
        part = passes[passes.split == split]
        left.scatter(
            part.measured_s, part.predicted_s, s=18, edgecolors=FATE[0], facecolors=face,
            label=f"{label} ({len(part)})",
        )  # fmt: skip
    left.set_title("Whole passes", fontsize=10, color=TEXT)
    others = rows[rows.what != "pass"]
    band(right, others)
    for colour, (what, part) in zip(BASELINES, others.groupby("what", sort=False), strict=False):
        right.scatter(part.measured_s, part.predicted_s, s=18, color=colour, label=_PARTS[what])
    right.set_title("Parts", fontsize=10, color=TEXT)
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        # The default tick labels are formulas, which `save_figure` does not draw.
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    drawn.suptitle(title, fontsize=10.5, color=TEXT)
    return drawn
