"""The commands, jobs and report settings of a sweep, stored in its ``sweep.yaml``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fate_gym.files import write_text
from fate_gym.lab.files import read_text

if TYPE_CHECKING:
    from fate_gym.lab.sweep.plan import Plan

SWEEP = "sweep.yaml"
_MOST = 10**6


def save_command(plan: Plan, arguments: Sequence[str]) -> None:
    """Store a sweep's command, jobs and report settings beside its results."""
    known = read_saved(plan.directory)
    commands = saved_commands(plan.directory)
    if list(arguments) not in commands:
        commands.append(list(arguments))
    report = plan.report if any(plan.report.values()) else known.get("report", {})
    plan.directory.mkdir(parents=True, exist_ok=True)
    cells = saved_cells(plan.directory)
    planned = {
        cell: max(cells.get(cell, 0), plan.cells.get(cell, 0)) for cell in cells | plan.cells
    }
    content = {"commands": commands, "report": report, "jobs": planned}
    text = yaml.safe_dump(content, sort_keys=False)
    write_text(plan.directory / SWEEP, text)


def read_saved(directory: Path) -> dict[str, Any]:
    """Read what `save_command` wrote; empty if there is no file or it cannot be read."""
    try:
        values = yaml.safe_load(read_text(directory / SWEEP))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def saved_commands(directory: Path) -> list[list[str]]:
    """Return the commands of a sweep, each a list of words."""
    commands = read_saved(directory).get("commands")
    if not isinstance(commands, list):
        return []
    return [list(map(str, words)) for words in commands if isinstance(words, list)]


def saved_cells(directory: Path) -> dict[str, int]:
    """Return the number of planned jobs of each ``suite/policy/s<seed>`` of a sweep."""
    cells = read_saved(directory).get("jobs")
    if not isinstance(cells, dict):
        return {}
    return {str(cell): n for cell, n in cells.items() if type(n) is int and 0 < n < _MOST}
