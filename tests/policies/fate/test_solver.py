"""The solver's choice for the frontier, compared with enumeration."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest

from fate_gym.kernel.placements import Placements, new_placements
from policies.fate.paper.solver import (
    LAST_WEIGHT,
    Choice,
    choose_placements,
    descend,
    first_rows,
)

ENOUGH = 10.0
Array = np.ndarray[Any, Any]


class Frontier(NamedTuple):
    """The input of the solver: candidates, when devices are free, a hint."""

    candidates: Placements
    free: Array
    hint: Array

    @property
    def stage(self) -> Array:
        """(C,) stage number of each candidate, from 0."""
        stages: Array = self.candidates.rows["stage"]
        return stages

    def solve(self, share: float, limit: float = ENOUGH) -> Choice:
        return choose_placements(self.candidates, self.free, self.hint, share=share, limit=limit)


def frontier(stage: Any, value: Any, devices: Any, busy: Any, free: Any, hint: Any) -> Frontier:
    """Return a frontier of (C, K) candidates of (C,) stages."""
    used = np.asarray(devices)
    candidates = new_placements(*used.shape)
    candidates.count = used.shape[0]
    candidates.rows["stage"], candidates.rows["value"] = stage, value
    candidates.devices[:], candidates.busy[:] = used, busy
    return Frontier(candidates, np.asarray(free), np.asarray(hint))


def random_frontier(seed: int, *, stages: int = 0) -> Frontier:
    """Draw a frontier; times are whole milliseconds, so that rounding does not matter."""
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
    value = count * rng.integers(0, 2000, size=stage.size) / 1000
    free = rng.integers(0, 2000, size=devices) / 1000
    return frontier(stage, value, used, busy, free, first + rng.integers(0, of_stage))


def objective(given: Frontier, chosen: Array, share: float) -> float:
    """Compute the time when all devices are done + share x the mean value of the chosen."""
    load = given.free.copy()
    for row in chosen:
        used, busy = given.candidates.devices[row], given.candidates.busy[row]
        for device, seconds in zip(used, busy, strict=True):
            if device >= 0:
                load[device] += seconds
    return float(load.max() + share * given.candidates.rows["value"][chosen].mean())


def best(given: Frontier, share: float) -> float:
    rows = [np.flatnonzero(given.stage == s) for s in range(given.stage.max() + 1)]
    return min(objective(given, np.array(pick), share) for pick in product(*rows))


@pytest.mark.parametrize("share", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed: int, share: float) -> None:
    given = random_frontier(seed)
    choice = given.solve(share)
    assert choice.optimal
    assert choice.rows is not None
    assert given.stage[choice.rows].tolist() == list(range(len(choice.rows)))
    assert objective(given, choice.rows, share) == pytest.approx(best(given, share), abs=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_descent_ends_where_no_single_change_is_better(seed: int) -> None:
    """And returns the objective of where it ends, in milliseconds x `LAST_WEIGHT`."""
    given = random_frontier(seed, stages=6)
    firsts = first_rows(given.candidates)
    assert firsts.tolist() == np.searchsorted(given.stage, np.arange(7)).tolist()
    devices = given.candidates.devices
    costs = np.rint(given.candidates.rows["value"] / 6 * 1000 * LAST_WEIGHT).astype(np.int64)
    busy, free = (np.rint(x * 1000).astype(np.int64) for x in (given.candidates.busy, given.free))
    used = np.unique(devices[devices >= 0])
    free[np.setdiff1d(np.arange(free.size), used)] = 0

    def value(chosen: Array) -> int:
        load = free.copy()
        for row in chosen:
            for device, time in zip(devices[row], busy[row], strict=True):
                if device >= 0:
                    load[device] += time
        return int(costs[chosen].sum() + LAST_WEIGHT * load[used].max())

    chosen = given.hint.copy()
    found = descend(chosen, firsts, costs, devices, busy, free.copy())
    assert found == value(chosen) <= value(given.hint)
    for stage in range(6):
        for row in range(firsts[stage], firsts[stage + 1]):
            other = chosen.copy()
            other[stage] = row
            assert value(other) >= found


def test_the_same_frontier_gives_the_same_choice() -> None:
    """Also when there are many optima, and when the limit ends the search."""
    equal = random_frontier(3, stages=6)
    equal.candidates.rows["value"] = 1.0
    equal.candidates.busy[equal.candidates.devices >= 0] = 1.0
    for limit in (ENOUGH, 0.001):
        first = equal.solve(1.0, limit)
        assert all(_same(first, equal.solve(1.0, limit)) for _ in range(3))


def _same(a: Choice, b: Choice) -> bool:
    if a.rows is None or b.rows is None:
        return a.rows is b.rows
    return np.array_equal(a.rows, b.rows)


def test_the_hint_does_not_change_what_is_best() -> None:
    given = random_frontier(7)
    values = set()
    for row in range(given.stage.size):
        hint = given.hint.copy()
        hint[given.stage[row]] = row
        choice = given._replace(hint=hint).solve(1.0)
        assert choice.rows is not None
        values.add(round(objective(given, choice.rows, 1.0), 9))
    assert len(values) == 1


def test_the_choice_for_a_large_frontier_is_complete_whatever_the_limit() -> None:
    """Cut short, the solver gives a complete choice or none; never half a choice."""
    rng = np.random.default_rng(0)
    stages, kept, devices = 12, 8, 8
    value = rng.uniform(1, 50, stages * kept)
    busy = rng.uniform(1, 20, (stages * kept, 1))
    used = rng.integers(0, devices, (stages * kept, 1))
    free = rng.uniform(0, 30, devices)
    stage = np.repeat(np.arange(stages), kept)
    given = frontier(stage, value, used, busy, free, np.arange(0, stages * kept, kept))
    for limit in (0.0, 1e-6, 1e-3, 0.02):
        choice = given.solve(1.0, limit)
        if choice.rows is not None:
            assert given.stage[choice.rows].tolist() == list(range(stages))
        assert choice.rows is not None or not choice.optimal


def test_a_single_candidate_leaves_no_choice() -> None:
    choice = frontier([0], [1.0], [[0]], [[2.0]], [0.0], [0]).solve(1.0)
    assert choice.rows is not None
    assert choice.rows.tolist() == [0]
    assert choice.optimal


def test_very_long_times_are_clipped_not_wrapped() -> None:
    """A candidate of years on one device must lose against one of seconds on another."""
    given = frontier([0, 0], [1e9, 5.0], [[0], [1]], [[1e9], [5.0]], [0.0, 1.0], [0])
    choice = given.solve(1.0)
    assert choice.rows is not None
    assert choice.rows.tolist() == [1]
