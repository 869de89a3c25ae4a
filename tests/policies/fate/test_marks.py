"""Marks of plays: searches that use them find what they would find without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.problem import Objective, Problem
from fate_gym.sim import Simulator
from policies.fate.plans.marks import START, last_common_mark
from policies.fate.rollout import incumbent
from policies.fate.rollout.incumbent import MARKS, Incumbent
from tests.policies.fate.test_policy import REAL, both, on
from tests.strategies import problems

WORK = 6_000
"""Budget of a search."""


def search(problem: Problem, objective: Objective, marks: int) -> tuple[float, Incumbent]:
    """Search at the start of a run; return the value of the best plan, and the plan."""
    view = Simulator(problem).view()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(incumbent, "MARKS", marks)
        found = Incumbent(view, objective=objective, max_shards=4)
        found.revalue(found.update(view), WORK)
    return found.improve(WORK, heat=0.02), found


def outcome(of: Incumbent) -> dict[str, Any]:
    c = of.context
    plans = {"best": c.best, "found": c.found, "ended": c.ended}
    counts = {"work": c.work.work, "random": c.work.random}
    return counts | {name: block.buffer.tobytes() for name, block in plans.items()}


@both
@settings(max_examples=25)
@given(problem=problems(), objective=st.sampled_from(["makespan", "slowdown", "p95"]))
def test_marks_change_nothing(problem: Problem, objective: Objective, execution: str) -> None:
    problem = on(problem, execution)
    value, marked = search(problem, objective, MARKS)
    expected, unmarked = search(problem, objective, 0)
    assert value == expected
    assert outcome(marked) == outcome(unmarked)


@pytest.mark.parametrize("problem", REAL)
def test_marks_change_nothing_on_real_graphs(problem: Problem) -> None:
    value, marked = search(problem, "makespan", MARKS)
    expected, unmarked = search(problem, "makespan", 0)
    assert value == expected
    assert outcome(marked) == outcome(unmarked)


def test_a_play_continues_at_the_last_mark_before_a_change() -> None:
    _, found = search(REAL[1], "makespan", MARKS)
    c = found.context
    ws = c.work
    count = ws.marks_count
    assert MARKS // 2 < count <= MARKS
    assert (np.diff(ws.marks["placed"][:count]) > 0).all()
    movable = ws.movable[: ws.movable_count]
    c.draft.buffer[:] = c.found.buffer
    assert last_common_mark(c, c.found, c.draft) == count + START
    for s in movable.tolist():
        c.draft.buffer[:] = c.found.buffer
        c.draft.stages["key"][s] += 1.0
        assert last_common_mark(c, c.found, c.draft) == ws.marked[s] + START
    assert set(ws.marked[movable]) > {0, count}
