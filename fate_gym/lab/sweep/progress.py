"""Prints the jobs of a sweep as they end, with how many are left and for how long."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from fate_gym.lab.progress_bar import progress_bar
from fate_gym.lab.sweep.journal import Reader
from fate_gym.lab.sweep.plan import Plan

_POLL_SECONDS = 0.2


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
    def __init__(self, plan: Plan) -> None:
        self._total = plan.total
        self._reader = Reader(plan.directory)
        self._begun = time.monotonic()
        self._ended, self._ran = 0, 0
        self._bar = progress_bar(shown=sys.stderr.isatty())
        self._task = self._bar.add_task("", total=plan.total)

    def follow(self, over: threading.Event) -> None:
        with self._bar:
            while not over.wait(_POLL_SECONDS):
                self._show()
            self._show()

    def _show(self) -> None:
        for entry in self._reader.read():
            self._ended += 1
            self._ran += entry.state != "skipped"
            left = self._left()
            if self._bar.disable:
                place = f"{self._ended}/{self._total}" + (f", {left} left" if left else "")
                print(f"[{place}] {entry.line}", flush=True)
            else:
                self._bar.console.print(entry.line, markup=False, highlight=False)
                left = f"{left} left" if left else ""
                self._bar.update(self._task, completed=self._ended, description=left)

    def _left(self) -> str:
        """Time to the end, if the jobs to come take as long as those that ran; else nothing."""
        missing = self._total - self._ended
        if not self._ran or missing <= 0:
            return ""
        seconds = round((time.monotonic() - self._begun) / self._ran * missing)
        return str(timedelta(seconds=seconds)).removeprefix("0:")
