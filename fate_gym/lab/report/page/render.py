"""Renders ``report.html``.

The numbers are computed in Python and embedded as JSON. ``report.js`` draws them as SVG;
``viewer.js`` draws the schedules, which are compressed. Intervals and tests of whole suites come
from Python; the page itself only averages selections by family.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from importlib.resources import files
from math import isfinite
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fate_gym.lab.report import page
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.origin import commands, origin_lines, what
from fate_gym.lab.report.page.data import page_data
from fate_gym.lab.report.page.schedules import schedules
from fate_gym.lab.report.regime_tables import gain_tables, map_legend
from fate_gym.lab.report.sessions import SESSION_LEGEND, session_table
from fate_gym.lab.report.streams import STREAM_LEGEND, stream_table
from fate_gym.lab.report.summary_table import legend

LIBRARY = (
    "dispatch",
    "selection",
    "timer",
    "ease",
    "color",
    "interpolate",
    "drag",
    "transition",
    "zoom",
)
"""The parts of D3 included in the page, each after its dependencies (``vendor/``)."""


def render_page(report: Report) -> str:
    """Render the report as one HTML file."""
    environment = Environment(
        loader=PackageLoader(page.__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = _json(page_data(report))
    return environment.get_template("report.html.j2").render(
        title=report.title,
        subtitle=what(report),
        rows=report.summary,
        legend=legend(report).replace("`", ""),
        commands=commands(report),
        gaps=report.sweep.gaps(),
        parts=_parts(report),
        origin=origin_lines(report.sweep),
        css=_text("report.css") + _text("viewer.css"),
        library="\n".join(_text(f"vendor/d3-{name}.min.js") for name in LIBRARY),
        script=_text("viewer.js") + _text("report.js"),
        data=embeddable(data),
        schedules=_packed(schedules(report)),
    )


def _text(name: str) -> str:
    """Read a file of the page."""
    return (files(page) / name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(_rounded(value), separators=(",", ":"), allow_nan=False)


def _packed(value: Any) -> str:
    """Encode values as JSON, gzip and base64; the output is deterministic."""
    return b64encode(gzip.compress(_json(value).encode(), 9, mtime=0)).decode()


def _parts(report: Report) -> list[dict[str, Any]]:
    """Make the sections with a table per suite: anchor, heading, legend, and tables by suite."""
    kinds = (
        ("latency", "Latency in seconds", STREAM_LEGEND, stream_table),
        ("sessions", "Sessions", SESSION_LEGEND, session_table),
    )
    rows = report.sweep.rows
    parts = []
    if report.spec.map is not None and report.panels:
        spec = report.spec.map
        maps = {name: table._asdict() for name, table in gain_tables(report.panels, spec).items()}
        legend = map_legend(spec)
        parts.append({"anchor": "map", "heading": "Regimes", "legend": legend, "tables": maps})
    for anchor, heading, text, table in kinds:
        of_suite = {
            suite: table(rows[rows["suite"] == suite], [row.policy for row in summary])
            for suite, summary in report.suites.items()
        }
        found = {suite: one._asdict() for suite, one in of_suite.items() if one is not None}
        if found:
            parts.append({"anchor": anchor, "heading": heading, "legend": text, "tables": found})
    return parts


def embeddable(data: str) -> str:
    """Escape JSON text so that a script element can hold it: the same values, but no ``<``.

    Not only the end tag, but also ``<!--<script>`` affects where a script element ends; U+2028 and
    U+2029 are line ends in a script.
    """
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def _rounded(value: Any) -> Any:
    """Round floats to five significant digits, None if not finite: this halves the size."""
    if isinstance(value, float):
        return _short(value) if isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(inner) for inner in value]
    return value


def _short(value: float) -> float | int:
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() and abs(short) < 1e9 else short
