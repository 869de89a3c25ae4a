"""Numbers with intervals, and tables of them for terminals and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fate_gym.errors import printable

_GAP = 2
"""Characters between two columns of a table on a terminal."""


class Estimate(NamedTuple):
    """A value with its 95 % confidence interval; NaN where unknown."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    def text(self, form: str = ".3f", unit: str = "") -> str:
        """Format as ``0.500 [0.400, 0.600]``; the value if no interval, a dash if no value."""
        if isnan(self.low):
            return number(self.value, form, unit)
        return f"{self.value:{form}}{unit} [{self.low:{form}}, {self.high:{form}}]"

    def columns(self, name: str) -> dict[str, float]:
        """Return the three numbers as table columns."""
        return {name: self.value, f"{name}_lo": self.low, f"{name}_hi": self.high}


def number(value: float, form: str, unit: str = "") -> str:
    """Format a number with its unit, or a dash if it is NaN."""
    return "–" if isnan(value) else f"{value:{form}}{unit}"


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> list[str]:
    """Return the lines of a Markdown table whose first ``left`` columns are left-aligned."""
    ruler = f"{'|---' * left}{'|--:' * (len(heads) - left)}|"
    return [_line(heads), ruler, *(_line(row) for row in rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(markdown_text, cells))} |"


_MARKDOWN = {"&": "&amp;", "<": "&lt;", "|": "\\|", "](": "]\\(", "][": "]\\["}


def markdown_text(text: str) -> str:
    """Escape a text to one line of Markdown without tags, links and cells; bold is kept."""
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
    """Print a table whose first ``left`` columns are left-aligned."""
    table = Table(
        box=None,
        pad_edge=False,
        title=title and Text(printable(title)),
        title_justify="left",
        caption=note and Text(printable(note)),
        caption_justify="left",
    )
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = _widths(heads, shown, wraps=left > 1)
    for place, (head, width) in enumerate(zip(heads, widths, strict=True)):
        justify: Literal["left", "right"] = "left" if place < left else "right"
        table.add_column(head, justify=justify, width=width)
    for row in shown:
        table.add_row(*map(Text, row))
    least = max(map(cell_len, [title or "", note or ""]))
    Console(width=max(least, sum(widths) + _GAP * (len(widths) - 1))).print(table)


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]], *, wraps: bool) -> list[int]:
    """Compute the width of each column: its longest cell, or less if the terminal is too narrow.

    Never less than its longest word (longest cell unless it ``wraps``): rich would cut cells and
    leave out whole columns. Lines in a file may have any length.
    """
    columns = list(zip(heads, *rows, strict=True))
    # Heads may have several lines.
    natural = [max(map(cell_len, [*head.split("\n"), *cells])) for head, *cells in columns]
    console = Console()
    room = console.width - _GAP * (len(columns) - 1)
    if not console.is_terminal or sum(natural) <= room:
        return natural
    words = [
        [*head.split(), *(word for cell in cells for word in (cell.split() if wraps else [cell]))]
        for head, *cells in columns
    ]
    widths = [max(map(cell_len, ["", *column])) for column in words]
    spare = max(0, room - sum(widths))
    for place, wanted in enumerate(natural):
        given = min(spare, wanted - widths[place])
        widths[place] += given
        spare -= given
    return widths
