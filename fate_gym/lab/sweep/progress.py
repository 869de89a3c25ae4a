"""Progress of a sweep: jobs record in ``jobs.jsonl`` how they ended; the sweep prints it.

Jobs run in other processes, or on other machines. Each appends a line to that file, and the process
that started the sweep follows it. So progress looks the same whatever launches the jobs, and only
the result directory is shared.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Literal

from fate_gym.errors import printable
from fate_gym.lab.progress_bar import progress_bar
from fate_gym.lab.sweep.plan import Plan

JOURNAL = "jobs.jsonl"

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Entry:
    """How a job ended.

    Attributes:
        state: how the job ended.
        line: line that the sweep prints.
        kind: kind of the job; see `kind_of`.
        seconds: seconds that it took.
    """

    state: Literal["done", "skipped", "failed"]
    line: str
    kind: str
    seconds: float = 0.0


def kind_of(words: Iterable[str]) -> str:
    """Return a job's kind, all options but the seed: jobs of a kind take about equally long."""
    return " ".join(sorted(word for word in words if not word.startswith("seed=")))


def add_entry(directory: Path, ended: Entry) -> None:
    """Record how a job ended; may be called from any process."""
    line = ended.line
    entry = json.dumps({"time": round(time.time(), 3)} | asdict(ended)) + "\n"
    try:
        # A single short write with O_APPEND: lines of different processes do not mix.
        descriptor = os.open(directory / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                entry = f"\n{entry}"  # after a partial line of a process killed while writing
            os.write(descriptor, entry.encode())
        finally:
            os.close(descriptor)
    except OSError:
        # The journal only shows progress; the job itself reports a full disk.
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
    """Reads lines added to the journal after the start, and prints them."""

    def __init__(self, plan: Plan) -> None:
        self._path = plan.directory / JOURNAL
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._total = plan.total
        self._time = TimeLeft(plan)
        self._ended = 0
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
            # A killed process or a full disk may leave part of a line.
            try:
                entry = json.loads(row)
                state, said = entry["state"], str(entry["line"])
                kind, seconds = str(entry["kind"]), float(entry["seconds"])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            self._ended += 1
            self._time.ended(kind, None if state == "skipped" else seconds)
            self._show("\n".join(map(printable, said.splitlines())))

    def _show(self, line: str) -> None:
        left = self._time.text()
        if self._bar.disable:
            with suppress(BrokenPipeError):  # nobody reads any more, but the jobs go on
                print(f"[{self._ended}/{self._total}{left and ', '}{left}] {line}", flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)
            self._bar.update(self._task, completed=self._ended, description=left)


class TimeLeft:
    """Estimates the remaining time of a sweep from what jobs of each kind took.

    Policies differ by a factor of a thousand, so the mean over all finished jobs says nothing about
    a policy that comes last. Kinds of which no job has finished are left out, and the text says
    "more than".

    Args:
        plan: the sweep.
        clock: returns the current time in seconds.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._begun = clock, clock()
        self._missing = Counter(map(kind_of, plan.jobs or []))
        if plan.jobs is None:  # a search: its jobs are not known in advance
            self._missing[""] = plan.total
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def ended(self, kind: str, seconds: float | None) -> None:
        """Count a job of a kind that ended after some seconds; None: it had been done before."""
        kind = kind if kind in self._missing else ""
        self._missing[kind] -= 1
        if seconds is not None:
            self._seconds[kind].append(seconds)

    def text(self) -> str:
        """Format as ``00:42 left``; empty before any job has run, and at the end."""
        missing = +self._missing
        busy = sum(map(sum, self._seconds.values()))
        if not missing or not busy:
            return ""
        known = missing.keys() & self._seconds.keys()
        if not known:
            return ""
        work = sum(missing[kind] * fmean(self._seconds[kind]) for kind in known)
        # The number of parallel jobs follows from the work done so far.
        at_once = max(1.0, busy / max(self._clock() - self._begun, 1e-9))
        shown = f"{timedelta(seconds=round(work / at_once))} left".removeprefix("0:")
        return shown if known == missing.keys() else f"more than {shown}"
