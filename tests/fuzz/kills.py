"""Sweeps and reports that are killed at random moments, again and again, and then end.

``python -m tests.fuzz.kills [TIMES]`` kills a sweep and its report so many times; afterwards every
number that does not depend on the clock is the unbroken sweep's, bit for bit.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from tests.lab.conftest import ROOT, command, environment

GRID = ("-m", "suite=smoke", "policy=round_robin,heft,eft", "seed=0,1", "tracking=none")


def kill(arguments: list[str], seconds: float) -> bool:
    """Run a command and kill it, with its workers, after a time; whether it was still running."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, env=environment(), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def summary(root: Path) -> pd.DataFrame:
    """The summary as text, without times of decisions, which no two runs share."""
    table = pd.read_csv(root / "summary.csv", dtype=str)
    return table.drop(columns=[name for name in table if name.startswith("decision")])


def run(runs: Path, kills: int, seed: int, longest: float) -> pd.DataFrame:
    """A sweep that is killed so many times before it ends, and then its report likewise."""
    rng = random.Random(seed)
    sweep = command("evaluate.py", *GRID, "name=grid", f"paths.runs={runs}")
    report = command("report.py", runs / "grid")
    for arguments in (sweep, report):
        for _ in range(kills):
            kill(arguments, rng.uniform(0.0, longest))
        subprocess.run(arguments, cwd=ROOT, env=environment(), check=True, capture_output=True)
    left = [path for path in (runs / "grid").glob("*/*/*/.*") if ".tmp." in path.name]
    assert not left, f"left behind: {left}"
    return summary(runs / "grid")


def main() -> int:
    """Kill, end, compare, and say how it went."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        whole = run(Path(place) / "whole", 0, 0, 0.0)
        for number in range(-(-times // 5)):
            found = run(Path(place) / str(number), 5, number, 9.0)
            pd.testing.assert_frame_equal(found, whole)
            print(f"{5 * (number + 1)} kills of a sweep, as many of its report: the same summary",
                  flush=True)  # fmt: skip
    print(f"{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
