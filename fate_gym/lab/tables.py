"""Numbers with intervals, and tables of them for terminals and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import NamedTuple

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from fate_gym.errors import printable

_WIDEST = 10_000
"""Characters of a line, more than any table takes."""


class Estimate(NamedTuple):
    """A value with its 95 % confidence interval; NaN for what is not known."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def text(self, form: str = ".3f", unit: str = "") -> str:
        """``0.500 [0.400, 0.600]``; without an interval the value, without a value a dash."""
        if isnan(self.low):
            return number(self.value, form, unit)
        return f"{self.value:{form}}{unit} [{self.low:{form}}, {self.high:{form}}]"

    def columns(self, name: str) -> dict[str, float]:
        """The three numbers as columns of a table."""
        return {name: self.value, f"{name}_lo": self.low, f"{name}_hi": self.high}


def number(value: float, form: str, unit: str = "") -> str:
    """A number with its unit, or a dash where there is none."""
    return "–" if isnan(value) else f"{value:{form}}{unit}"


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> list[str]:
    """The lines of a Markdown table; the first ``left`` columns are aligned to the left."""
    ruler = f"{'|---' * left}{'|--:' * (len(heads) - left)}|"
    return [_line(heads), ruler, *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


_MARKDOWN = {"&": "&amp;", "<": "&lt;", "|": "\\|", "](": "]\\(", "][": "]\\["}


def markdown_text(text: str) -> str:
    """A text, maybe with bold parts, as one line of Markdown without tags, links and cells."""
    shown = printable(text)
    for one, escaped in _MARKDOWN.items():
        shown = shown.replace(one, escaped)
    return shown


def print_table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    left: int = 1,
    title: str | None = None,
    note: str | None = None,
) -> None:
    """Print a table; the first ``left`` columns are aligned to the left."""
    table = Table(
        box=None,
        pad_edge=False,
        title=title and Text(printable(title)),
        title_justify="left",
        caption=note and Text(printable(note)),
        caption_justify="left",
    )
    for place, head in enumerate(heads):
        table.add_column(head, justify="left" if place < left else "right", no_wrap=left == 1)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(width=_width(table)).print(table)


def _width(table: Table) -> int:
    """As wide as the terminal, but never so narrow that cells are cut; in files nothing is."""
    console = Console()
    needs = Measurement.get(console, console.options.update(max_width=_WIDEST), table)
    return max(console.width, needs.minimum) if console.is_terminal else needs.maximum
