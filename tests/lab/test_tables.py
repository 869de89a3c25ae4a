"""Tables for terminals and for files."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from fate_gym.lab import tables

HEADS = ("policy", "latency / RoundRobin", "decision ms")
ROWS = [("a_policy_with_a_long_name", "0.431 [0.366, 0.510]", "1.75 / 11.55")]


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, width: int, left: int) -> str:
    """Return what is printed to a terminal of some width, or to a file."""
    file = io.StringIO()

    def console(**options: Any) -> Console:
        size = {"width": width, "height": 20} | options
        return Console(file=file, force_terminal=terminal, color_system=None, **size)

    monkeypatch.setattr(tables, "Console", console)
    tables.print_table(HEADS, ROWS, left=left)
    return file.getvalue()


@pytest.mark.parametrize("left", [1, 3])
@pytest.mark.parametrize("width", [20, 60])
def test_no_column_vanishes_and_no_cell_is_cut(
    monkeypatch: pytest.MonkeyPatch, width: int, left: int
) -> None:
    for terminal in (True, False):
        text = printed(monkeypatch, terminal=terminal, width=width, left=left)
        words = text.split()
        for cell in (*HEADS, *ROWS[0]):
            assert all(word in words for word in cell.split()), text
        assert "…" not in text


def test_a_wide_terminal_and_a_file_have_a_line_per_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for terminal, width in ((True, 200), (False, 20)):
        text = printed(monkeypatch, terminal=terminal, width=width, left=3)
        assert len(text.splitlines()) == 2
