"""The journal of a sweep, ``jobs.jsonl``: how each job ended, a line a job.

Jobs run in other processes, or on other machines. Each adds itself to the journal, and the process
that started the sweep follows that file. So progress looks the same whatever launches the jobs, and
nothing but the result directory is shared.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Literal, NamedTuple

JOURNAL = "jobs.jsonl"

State = Literal["done", "skipped", "failed"]


def add_entry(directory: Path, state: State, line: str) -> None:
    """Add a job to the journal of a sweep, from whichever process it ran in."""
    entry = json.dumps({"time": round(time.time(), 3), "state": state, "line": line}) + "\n"
    try:
        # One write of a short line with O_APPEND: lines of several processes do not mix.
        descriptor = os.open(directory / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, entry.encode())
        finally:
            os.close(descriptor)
    except OSError:
        # The journal only shows progress; a full disk is for the job itself to report.
        print(line, flush=True)


class Entry(NamedTuple):
    """How a job ended, and what there is to say of it."""

    state: State
    line: str


class Reader:
    """Reads what is added to the journal of a sweep from now on."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / JOURNAL
        self._offset = self._path.stat().st_size if self._path.exists() else 0

    def read(self) -> list[Entry]:
        """The entries that are new."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [Entry(one["state"], one["line"]) for one in map(json.loads, whole.splitlines())]
