"""Values of actions by rollout with a list schedule."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.env.observer import Observer
from fate_gym.problem import Problem
from fate_gym.sim import Simulator, compile_problem
from fate_gym.workloads.clusters import Cluster
from policies import make_policy
from policies.learned.teacher import RolloutTeacher
from tests.policies.learned.problems import OPTIONS, smoke, stream


def watched(problem: Problem) -> tuple[Simulator, Observer, np.ndarray]:
    simulator = Simulator(compile_problem(problem))
    observer = Observer(OPTIONS, simulator.compiled)
    seen = observer.observe(simulator.view())
    return simulator, observer, seen["action_mask"]


def batching(problem: Problem) -> Problem:
    cluster: Cluster = problem.cluster.model_copy(update={"execution": "batching"})
    return problem.model_copy(update={"cluster": cluster})


@pytest.mark.parametrize(
    "problem", [smoke()[0], batching(smoke()[0])], ids=["exclusive", "batching"]
)
def test_values_of_actions_are_the_latencies_of_real_runs(problem: Problem) -> None:
    simulator, observer, mask = watched(problem)
    values = RolloutTeacher(simulator.compiled).values(
        simulator.view().fork(), observer.arrays, mask
    )
    assert np.isfinite(values).sum() == mask.sum()
    # Where devices batch, all that is ready is committed at once.
    lazy = problem.cluster.execution == "exclusive"
    for action in np.flatnonzero(mask)[:5].tolist():
        run, watching, _ = watched(problem)
        first = watching.take(action)
        assert first is not None
        run.place(first.stage, first.devices, first.counts)
        policy = make_policy("fdws_boosted", lazy=lazy)
        policy.reset(run.view(), 0)
        while not run.done:
            chosen = policy.decide(run.view()) if run.ready else []
            for assignment in chosen:
                run.place(assignment.stage, assignment.devices, assignment.counts)
            if not run.done and not (chosen and run.ready):
                run.wait()
        trace = run.trace()
        expected = trace.makespan + 0.02 * trace.stage_end.mean()
        assert values[action] == pytest.approx(expected, rel=1e-9)


def test_who_arrives_later_does_not_count() -> None:
    simulator, observer, mask = watched(stream())
    teacher = RolloutTeacher(simulator.compiled)
    state, run = simulator.state, observer.arrays
    whole = teacher.values(state, run, mask)
    first = teacher.values(state, run, mask, arrived_by=0.0)
    two = teacher.values(state, run, mask, arrived_by=3.0)
    known = mask > 0
    assert np.all(first[known] < two[known])
    assert np.all(two[known] < whole[known])
    # Once all that counts has ended it does not matter how far a run is played.
    np.testing.assert_array_equal(
        teacher.values(state, run, mask, arrived_by=0.0, until=float(2 * whole[known].max())),
        first,
    )


def test_what_is_not_played_is_taken_to_be_undisturbed() -> None:
    simulator, observer, mask = watched(smoke()[0])
    teacher = RolloutTeacher(simulator.compiled)
    state = simulator.view().fork()
    now = simulator.view().now
    none = teacher.values(state, observer.arrays, mask, until=now)
    longest = max(float(simulator.view().stage(s)["upward_rank"]) for s in simulator.ready)
    assert np.all(none[mask > 0] <= 1.02 * (now + longest) + 60.0)
    whole = teacher.values(state, observer.arrays, mask)
    some = teacher.values(state, observer.arrays, mask, until=now + 0.3 * (whole.min() - now))
    every = teacher.values(state, observer.arrays, mask, until=10 * float(whole[mask > 0].max()))
    np.testing.assert_array_equal(whole, every)
    assert not np.array_equal(some, whole)


def test_the_base_is_the_list_schedule_that_does_best() -> None:
    simulator, observer, mask = watched(smoke()[1])
    teacher = RolloutTeacher(simulator.compiled)
    before = teacher.values(simulator.state, observer.arrays, mask)
    teacher.choose_base(simulator.state)
    after = teacher.values(simulator.state, observer.arrays, mask)
    assert after.min() <= before.min() * 1.05
