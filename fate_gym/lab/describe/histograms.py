"""Histograms of a suite's lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from fate_gym.lab.describe.facts import Facts


def draw_histograms(axes: NDArray[Any], facts: Sequence[Facts]) -> None:
    """Tokens of stages and queries, and bytes of edges; values of 0 are counted in the title."""
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
        nothing = len(values) - len(positive)
        ax.set_title(title + (f" ({nothing} have none)" if nothing else ""), fontsize=9, loc="left")
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
