"""Which problems an agent trains on, is chosen by, and is tested on; and how well it plays them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from fate_gym.catalog.agentic import agentic_templates
from fate_gym.env.spec import Limits
from fate_gym.errors import InputError
from fate_gym.lab.training.config import ProblemSet
from fate_gym.sim import CompiledProblem, Policy, Simulator, compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from fate_gym.workloads.suites import TEST_FAMILIES
from policies.registry import make_policy

REFERENCE = "round_robin"


def build_problems(chosen: ProblemSet, *, train: bool) -> list[CompiledProblem]:
    """The problems of a set, compiled.

    Args:
        chosen: which.
        train: families that are kept for testing are an error.

    Raises:
        InputError: unknown names, nothing chosen, or a test family to train on.
    """
    found = []
    for name in chosen.suites:
        suite = load_suite(name)
        for cluster in chosen.clusters or (suite.cluster,):
            place = load_cluster(cluster)
            for seed in chosen.seeds:
                problems = build_suite(suite, place, seed)
                if train:
                    _check_families(name, {w.family for p in problems for w in p.workflows})
                found += [
                    compile_problem(problem)
                    for problem in problems
                    if chosen.max_stages is None or problem.stage_count <= chosen.max_stages
                ]
    if not found:
        raise InputError(
            "no problem is chosen",
            source="curriculum",
            field="max_stages",
            remedy="raise max_stages or name more suites",
        )
    return found


def common_limits(sets: Sequence[Sequence[CompiledProblem]]) -> Limits:
    """Sizes with room for every problem."""
    return reduce(Limits.join, (Limits.of(problem) for problems in sets for problem in problems))


class Exam:
    """Fixed problems and how long round robin takes for them.

    Args:
        problems: to be played, each with the seed 0 for noise and policy.
    """

    def __init__(self, problems: Sequence[CompiledProblem]) -> None:
        self.problems = list(problems)
        self._reference = np.array([latency(p, make_policy(REFERENCE)) for p in self.problems])

    def marks(self, policy: Policy) -> NDArray[np.float64]:
        """(n,) mean latency of each problem's workflows, as a part of round robin's."""
        times = [latency(problem, policy) for problem in self.problems]
        return np.array(times) / self._reference


def latency(problem: CompiledProblem, policy: Policy) -> float:
    """Mean time from arrival to end over the workflows of one run, seconds."""
    trace = Simulator(problem, record=False).run(policy, seed=0)
    return float((trace.workflow_end - trace.workflow_arrival).mean())


def _check_families(suite: str, families: set[str]) -> None:
    templates = agentic_templates().values()
    kept = set(TEST_FAMILIES) | {t.family for t in templates if t.split == "test"}
    for family in sorted(families & kept):
        raise InputError(
            f"the family {family!r} is kept for testing",
            source=f"suite {suite!r}",
            field="curriculum.phases",
            remedy="train on suites of the split 'train'",
        )


__all__ = ["Exam", "build_problems", "common_limits", "latency"]
