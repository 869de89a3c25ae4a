"""The directory of a job: what its files are called, and how far the job got."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import yaml

from fate_gym.lab.errors import unwritable
from fate_gym.lab.files import write_text

RESULT = "result.json"
FAILED = "FAILED"
WORKFLOWS = "workflows.parquet"
DECISIONS = "decisions.parquet"
SHARDS = "shards.parquet"
CONFIG = "config.yaml"
CHROME_TRACE = "trace.json"


def prepare_directory(directory: Path) -> None:
    """Make a run directory that can be written to, without the failure of an earlier try.

    Raises:
        InputError: the directory cannot be made or written.
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
    """Leave a marker with the reason: its last line says what went wrong."""
    write_text(directory / FAILED, text.rstrip() + "\n")


def job_state(directory: Path) -> Literal["done", "failed", "unfinished"] | None:
    """How far the job of a run directory got; None if it was never started."""
    if (directory / RESULT).exists():
        return "done"
    if (directory / FAILED).exists():
        return "failed"
    return "unfinished" if directory.exists() else None


def failures_since(root: Path, time: float) -> Iterator[tuple[str, str, Path]]:
    """The jobs that failed after a time: ``suite/policy/s<seed>-<hash>``, reason, marker."""
    for marker in sorted(root.glob(f"*/*/s*-*/{FAILED}")):
        if marker.stat().st_mtime >= time:
            where = marker.parent.relative_to(root).as_posix()
            yield where, last_line(marker.read_text(encoding="utf-8")), marker


def last_line(text: str) -> str:
    """The last line that is not blank: what a traceback ends with."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration of a finished job, with ``made_with``."""
    values = yaml.safe_load((directory / CONFIG).read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values
