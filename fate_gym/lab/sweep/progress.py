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
        state: whether it ran.
        line: what its sweep prints.
        kind: see `kind_of`.
        seconds: that it took.
    """

    state: Literal["done", "skipped", "failed"]
    line: str
    kind: str
    seconds: float = 0.0


def kind_of(words: Iterable[str]) -> str:
    """What a job shares with those that take about as long: all of its options but the seed."""
    return " ".join(sorted(word for word in words if not word.startswith("seed=")))


def add_entry(directory: Path, ended: Entry) -> None:
    """Say how a job ended, from whichever process it ran in."""
    line = ended.line
    entry = json.dumps({"time": round(time.time(), 3)} | asdict(ended)) + "\n"
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
            # A process that is killed, or a disk that is full, may leave a part of a line.
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
            with suppress(BrokenPipeError):  # nobody reads on; the jobs go on all the same
                print(f"[{self._ended}/{self._total}{left and ', '}{left}] {line}", flush=True)
        else:
            self._bar.console.print(line, markup=False, highlight=False)
            self._bar.update(self._task, completed=self._ended, description=left)


class TimeLeft:
    """The time to the end of a sweep, from what jobs of each kind took.

    Policies differ by a factor of a thousand: the mean over all jobs that have ended says nothing
    of a policy that comes last. As long as some kind has not been seen, its time is left out and
    the text says so.

    Args:
        plan: the sweep.
        clock: seconds.
    """

    def __init__(self, plan: Plan, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._begun = clock, clock()
        self._missing = Counter(map(kind_of, plan.jobs or []))
        if plan.jobs is None:  # a search: nobody knows what it will try
            self._missing[""] = plan.total
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def ended(self, kind: str, seconds: float | None) -> None:
        """A job of a kind has ended after some seconds; None: it had been done before."""
        kind = kind if kind in self._missing else ""
        self._missing[kind] -= 1
        if seconds is not None:
            self._seconds[kind].append(seconds)

    def text(self) -> str:
        """E.g. ``00:42 left``; nothing before anything ran, and at the end."""
        missing = +self._missing
        busy = sum(map(sum, self._seconds.values()))
        if not missing or not busy:
            return ""
        known = missing.keys() & self._seconds.keys()
        if not known:
            return ""
        work = sum(missing[kind] * fmean(self._seconds[kind]) for kind in known)
        # How many jobs run at a time shows in what has been done so far.
        at_once = max(1.0, busy / max(self._clock() - self._begun, 1e-9))
        shown = f"{timedelta(seconds=round(work / at_once))} left".removeprefix("0:")
        return shown if known == missing.keys() else f"more than {shown}"
