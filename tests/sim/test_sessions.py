"""Sessions as policies see them, and in the arrays."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import DecisionView, Simulator, compile_problem
from fate_gym.sim.visibility import RecordingView, blind
from policies import make_policy
from policies.references.kept import problem_key

ONE = Cluster(id="one", devices=(Device(id="p"),))


def turn(name: str, follows: str | None, session: str | None, think: float = 0.0) -> Workflow:
    stage = Stage(id="s", seconds_on={"p": 1.0})
    return Workflow(id=name, stages=(stage,), follows=follows, session=session, think_seconds=think)


TURNS = Problem.build(
    ONE,
    [
        turn("y1", "y0", "y", 2.0),
        turn("x0", None, "x"),
        turn("alone", None, None),
        turn("y0", None, "y"),
        turn("x2", "x1", "x", 1.0),
        turn("x1", "x0", "x", 0.5),
        turn("x1 again", "x0", "other"),
    ],
)


def after_the_run() -> DecisionView:
    simulator = Simulator(TURNS)
    simulator.run(make_policy("eft"))
    return simulator.view()


def test_sessions_count_by_first_use_and_turns_from_the_first() -> None:
    view = after_the_run()
    workflows = range(len(TURNS.workflows))
    assert [view.session(w) for w in workflows] == [0, 1, -1, 0, 1, 1, 2]
    assert [view.turn(w) for w in workflows] == [1, 0, 0, 0, 2, 1, 1]


def test_everybody_sees_them() -> None:
    seen: set[str] = set()
    view = RecordingView(after_the_run(), seen)
    assert (view.session(4), view.turn(4)) == (1, 2)
    assert seen == set()
    sees_nothing = blind(after_the_run(), [])
    assert (sees_nothing.session(4), sees_nothing.turn(4)) == (1, 2)


def test_who_follows_whom() -> None:
    compiled = compile_problem(TURNS)
    p = compiled.arrays
    assert compiled.follows.tolist() == [3, -1, -1, -1, 5, 1, 1]
    assert p.arrivals.tolist() == [1, 2, 3]
    follow = [
        p.followers[row["followers_from"] : row["followers_to"]].tolist() for row in p.workflows
    ]
    assert follow == [[], [5, 6], [], [0], [], [4], []]
    assert p.workflows["think_s"].tolist() == [2.0, 0.0, 0.0, 0.0, 1.0, 0.5, 0.0]


def test_a_problem_without_sessions_has_the_arrays_that_it_had() -> None:
    """Digests of the arrays, such as those of best known makespans, stay valid."""
    problem = Problem.build(ONE, [turn("a", None, None), turn("b", None, None)])
    p = compile_problem(problem).arrays
    assert p.followers.size == 0
    for name in ("think_s", "followers_from", "followers_to", "session", "turn"):
        assert not p.workflows[name].any()
    keys = {problem_key(compile_problem(one)) for one in (problem, TURNS)}
    assert len(keys) == 2


def test_arrivals_show_when_they_have_come() -> None:
    simulator = Simulator(TURNS)
    view = simulator.view()
    assert view.arrived == [1, 2, 3]
    assert [view.arrival(w) for w in (0, 1, 4)] == [np.inf, 0.0, np.inf]
    simulator.place(1, (0,))
    simulator.place(3, (0,))
    simulator.wait()
    assert (view.now, view.arrived) == (1.0, [1, 2, 3, 6])
    simulator.wait()
    assert view.arrived == [1, 2, 3, 6, 5]
    assert view.arrival(5) == pytest.approx(1.5)
    assert view.arrival(0) == np.inf
    trace = simulator.trace()
    assert trace.workflow_arrival.tolist() == [np.inf, 0.0, 0.0, 0.0, np.inf, 1.5, 1.0]


def test_blind_to_what_is_to_come() -> None:
    """That one can wait shows, and nothing more: neither who follows, nor when."""
    simulator = Simulator(TURNS)
    for stage in (1, 3):
        simulator.place(stage, (0,))
    simulator.wait()
    view = blind(simulator.view(), ["all"])
    assert view.can_wait
    p, st = view.compiled.arrays, view.state
    assert not p.workflows["followers_from"].any()
    assert not p.workflows["followers_to"].any()
    hidden = [0, 4, 5]
    for name in ("think_s", "session", "turn"):
        assert not p.workflows[name][hidden].any()
    assert [view.session(w) for w in (1, 6)] == [1, 2]
    assert view.turn(6) == 1
    events = st.events[: st.event_count]
    assert events["time"].tolist() == [2.0, np.inf]
    shown = events["id"].tolist()
    # Another turn that is thought of leaves the same view.
    other = TURNS.workflows[5].model_copy(update={"think_seconds": 30.0, "session": "z"})
    changed = [other if w.id == other.id else w for w in TURNS.workflows]
    later = Simulator(TURNS.model_copy(update={"workflows": tuple(changed)}))
    for stage in (1, 3):
        later.place(stage, (0,))
    later.wait()
    assert blind(later.view(), ["all"]).state.events[: st.event_count]["id"].tolist() == shown
