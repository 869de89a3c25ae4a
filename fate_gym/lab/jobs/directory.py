"""The directory of a job: names of its files, and how far the job got."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from fate_gym.errors import InputError, printable
from fate_gym.files import write_text
from fate_gym.lab.errors import unwritable
from fate_gym.lab.files import read_text

RESULT = "result.json"
FAILED = "FAILED"
WORKFLOWS = "workflows.parquet"
DECISIONS = "decisions.parquet"
SHARDS = "shards.parquet"
CONFIG = "config.yaml"
CHROME_TRACE = "trace.json"
EXPLAINED = "explained.json"


def prepare_directory(directory: Path) -> None:
    """Create a writable run directory, and remove what an earlier attempt left.

    Raises:
        InputError: the directory cannot be created or written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
        (directory / FAILED).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(directory, error) from None


def mark_failed(directory: Path, text: str) -> None:
    """Write the failure marker; the last line of ``text`` says what went wrong."""
    # A full disk may have no room for the marker either; the error itself is raised anyway.
    with suppress(OSError):
        write_text(directory / FAILED, text.rstrip() + "\n")


def read_failure(directory: Path) -> str | None:
    """Read in one line why a job failed; None: there is no marker."""
    marker = directory / FAILED
    if not marker.exists():
        return None
    try:
        return printable(last_line(read_text(marker)))
    except InputError as error:
        return f"the reason is lost: {error.fault}"


def failures_since(root: Path, time: float) -> Iterator[tuple[str, str, Path]]:
    """Yield jobs that failed after a time: ``suite/policy/s<seed>-<hash>``, reason, marker path."""
    for marker in sorted(root.glob(f"*/*/s*-*/{FAILED}")):
        if marker.stat().st_mtime >= time:
            where = marker.parent.relative_to(root).as_posix()
            yield where, read_failure(marker.parent) or "", marker


def last_line(text: str) -> str:
    """Return the last non-blank line, e.g. the message of a traceback."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def read_config(directory: Path, *, known: str | None = None) -> dict[str, Any]:
    """Read a finished job's configuration, with ``made_with``; ``known``: the file's checksum.

    Raises:
        InputError: the configuration cannot be read.
    """
    path = directory / CONFIG
    try:
        # libyaml reads a configuration twenty times faster, and reports have thousands of them.
        values = yaml.load(read_text(path, known=known), Loader=yaml.CSafeLoader)
    # Invalid dates raise ValueError; unlimited nesting raises RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError("not YAML, or too deep", source=path) from None
    if not isinstance(values, dict):
        raise InputError("not a configuration", source=path)
    return values
