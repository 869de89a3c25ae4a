"""The commands of a sweep and what its report shows, kept in ``sweep.yaml`` beside the results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fate_gym.lab.files import read_text, write_text

if TYPE_CHECKING:
    from fate_gym.lab.sweep.plan import Plan

SWEEP = "sweep.yaml"


def save_command(plan: Plan, arguments: Sequence[str]) -> None:
    """Keep the command of a sweep, and what its report shows, beside the results."""
    known = read_saved(plan.directory)
    commands = saved_commands(plan.directory)
    if list(arguments) not in commands:
        commands.append(list(arguments))
    report = plan.report if any(plan.report.values()) else known.get("report", {})
    plan.directory.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"commands": commands, "report": report}, sort_keys=False)
    write_text(plan.directory / SWEEP, text)


def read_saved(directory: Path) -> dict[str, Any]:
    """What `save_command` wrote; empty if nothing was, or if it cannot be read."""
    try:
        values = yaml.safe_load(read_text(directory / SWEEP))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def saved_commands(directory: Path) -> list[list[str]]:
    """The commands of a sweep, a list of words each."""
    commands = read_saved(directory).get("commands")
    if not isinstance(commands, list):
        return []
    return [list(map(str, words)) for words in commands if isinstance(words, list)]
