"""Evaluation of policies on fixed problems: their latency divided by round robin's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fate_gym.lab.jobs.measure import REFERENCE
from fate_gym.lab.jobs.schedules import schedule_of
from fate_gym.metrics.statistics import bootstrap_ci
from fate_gym.sim import CompiledProblem, Policy, Simulator
from policies.registry import make_policy


class Score(BaseModel):
    """Mean latency ratio over problems, with an interval unless there is only one problem."""

    model_config = ConfigDict(frozen=True)

    problems: int
    latency_ratio: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, ratios: NDArray[np.float64]) -> Score:
        """Average (n,) ratios, with a 95 % bootstrap interval."""
        found = bootstrap_ci(ratios, seed=0)
        ends = {"low": found.low, "high": found.high} if math.isfinite(found.low) else {}
        return cls(problems=ratios.size, latency_ratio=found.mean, **ends)

    @property
    def text(self) -> str:
        """``0.4321 [0.4211, 0.4431]``."""
        interval = "" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{self.latency_ratio:.4f}{interval}"


class EvaluationSet:
    """Fixed problems and round robin's latency on each.

    Args:
        problems: problems to play, each with seed 0 for noise and policy.
    """

    def __init__(self, problems: Iterable[CompiledProblem]) -> None:
        self.problems = list(problems)
        self._reference = self._latencies(make_policy(REFERENCE))

    def latency_ratios(self, policy: Policy) -> NDArray[np.float64]:
        """Return (n,) the mean workflow latency of each problem, divided by round robin's."""
        return self._latencies(policy) / self._reference

    def _latencies(self, policy: Policy) -> NDArray[np.float64]:
        runs = (Simulator(one, record=False).run(policy, seed=0) for one in self.problems)
        return np.array([run.latencies.mean() for run in runs])

    def draw_schedules(self, policy: Policy, path: Path) -> None:
        """Write a Gantt chart of round robin, HEFT and a policy on the problem of median size."""
        from fate_gym.lab.report.figures.gantt import gantt_figure
        from fate_gym.lab.report.figures.style import save_figure

        ordered = sorted(self.problems, key=lambda problem: problem.shape[0])
        problem = ordered[(len(ordered) - 1) // 2]
        shown = (make_policy(REFERENCE), make_policy("heft_boosted"), policy)
        schedules = {
            one.name: schedule_of(Simulator(problem).run(one, seed=0), one.name) for one in shown
        }
        save_figure(gantt_figure(schedules), path, dpi=110)
