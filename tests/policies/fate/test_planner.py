"""The frontier problem against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from policies.fate.planner import LAST_WEIGHT, FrontierProblem, Plan, descend, solve

ENOUGH = 10.0


def random_problem(seed: int, *, stages: int = 0) -> FrontierProblem:
    """Times are whole milliseconds, so that rounding plays no part."""
    rng = np.random.default_rng(seed)
    count = stages or int(rng.integers(1, 6))
    devices = int(rng.integers(1, 5))
    of_stage = rng.integers(1, 5, size=count)
    stage = np.repeat(np.arange(count), of_stage)
    width = rng.integers(1, min(devices, 3) + 1, size=stage.size)
    used = np.full((stage.size, 3), -1)
    busy = np.zeros((stage.size, 3))
    for row, k in enumerate(width):
        used[row, :k] = rng.permutation(devices)[:k]
        busy[row, :k] = rng.integers(0, 3000, size=k) / 1000
    first = np.concatenate(([0], np.cumsum(of_stage)[:-1]))
    return FrontierProblem(
        stage=stage,
        cost=count * rng.integers(0, 2000, size=stage.size) / 1000,
        busy=busy,
        devices=used,
        free=rng.integers(0, 2000, size=devices) / 1000,
        hint=first + rng.integers(0, of_stage),
    )


def objective(problem: FrontierProblem, chosen: np.ndarray, share: float) -> float:
    """The time at which all devices are done + share x the mean cost of the chosen."""
    load = problem.free.copy()
    for row in chosen:
        for device, seconds in zip(problem.devices[row], problem.busy[row], strict=True):
            if device >= 0:
                load[device] += seconds
    return float(load.max() + share * problem.cost[chosen].mean())


def best(problem: FrontierProblem, share: float) -> float:
    rows = [np.flatnonzero(problem.stage == s) for s in range(problem.stage.max() + 1)]
    return min(objective(problem, np.array(pick), share) for pick in product(*rows))


@pytest.mark.parametrize("share", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(12))
def test_the_plan_is_the_best_of_all(seed: int, share: float) -> None:
    problem = random_problem(seed)
    plan = solve(problem, share=share, limit=ENOUGH)
    assert plan.optimal
    assert plan.chosen is not None
    assert problem.stage[plan.chosen].tolist() == list(range(len(plan.chosen)))
    assert objective(problem, plan.chosen, share) == pytest.approx(best(problem, share), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_descent_ends_where_no_single_change_is_better(seed: int) -> None:
    """And returns the objective of where it ends, in milliseconds x `LAST_WEIGHT`."""
    problem = random_problem(seed, stages=6)
    firsts = np.searchsorted(problem.stage, np.arange(7))
    costs = np.rint(problem.cost / 6 * 1000 * LAST_WEIGHT).astype(np.int64)
    busy, free = (np.rint(x * 1000).astype(np.int64) for x in (problem.busy, problem.free))
    used = np.unique(problem.devices[problem.devices >= 0])

    def value(chosen: np.ndarray) -> int:
        load = free.copy()
        for row in chosen:
            for device, time in zip(problem.devices[row], busy[row], strict=True):
                if device >= 0:
                    load[device] += time
        return int(costs[chosen].sum() + LAST_WEIGHT * load[used].max())

    chosen = problem.hint.copy()
    found = descend(chosen, firsts, costs, problem.devices, busy, free)
    assert found == value(chosen) <= value(problem.hint)
    for stage in range(6):
        for row in range(firsts[stage], firsts[stage + 1]):
            other = chosen.copy()
            other[stage] = row
            assert value(other) >= found


def test_the_same_problem_gives_the_same_plan() -> None:
    """Also when there are many optima, and when the limit ends the search."""
    equal = random_problem(3, stages=6)
    equal.cost[:] = 1.0
    equal.busy[equal.devices >= 0] = 1.0
    for limit in (ENOUGH, 0.001):
        first = solve(equal, share=1.0, limit=limit)
        assert all(_same(first, solve(equal, share=1.0, limit=limit)) for _ in range(3))


def _same(a: Plan, b: Plan) -> bool:
    if a.chosen is None or b.chosen is None:
        return a.chosen is b.chosen
    return np.array_equal(a.chosen, b.chosen)


def test_the_hint_does_not_change_what_is_best() -> None:
    problem = random_problem(7)
    values = set()
    for number in range(problem.stage.size):
        hint = problem.hint.copy()
        hint[problem.stage[number]] = number
        hinted = FrontierProblem(
            stage=problem.stage, cost=problem.cost, busy=problem.busy,
            devices=problem.devices, free=problem.free, hint=hint,
        )  # fmt: skip
        plan = solve(hinted, share=1.0, limit=ENOUGH)
        assert plan.chosen is not None
        values.add(round(objective(problem, plan.chosen, 1.0), 9))
    assert len(values) == 1


def test_a_plan_of_a_large_frontier_is_complete_whatever_the_limit() -> None:
    """Cut short, the solver gives a complete plan or none; never half a plan."""
    rng = np.random.default_rng(0)
    stages, kept, devices = 12, 8, 8
    problem = FrontierProblem(
        stage=np.repeat(np.arange(stages), kept),
        cost=rng.uniform(1, 50, stages * kept),
        busy=rng.uniform(1, 20, (stages * kept, 1)),
        devices=rng.integers(0, devices, (stages * kept, 1)),
        free=rng.uniform(0, 30, devices),
        hint=np.arange(0, stages * kept, kept),
    )
    for limit in (0.0, 1e-6, 1e-3, 0.02):
        plan = solve(problem, share=1.0, limit=limit)
        if plan.chosen is not None:
            assert problem.stage[plan.chosen].tolist() == list(range(stages))
        assert plan.chosen is not None or not plan.optimal


def test_a_single_candidate_leaves_no_choice() -> None:
    problem = FrontierProblem(
        stage=np.array([0]), cost=np.array([1.0]), busy=np.array([[2.0]]),
        devices=np.array([[0]]), free=np.array([0.0]), hint=np.array([0]),
    )  # fmt: skip
    plan = solve(problem, share=1.0, limit=ENOUGH)
    assert plan.chosen is not None
    assert plan.chosen.tolist() == [0]
    assert plan.optimal


def test_very_long_times_are_clipped_not_wrapped() -> None:
    """A candidate of years on one device must lose against one of seconds on another."""
    problem = FrontierProblem(
        stage=np.array([0, 0]), cost=np.array([1e9, 5.0]), busy=np.array([[1e9], [5.0]]),
        devices=np.array([[0], [1]]), free=np.array([0.0, 1.0]), hint=np.array([0]),
    )  # fmt: skip
    plan = solve(problem, share=1.0, limit=ENOUGH)
    assert plan.chosen is not None
    assert plan.chosen.tolist() == [1]
