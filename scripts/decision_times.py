"""Measures planners' decision times as problems grow: a table and a figure.

    python scripts/decision_times.py [--policies fate fate_rollout] [--figure decision_times.png]

CPU milliseconds of every non-trivial decision of a whole run. Single workflows are those of suite
``scale``, with 100 to 10,000 stages on 12 to 256 devices; streams are those of ``agentic_train``
with increasing numbers of workflows. Takes some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import thread_time

import numpy as np

from fate_gym.lab.report.figures.decisions import DecisionTimes, decision_figure
from fate_gym.lab.report.figures.style import save_figure
from fate_gym.problem import Problem
from fate_gym.sim import Decision, DecisionView, Policy, Simulator, compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy

SIZES = (100, 300, 1_000, 3_000, 10_000)
CLUSTERS = ("mixed_12", "mixed_32", "mixed_256")
RUNS = (3, 8, 31)
"""Runs of each agent in a stream; 31 are a thousand workflows."""
NOTHING = 0.02
"""Milliseconds below which a decision counts as trivial."""


class Clocked:
    """A policy wrapper that times decisions, in CPU milliseconds."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self.name = policy, policy.name
        self.milliseconds: list[float] = []

    def reset(self, view: DecisionView, seed: int) -> None:
        self._policy.reset(view, seed)

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        start = thread_time()
        decisions = self._policy.decide(view)
        self.milliseconds.append((thread_time() - start) * 1e3)
        return decisions


def problems() -> Iterator[tuple[str, int, Problem]]:
    """Yield what is played: the line it belongs to, the number of stages, and the problem."""
    sizes = load_suite("scale").model_copy(update={"sizes": SIZES})
    for cluster in CLUSTERS:
        devices = load_cluster(cluster)
        for problem in build_suite(sizes, devices, 0):
            title = f"one workflow, {len(devices.devices)} devices"
            yield title, problem.stage_count, problem
    for runs in RUNS:
        stream = load_suite("agentic_train").model_copy(update={"runs": runs})
        devices = load_cluster(stream.cluster)
        (problem,) = build_suite(stream, devices, 0)
        yield f"stream, {len(devices.devices)} devices", problem.stage_count, problem


def decision_times(problem: Problem, policy: str) -> DecisionTimes:
    """Measure the decision times of a run, and its makespan ratio."""
    compiled = compile_problem(problem)
    base = Simulator(compiled).run(make_policy("heft_boosted")).makespan
    clocked = Clocked(make_policy(policy))
    makespan = Simulator(compiled).run(clocked).makespan
    taken = np.array([ms for ms in clocked.milliseconds if ms > NOTHING])
    p50, p99 = np.percentile(taken, [50, 99])
    return DecisionTimes(float(p50), float(p99), float(taken.sum() / 1e3), makespan / base)


def main() -> None:
    """Print the table, and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policies", nargs="+", default=["fate", "fate_rollout"])
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    print("| problem | stages | policy | P50, ms | P99, ms | all, s | makespan / heft_boosted |")
    print("|---|--:|---|--:|--:|--:|--:|")
    lines: dict[str, dict[str, dict[int, DecisionTimes]]] = {}
    # Compiled code and solvers are loaded by the first decisions.
    (small,) = build_suite(
        load_suite("scale").model_copy(update={"sizes": (10,)}), load_cluster("mixed_12"), 0
    )
    for policy in options.policies:
        decision_times(small, policy)
    for title, stages, problem in problems():
        for policy in options.policies:
            times = decision_times(problem, policy)
            lines.setdefault(policy, {}).setdefault(title, {})[stages] = times
            row = (
                title, f"{stages:,}", policy, f"{times.p50:.2f}", f"{times.p99:.1f}",
                f"{times.total_s:.1f}", f"{times.makespan_ratio:.3f}",
            )  # fmt: skip
            print(f"| {' | '.join(row)} |", flush=True)
    if options.figure is not None:
        save_figure(decision_figure(lines), options.figure)


if __name__ == "__main__":
    main()
