"""The map of regimes as tables, and how a paper's reported gains compare with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan

from fate_gym.lab.config import MapConfig
from fate_gym.lab.report.regimes import OVER, Gain, Panel
from fate_gym.lab.report.runs import TextTable

_GAIN_LEGEND = (
    "Gain: 100 (1 − mean / mean of the other) of {measure}, positive is ahead; 95 % bootstrap "
    "intervals that draw whole instances (graphs, or streams). n: {counted}. The strongest "
    "baseline is chosen on the same {counted}, which favours it. Strict baselines see what their "
    "source says; boosted ones estimate with the state of the devices."
)
GAIN_LEGEND = _GAIN_LEGEND.format(measure="latency / RoundRobin", counted="workflows")
"""Explains gains in the means over workflows."""

PUBLISHED_LEGEND = (
    "Cells in which the whole interval is above what was published, holds it, or is below. "
    "Nearest: the cell whose gain is nearest to it."
)


def map_legend(spec: MapConfig) -> str:
    """Explain the gains of a map."""
    if spec.mean_over == "workflows":
        return GAIN_LEGEND
    return _GAIN_LEGEND.format(
        measure="a problem's mean latency / RoundRobin's", counted="problems"
    )


def gain_tables(panels: Sequence[Panel], spec: MapConfig) -> dict[str, TextTable]:
    """Make, by policy, a table with one row per cell of its maps."""
    tables = {}
    for policy in dict.fromkeys(panel.policy for panel in panels):
        own = [panel for panel in panels if panel.policy == policy]
        heads = ["regime", "devices", "n", *(f"over {panel.other} [95 % CI]" for panel in own)]
        rows = []
        for place in ((row, column) for row in spec.rows for column in spec.columns.values()):
            cells = [panel.gains.get(place) for panel in own]
            if any(cells):
                counts = sorted({cell.n for cell in cells if cell is not None})
                texts = [_with_name(cell, p.over) for cell, p in zip(cells, own, strict=True)]
                rows.append([*place, "–".join(map(str, counts)), *texts])
        tables[policy] = TextTable(heads, rows)
    return tables


def _with_name(gain: Gain | None, over: str) -> str:
    """Format a gain, followed by the other policy unless the heading names it."""
    if gain is None:
        return "–"
    text = gain.percent.text("+.1f", " %")
    return text if gain.against == over else f"{text} ({gain.against})"


def published_table(panels: Sequence[Panel], spec: MapConfig) -> TextTable | None:
    """Compare a paper's reported gains with the cells; None: the map has no such gains."""
    rows = []
    for panel in panels:
        marked = spec.marked(panel.over)
        known = {place: g for place, g in panel.gains.items() if not isnan(g.percent.value)}
        if marked is None or not known:
            continue
        sides = [_side(gain, marked) for gain in known.values()]
        nearest = min(known, key=lambda place: abs(known[place].percent.value - marked))
        text = f"{', '.join(nearest)}: {known[nearest].percent.text('+.1f', ' %')}"
        counts = [str(sides.count(side)) for side in ("above", "holds", "below")]
        rows.append([panel.title, f"{marked:+.1f} %", str(len(known)), *counts, text])
    heads = ["gain of", "published", "cells", "above", "holds it", "below", "nearest"]
    return TextTable(heads, rows) if rows else None


def _side(gain: Gain, marked: float) -> str:
    value, low, high = gain.percent
    low, high = (value, value) if isnan(low) else (low, high)
    return "above" if low > marked else "below" if high < marked else "holds"


def kinds_table(gains: Mapping[str, Mapping[str, Gain]]) -> TextTable | None:
    """Make one row per policy: its gain over the strongest baseline of each kind."""
    kinds = [kind for kind in OVER if any(kind in row for row in gains.values())]
    if not kinds:
        return None
    rows = [
        [
            policy,
            str(max(gain.n for gain in row.values())),
            *(_with_name(row.get(kind), kind) for kind in kinds),
        ]
        for policy, row in gains.items()
    ]
    heads = ["policy", "n", *(f"over {OVER[kind]} [95 % CI]" for kind in kinds)]
    return TextTable(heads, rows)
