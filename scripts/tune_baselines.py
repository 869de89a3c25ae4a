"""Tunes the free parameters of the baselines on a training split, all with the same budget.

    python scripts/tune_baselines.py [--trials 16] [--suite real_dag_train] [POLICY ...]

Each policy gets its own search with the same number of trials (Optuna's TPE, the same seed; needs
the extra `tune`) over the parameters that its source leaves open; published parameters are not
searched. Prints each search's command, its best value and parameters. Interrupted searches resume
where they stopped. Nothing is written to conf/policy: update it by hand.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

SPACES: dict[str, list[str]] = {
    "autellix": ["quantum=tag(log,interval(0.5,64))"],
    "halo": ["mu=interval(0,1)", "epochs=range(1,5)"],
    "mooncake": ["threshold=interval(1,4)"],
    "sglang": ["balance_abs=range(1,17)"],
    "murakkab": ["epoch=tag(log,interval(2,120))"],
    "nalar": ["limit=range(1,9)", "period=tag(log,interval(1,60))"],
    "pythia": ["bonus=interval(0,2)"],
    "eft": ["lazy=choice(true,false)"],
    "min_min": ["lazy=choice(true,false)"],
    "max_min": ["lazy=choice(true,false)"],
    "sufferage": ["lazy=choice(true,false)"],
}
"""Search spaces. The boosted form of a policy has the same space and its own search."""

BOOSTED = ("autellix", "halo", "mooncake", "murakkab", "nalar", "pythia", "min_min", "max_min",
           "sufferage")  # fmt: skip


def command(policy: str, suite: str, trials: int, runs: str) -> list[str]:
    """Return the command of one search."""
    space = [f"policy.params.{part}" for part in SPACES[policy.removesuffix("_boosted")]]
    return [
        "evaluate",
        "-m",
        "sweep=optuna",
        f"suite={suite}",
        f"policy={policy}",
        f"name=tune_{policy}",
        f"hydra.sweeper.n_trials={trials}",
        "tracking=none",
        f"paths.runs={runs}",
        *space,
    ]


def main() -> int:
    """Run the searches one after the other; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [*SPACES, *(f"{name}_boosted" for name in BOOSTED)]
    parser.add_argument("policy", nargs="*", help="default: all that have something to search")
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--suite", default="real_dag_train")
    parser.add_argument("--runs", default="runs/tune")
    options = parser.parse_args()
    unknown = set(options.policy) - set(known)
    if unknown:
        parser.error(f"nothing to search for {', '.join(sorted(unknown))}")
    for policy in options.policy or known:
        words = command(policy, options.suite, options.trials, options.runs)
        print(shlex.join(["fate-gym", *words]), flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "fate_gym.lab.cli", *words],
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            return done.returncode
        found = Path(ROOT, options.runs, f"tune_{policy}", "optimization_results.yaml")
        best = yaml.safe_load(found.read_text(encoding="utf-8"))
        values = {
            name.removeprefix("policy.params."): value
            for name, value in best["best_params"].items()
        }
        print(f"  {policy}: {best['best_value']:.4f} with {values}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
