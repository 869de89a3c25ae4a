"""Command-line arguments that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fate_gym.lab.cli.completion import complete_evaluate

PATH = click.Path(path_type=Path)
"""A file or directory; whether it exists and is readable is left to its reader."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def overrides(**more: Any) -> Decorator:
    """Add the argument for configuration options such as ``suite=NAME``."""
    return click.argument(
        "overrides", nargs=-1, metavar="OPTION...", shell_complete=complete_evaluate, **more
    )


def as_json() -> Decorator:
    """Add the flag ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
