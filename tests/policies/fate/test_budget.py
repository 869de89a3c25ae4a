"""Budgets of decisions: what a play costs is known before, and too large ones are not begun."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from fate_gym.sim import Simulator, compile_problem
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies.fate.rollout.budget import MOST, SavedBudget
from policies.fate.rollout.incumbent import Incumbent

STEPS = 20_000
"""Budget of FATE's decisions (``conf/policy/fate.yaml``)."""


def incumbent_of(stages: int, cluster: str) -> Incumbent:
    """Return the incumbent of one workflow at its arrival, with the first list schedule's plan."""
    suite = load_suite("scale").model_copy(update={"sizes": (stages,)})
    (problem,) = islice(build_suite(suite, load_cluster(cluster), 0), 1)
    view = Simulator(compile_problem(problem)).view()
    incumbent = Incumbent(view, objective="makespan", max_shards=1)
    incumbent.update(view)
    incumbent.revalue(True, 0)
    return incumbent


@pytest.mark.parametrize(("stages", "cluster"), [(100, "mixed_12"), (4_000, "mixed_12")])
def test_following_a_plan_costs_what_was_expected(stages: int, cluster: str) -> None:
    incumbent = incumbent_of(stages, cluster)
    work = incumbent.context.work
    before = int(work.work)
    incumbent.value(incumbent.context.best, np.inf, incumbent.style)
    assert int(work.work) - before == incumbent.following


def test_what_is_too_large_to_play_is_followed_as_planned() -> None:
    """A play of 9,000 stages takes 20 to 30 ms, so plans of them are not compared."""
    assert incumbent_of(100, "mixed_12").comparing <= STEPS
    assert incumbent_of(100, "mixed_256").comparing <= STEPS
    assert SavedBudget().withdraw(10**9, incumbent_of(9_000, "mixed_12").comparing) == 0


def test_budgets_are_saved_until_they_suffice() -> None:
    budget = SavedBudget()
    assert [budget.withdraw(400, 1_000) for _ in range(4)] == [0, 0, 1_200, 0]
    assert budget.withdraw(10**6, MOST + 1) == 0
    assert budget.withdraw(0, 1) == 0
