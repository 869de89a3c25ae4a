"""A policy that waits for a signal, so that a test can kill the process that runs it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from policies import DecisionView
from policies.heuristics import RoundRobin


class Waiting(RoundRobin):
    """Round robin that, once started, writes a file and waits for the file ``go``."""

    name = "waiting"

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def reset(self, view: DecisionView, seed: int) -> None:
        (self._folder / f"process-{os.getpid()}").touch()
        while not (self._folder / "go").exists():
            time.sleep(0.05)
        super().reset(view, seed)
