"""How far a sweep is: jobs say in ``jobs.jsonl`` how they ended, and its process prints it.

Jobs run in other processes, or on other machines. Each adds a line to that file, and the process
that started the sweep follows it. So progress looks the same whatever launches the jobs, and
nothing but the result directory is shared.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

from fate_gym.errors import printable
from fate_gym.lab.progress_bar import progress_bar
from fate_gym.lab.sweep.plan import Plan

JOURNAL = "jobs.jsonl"

_POLL_SECONDS = 0.2


def add_entry(directory: Path, state: Literal["done", "skipped", "failed"], line: str) -> None:
    """Say how a job ended, from whichever process it ran in."""
    entry = json.dumps({"time": round(time.time(), 3), "state": state, "line": line}) + "\n"
    try:
        # One write of a short line with O_APPEND: lines of several processes do not mix.
        descriptor = os.open(directory / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                entry = f"\n{entry}"  # after what a process left that was killed while it wrote
            os.write(descriptor, entry.encode())
        finally:
            os.close(descriptor)
    except OSError:
        # The journal only shows progress; a full disk is for the job itself to report.
        print(line, flush=True)


@contextmanager
def following(plan: Plan) -> Iterator[None]:
    """Print each job of a sweep as it ends."""
    over = threading.Event()
    follower = threading.Thread(target=_Follower(plan).follow, args=(over,), daemon=True)
    follower.start()
    try:
        yield
    finally:
        over.set()
        follower.join()


class _Follower:
    """Reads the journal as it grows, from its end at the start on."""

    def __init__(self, plan: Plan) -> None:
        self._path = plan.directory / JOURNAL
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._total = plan.total
        self._begun = time.monotonic()
        self._ended, self._ran = 0, 0
        self._bar = progress_bar(shown=sys.stderr.isatty())
        self._task = self._bar.add_task("", total=plan.total)

    def follow(self, over: threading.Event) -> None:
        with self._bar:
            while not over.wait(_POLL_SECONDS):
                self._read()
            self._read()

    def _read(self) -> None:
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for row in whole.splitlines():
            # A process that is killed, or a disk that is full, may leave a part of a line.
            try:
                entry = json.loads(row)
                state, said = entry["state"], str(entry["line"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            self._ended += 1
            self._ran += state != "skipped"
            self._show("\n".join(map(printable, said.splitlines())))

    def _show(self, line: str) -> None:
        left = self._left()
        if self._bar.disable:
            print(f"[{self._ended}/{self._total}{left and ', '}{left}] {line}", flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)
            self._bar.update(self._task, completed=self._ended, description=left)

    def _left(self) -> str:
        """Time to the end, if the jobs to come take as long as those that ran; else nothing."""
        missing = self._total - self._ended
        if not self._ran or missing <= 0:
            return ""
        seconds = round((time.monotonic() - self._begun) / self._ran * missing)
        return f"{timedelta(seconds=seconds)} left".removeprefix("0:")
