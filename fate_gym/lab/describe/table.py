"""The table of a suite: one row per family of workflows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fate_gym.lab.describe.facts import Facts, by_family
from fate_gym.problem import Problem


def print_description(
    title: str, origin: str, problems: Sequence[Problem], facts: Sequence[Facts]
) -> None:
    """Print a table with one row per family, 80 columns wide: ranges, then medians.

    Args:
        title: title above the table.
        origin: which parts of the workflows are measured and which are modelled.
        problems: problems of the suite.
        facts: facts of all workflows of the problems.
    """
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
    print(f"{origin[:1].upper()}{origin[1:]}.")
    flows = [workflow for problem in problems for workflow in problem.workflows]
    turns = sum(workflow.follows is not None for workflow in flows)
    last = max(workflow.arrival for workflow in flows if workflow.follows is None)
    sessions = {workflow.session for workflow in flows}
    of_sessions = "" if None in sessions else f" of {_count(len(sessions), 'session')}"
    of_all = f"{_count(sum(row.stages for row in facts), 'stage')};"
    print(f"{_count(len(problems), 'problem')}, {_count(len(flows), 'workflow')}", end="")
    print(f"{of_sessions}, {of_all}")
    print(f"{turns} follow others, " if turns else "", end="")
    print(f"the last arrives at {last:.0f} s." if last else "all arrive at once.")
    print("Ranges, and medians of tokens, bytes and state intensity: loads, prefixes and")
    print("transfers (move) over execution.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cells(rows: Sequence[Facts]) -> list[str]:
    ranges = (
        [row.stages for row in rows],
        [row.depth for row in rows],
        [row.width for row in rows],
        [len(row.models) for row in rows],
    )
    medians = (
        (0, [row.tokens / 1e3 for row in rows]),
        (2, [row.bytes / 1e9 for row in rows]),
        (2, [row.state.intensity for row in rows]),
        (2, [row.state.share(row.state.load) for row in rows]),
        (2, [row.state.share(row.state.prefix) for row in rows]),
        (3, [row.state.share(row.state.transfer) for row in rows]),
    )
    return [
        str(len(rows)),
        *(f"{min(v)}–{max(v)}" if min(v) < max(v) else str(v[0]) for v in ranges),
        *(f"{np.median(values):.{digits}f}" for digits, values in medians),
    ]
