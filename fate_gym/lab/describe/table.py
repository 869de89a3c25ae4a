"""The table of a suite: one row per family of workflows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fate_gym.lab.describe.facts import Facts, by_family
from fate_gym.problem import Problem


def print_description(title: str, problems: Sequence[Problem], facts: Sequence[Facts]) -> None:
    """A table with a row for each family, 80 columns wide: ranges, then medians."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("family", overflow="fold", min_width=12)
    for heading in (
        "runs", "stages", "depth", "width", "mod-\nels", "k to-\nkens", "GB\nmoved",
        "state", "load", "pre-\nfix", "move",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    families = by_family(facts)
    for family, rows in families.items():
        table.add_row(family, *_cells(rows))
    if len(families) > 1:
        table.add_section()
        table.add_row("all", *_cells(facts))
    Console().print(table)
    last = max(workflow.arrival for problem in problems for workflow in problem.workflows)
    stages = sum(row.stages for row in facts)
    print(f"{len(problems)} problems, {len(facts)} workflows, {stages} stages; ", end="")
    print(f"the last arrives at {last:.0f} s." if last else "all arrive at once.")
    print("Ranges, and medians of tokens, bytes and state intensity: loads, prefixes and")
    print("transfers (move) over execution.")


def _cells(rows: Sequence[Facts]) -> list[str]:
    def span(value: Callable[[Facts], int]) -> str:
        values = [value(row) for row in rows]
        low, high = min(values), max(values)
        return str(low) if low == high else f"{low}–{high}"

    def median(value: Callable[[Facts], float], digits: int) -> str:
        return f"{np.median([value(row) for row in rows]):.{digits}f}"

    return [
        str(len(rows)),
        span(lambda row: row.stages),
        span(lambda row: row.depth),
        span(lambda row: row.width),
        span(lambda row: len(row.models)),
        median(lambda row: row.tokens / 1e3, 0),
        median(lambda row: row.bytes / 1e9, 2),
        median(lambda row: row.state.intensity, 2),
        median(lambda row: row.state.share(row.state.load), 2),
        median(lambda row: row.state.share(row.state.prefix), 2),
        median(lambda row: row.state.share(row.state.transfer), 3),
    ]
