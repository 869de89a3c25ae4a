"""Arguments of the command line that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fate_gym.lab.cli.completion import complete_evaluate

PATH = click.Path(path_type=Path)
"""A file or directory; whether it is there, and readable, its reader says."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def overrides(**more: Any) -> Decorator:
    """Options of the configuration, such as ``suite=NAME``."""
    return click.argument(
        "overrides", nargs=-1, metavar="OPTION...", shell_complete=complete_evaluate, **more
    )


def as_json() -> Decorator:
    """The flag ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
