"""Sweeps, reports and trainings that are killed repeatedly at random moments before they finish.

``python -m tests.fuzz.kills [TIMES [KIND...]]`` kills each kind so many times while it runs. In the
end every number that does not depend on the clock equals that of an uninterrupted run, bit for bit.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pandas as pd

from fate_gym.lab.training.result import RESULT
from policies.learned.checkpoint import load_checkpoint
from tests.lab.conftest import ROOT, command, environment

GRID = (
    "-m",
    "suite=smoke",
    "policy=round_robin,heft,eft",
    "seed=0,1",
    "tracking=none",
    "name=grid",
)
TRAINING = (
    "curriculum=demo", "agent.network.hidden=8", "validation.every=512", "tracking=none",
    "name=small",
)  # fmt: skip
IMITATION = ("agent.imitation.states=240", "agent.imitation.epochs=2")
PPO = ("agent.learning.lanes=8", "agent.learning.rollout=64", "agent.learning.steps=1024")
AGENTS = {
    "bc_ppo": (*IMITATION, "agent.imitation.rounds=2", *PPO),
    "expert": (*IMITATION, "agent.iteration.states=60", "agent.iteration.rounds=2"),
    "dqn": (
        "agent.learning.lanes=4", "agent.learning.learning_starts=200",
        "agent.learning.gradient_steps=1", "agent.learning.steps=1024",
    ),
}  # fmt: skip
"""One agent for every way of learning, as small as possible."""
EACH = 5
"""Number of attempts to kill one run before it may finish."""
LONG, SHORT = 20.0, 8.0
"""Most seconds before a kill of a sweep or training run, and of a report.

What they take on a slow machine.
"""


def kill(arguments: list[str], seconds: float) -> bool:
    """Run a command and kill it with its workers after a time; return if it was still running."""
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


def end(arguments: list[str], rng: random.Random, tries: int, longest: float = LONG) -> int:
    """Kill a command so many times, then let it end; how many of the kills found it running.

    Those that come later than an unbroken run takes may find that all is done.
    """
    found = sum(kill(arguments, rng.uniform(0.0, longest)) for _ in range(tries))
    done = subprocess.run(
        arguments, cwd=ROOT, env=environment(), check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
    return found


def leftovers(root: Path) -> list[Path]:
    """Return the temporary files that kills have left."""
    return [path for path in root.rglob(".*") if ".tmp." in path.name]


def summary(root: Path) -> str:
    """Return the summary as text, without decision times, which differ between runs."""
    table = pd.read_csv(root / "summary.csv", dtype=str)
    return table[[name for name in map(str, table) if not name.startswith("decision")]].to_csv()


def learned(root: Path) -> str:
    """Return a training's curve, result and weights as text, without times."""
    (directory,) = (path.parent for path in root.rglob("curve.parquet"))
    curve = pd.read_parquet(directory / "curve.parquet").drop(columns="seconds")
    result = json.loads((directory / RESULT).read_text())
    result = {k: v for k, v in result.items() if k not in ("seconds", "git_sha")}
    weights = load_checkpoint(directory / "best").weights
    arrays = {name: sha256(weights[name].tobytes()).hexdigest()[:16] for name in sorted(weights)}
    return "\n".join([curve.to_csv(), json.dumps(result, sort_keys=True), json.dumps(arrays)])


def evaluate(runs: Path, rng: random.Random, tries: int) -> tuple[str, int]:
    """Kill a sweep; return its summary and the number of kills."""
    found = end(command("evaluate.py", *GRID, f"paths.runs={runs}"), rng, tries)
    end(command("report.py", runs / "grid"), rng, 0)
    return summary(runs / "grid"), found


def report(runs: Path, rng: random.Random, tries: int) -> tuple[str, int]:
    """Kill the report of a sweep; return its summary and the number of kills."""
    end(command("evaluate.py", *GRID, f"paths.runs={runs}"), rng, 0)
    found = end(command("report.py", runs / "grid"), rng, tries, SHORT)
    return summary(runs / "grid"), found


def train(agent: str, runs: Path, rng: random.Random, tries: int) -> tuple[str, int]:
    """Kill a training; return what it learned and the number of kills."""
    chosen = (f"agent={agent}", *TRAINING, *AGENTS[agent], f"paths.runs={runs}")
    found = end(command("train.py", *chosen), rng, tries)
    return learned(runs), found


KINDS: dict[str, Callable[[Path, random.Random, int], tuple[str, int]]] = {
    "sweep": evaluate,
    "report": report,
    **{f"training {agent}": partial(train, agent) for agent in AGENTS},
}
"""By kind: a function that returns the clock-independent numbers and the number of kills."""


def check(name: str, times: int) -> None:
    """Kill a kind so many times, and compare with an uninterrupted run."""
    began, found, number = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory() as place:
        whole, _ = KINDS[name](Path(place) / "whole", random.Random(0), 0)
        while found < times:
            runs = Path(place) / str(number)
            ended, hit = KINDS[name](runs, random.Random(number), EACH)
            assert ended == whole, f"{name}: run {number} ended differently\n{ended}\n---\n{whole}"
            assert not leftovers(runs), f"left behind: {leftovers(runs)}"
            shutil.rmtree(runs)
            found, number = found + hit, number + 1
            print(f"{name}: {found} kills in {number} runs: the unbroken result", flush=True)
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    """Check the kinds named on the command line, or all."""
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for name in sys.argv[2:] or KINDS:
        check(name, -(-times // len(AGENTS)) if name.startswith("training") else times)
    return 0


if __name__ == "__main__":
    sys.exit(main())
