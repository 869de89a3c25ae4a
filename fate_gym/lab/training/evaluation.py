"""Evaluation of policies on fixed problems: their latency divided by round robin's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from fate_gym.lab.jobs.instances import REFERENCE
from fate_gym.lab.jobs.schedules import schedule_of
from fate_gym.sim import CompiledProblem, Policy, Simulator
from policies.registry import make_policy

_RESAMPLES = 10_000


class Score(BaseModel):
    """Mean latency ratio over kinds of problems, with an interval unless each has one problem.

    Every kind counts the same, however many problems it has: a stream is one problem, and a suite
    of single workflows may have a hundred.
    """

    model_config = ConfigDict(frozen=True)

    problems: int
    latency_ratio: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, ratios: Sequence[NDArray[np.float64]]) -> Score:
        """Average the ratios of each kind, and then the kinds.

        The 95 % interval is that of a bootstrap that draws the problems within each kind.
        """
        number = sum(kind.size for kind in ratios)
        mean = _mean_of_kinds(ratios)
        if number == len(ratios):
            return cls(problems=number, latency_ratio=mean)
        rng = np.random.default_rng(0)
        drawn = [rng.choice(kind, (_RESAMPLES, kind.size)).mean(axis=1) for kind in ratios]
        low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5]).tolist()
        return cls(problems=number, latency_ratio=mean, low=low, high=high)

    @property
    def text(self) -> str:
        """``0.4321 [0.4211, 0.4431]``."""
        interval = "" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]"
        return f"{self.latency_ratio:.4f}{interval}"


class EvaluationSet:
    """Fixed problems of several kinds, and round robin's latency on each.

    Args:
        kinds: problems of each kind, each played with seed 0 for noise and policy. Kinds without
            problems are left out.
    """

    def __init__(self, kinds: Iterable[Sequence[CompiledProblem]]) -> None:
        self._kinds = [kind for kind in kinds if kind]
        self._reference = self._latencies(make_policy(REFERENCE))

    def score(self, policy: Policy) -> Score:
        """Return the policy's score, with its interval."""
        return Score.of(self._ratios(policy))

    def mean_ratio(self, policy: Policy) -> float:
        """Return the latency ratio of the score alone, without drawing samples for an interval."""
        return _mean_of_kinds(self._ratios(policy))

    def _ratios(self, policy: Policy) -> list[NDArray[np.float64]]:
        """Return per kind (n,) each problem's mean latency, divided by round robin's."""
        pairs = zip(self._latencies(policy), self._reference, strict=True)
        return [own / reference for own, reference in pairs]

    def _latencies(self, policy: Policy) -> list[NDArray[np.float64]]:
        """Return per kind (n,) the mean latency of each problem's workflows, seconds."""
        return [np.array([_mean_latency(one, policy) for one in kind]) for kind in self._kinds]

    def draw_schedules(self, policy: Policy, path: Path) -> None:
        """Write a Gantt chart of round robin, HEFT and a policy on the problem of median size."""
        from fate_gym.lab.report.figures.gantt import gantt_figure
        from fate_gym.lab.report.figures.style import save_figure

        ordered = sorted(chain(*self._kinds), key=lambda problem: problem.shape[0])
        problem = ordered[(len(ordered) - 1) // 2]
        shown = (make_policy(REFERENCE), make_policy("heft_boosted"), policy)
        schedules = {
            one.name: schedule_of(Simulator(problem).run(one, seed=0), problem, one.name)
            for one in shown
        }
        save_figure(gantt_figure(schedules), path, dpi=110)


def _mean_of_kinds(ratios: Sequence[NDArray[np.float64]]) -> float:
    return float(np.mean([kind.mean() for kind in ratios]))


def _mean_latency(problem: CompiledProblem, policy: Policy) -> float:
    return float(Simulator(problem, record=False).run(policy, seed=0).latencies.mean())
