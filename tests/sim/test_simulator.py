"""The simulator's calls: reset, place, wait, copy, restore, run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.catalog.limits import MOST_SEED
from fate_gym.errors import IllegalActionError
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Assignment, DecisionView, Simulator, compile_problem
from fate_gym.validator import assert_valid
from tests.strategies import problems


class Greedy:
    """Places the first ready stage where it ends earliest; records what it sees."""

    name = "greedy"

    def reset(self, view: DecisionView, seed: int) -> None:
        self.seed = seed
        self.times: list[float] = []

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        self.times.append(view.now)
        stage = view.ready[0]
        return [Assignment(stage, (int(view.end_estimates(stage).argmin()),))]


def diamond(*, uncertainty: float = 0.0, arrival: float = 0.0) -> Problem:
    """Return the diamond a, then b and c, then d, on two machines."""
    problem = Problem.classical(
        {s: {"p": 2.0, "q": 3.0} for s in "abcd"},
        {("a", "b"): 1.0, ("a", "c"): 1.0, ("b", "d"): 1.0, ("c", "d"): 1.0},
    )
    (workflow,) = problem.workflows
    return problem.model_copy(
        update={
            "options": problem.options.model_copy(update={"uncertainty": uncertainty}),
            "workflows": (workflow.model_copy(update={"arrival": arrival}),),
        }
    )


def test_a_run_by_hand() -> None:
    simulator = Simulator(diamond())
    assert (simulator.now, simulator.ready, simulator.done) == (0.0, [0], False)
    simulator.place(0, (0,))
    assert simulator.ready == []
    simulator.wait()
    assert (simulator.now, simulator.ready) == (2.0, [1, 2])
    simulator.place(2, (0,))
    simulator.place(1, (1,))
    # c ends at 4; b waits for its input until 3 and ends at 6.
    simulator.wait()
    assert (simulator.now, simulator.ready) == (6.0, [3])
    simulator.place(3, (0,))
    simulator.wait()
    assert simulator.done
    trace = simulator.trace("by hand")
    assert trace.policy == "by hand"
    assert trace.stage_end.tolist() == [2.0, 6.0, 4.0, 9.0]
    assert_valid(trace)


def test_a_simulation_begins_at_its_first_decision() -> None:
    simulator = Simulator(diamond(arrival=7.5))
    assert (simulator.now, simulator.ready) == (7.5, [0])


def test_waiting_skips_events_that_leave_nothing_to_decide() -> None:
    """c ends at 4, but only b's end at 6 makes d ready."""
    simulator = Simulator(diamond())
    policy = Greedy()
    simulator.run(policy)
    assert policy.times == [0.0, 2.0, 2.0, 6.0]


@given(problems(), st.integers(0, 2**32))
def test_reset_takes_everything_back(problem: Problem, seed: int) -> None:
    simulator = Simulator(problem, seed=seed)
    fresh = simulator.state.copy()
    first = simulator.run(Greedy())
    assert simulator.done
    simulator.reset(seed)
    assert np.array_equal(simulator.state.buffer, fresh.buffer)
    assert len(simulator.trace().decision_seconds) == 0
    assert simulator.run(Greedy()).same_schedule(first)


def test_the_seed_of_a_run_is_the_policys_and_the_noises() -> None:
    simulator = Simulator(diamond(uncertainty=0.5), seed=3)
    policy = Greedy()
    first = simulator.run(policy)
    assert (policy.seed, first.seed) == (3, 3)
    second = simulator.run(policy, seed=4)
    assert (policy.seed, second.seed) == (4, 4)
    assert not first.same_schedule(second)
    # The seed stays until another is given.
    assert simulator.run(policy).same_schedule(second)


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    with pytest.raises(IllegalActionError, match="seed"):
        Simulator(diamond(), seed=seed)


def test_the_largest_seed_is_a_seed() -> None:
    assert_valid(Simulator(diamond(uncertainty=0.5), seed=MOST_SEED).run(Greedy()))


@given(problems(), st.integers(0, 10))
def test_restore_goes_back(problem: Problem, steps: int) -> None:
    simulator = Simulator(problem)
    while steps > 0 and not simulator.done:
        _step(simulator)
        steps -= 1
    kept = simulator.state.copy()
    first = _finish(simulator)
    simulator.restore(kept)
    assert np.array_equal(simulator.state.buffer, kept.buffer)
    assert np.array_equal(_finish(simulator), first)
    # And in another simulator of the same problem.
    other = Simulator(simulator.compiled)
    other.restore(kept)
    assert np.array_equal(_finish(other), first)


def _step(simulator: Simulator) -> None:
    if simulator.ready:
        stage = simulator.ready[0]
        simulator.place(stage, (int(simulator.view().end_estimates(stage).argmin()),))
    else:
        simulator.wait()


def _finish(simulator: Simulator) -> np.ndarray:
    while not simulator.done:
        _step(simulator)
    return simulator.trace().stage_end


def test_a_kept_state_is_a_copy() -> None:
    simulator = Simulator(diamond())
    kept = simulator.state.copy()
    before = kept.copy()
    simulator.place(0, (0,))
    assert np.array_equal(kept.buffer, before.buffer)
    kept.buffer[:] = 255
    assert simulator.now == 0.0


def test_a_foreign_state_is_refused() -> None:
    simulator = Simulator(diamond())
    other = Simulator(Problem.classical({"t": {"p": 1.0}}, {}))
    before = simulator.state.copy()
    with pytest.raises(IllegalActionError, match="another problem"):
        simulator.restore(other.state)
    assert np.array_equal(simulator.state.buffer, before.buffer)


def test_a_copy_keeps_what_was_recorded() -> None:
    simulator = Simulator(diamond())
    simulator.place(0, (1,))
    copy = simulator.copy()
    copy.wait()
    copy.place(1, (0,))
    assert copy.trace().shards["stage"].tolist() == [0, 1]
    assert simulator.trace().shards["stage"].tolist() == [0]
    assert copy.compiled is simulator.compiled


def test_without_a_record_there_are_times_but_no_rows() -> None:
    problem = compile_problem(diamond(uncertainty=0.3))
    recorded = Simulator(problem).run(Greedy())
    unrecorded = Simulator(problem, record=False).run(Greedy())
    assert len(recorded.shards) == 4
    assert len(unrecorded.shards) == len(unrecorded.evictions) == 0
    assert np.array_equal(recorded.stage_end, unrecorded.stage_end)
    assert recorded.makespan == unrecorded.makespan


def test_compiling_twice_is_compiling_once() -> None:
    problem = compile_problem(diamond())
    assert compile_problem(problem) is problem
    assert Simulator(problem).compiled is problem


class Scripted:
    """Returns given decisions, call by call."""

    name = "scripted"

    def __init__(self, *answers: Sequence[Assignment]) -> None:
        self._answers = list(answers)

    def reset(self, view: DecisionView, seed: int) -> None:
        self._next = iter(self._answers)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        return next(self._next)


def test_a_policy_may_wait_when_something_is_under_way() -> None:
    policy = Scripted(
        [Assignment(0, (0,))],
        [Assignment(1, (0,))],
        [],  # c waits until b has ended
        [Assignment(2, (0,))],
        [Assignment(3, (0,))],
    )
    trace = Simulator(diamond()).run(policy)
    assert_valid(trace)
    assert trace.stage_end.tolist() == [2.0, 4.0, 6.0, 8.0]
    assert trace.shards["committed"].tolist() == [0.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "no event lies ahead"),
        ([Assignment(1, (0,))], "not ready"),
        ([Assignment(0, (0,)), Assignment(0, (0,))], "not ready"),
        ([Assignment(0, (5,))], "cannot host"),
        ([Assignment(0, (0, 1))], "2 devices"),
    ],
)
def test_a_policy_that_errs_is_stopped(answer: Sequence[Assignment], message: str) -> None:
    with pytest.raises(IllegalActionError, match=message):
        Simulator(diamond()).run(Scripted(answer))


def test_tools_run_without_a_policy() -> None:
    """A problem of tools alone is over before the first decision."""
    workflow = Workflow(
        id="w",
        stages=(Stage(id="a", tool_seconds=1.0), Stage(id="b", tool_seconds=2.0)),
        edges=(Edge(parent="a", child="b"),),
    )
    cluster = Cluster(id="c", devices=(Device(id="d", gpu="T4"),))
    trace = Simulator(Problem.build(cluster, [workflow])).run(Scripted())
    assert_valid(trace)
    assert trace.makespan == 3.0


# --- queries are split by speed ---------------------------------------------------------------


def split(queries: int, seconds: Sequence[float]) -> list[int]:
    """Split queries as docs/execution-model.md says in "Where things run", in plain Python."""
    speed = [1 / s for s in seconds]
    share = [queries * r / sum(speed) for r in speed]
    counts = [max(1, math.floor(x)) for x in share]
    while sum(counts) < queries:
        behind = [x - n for x, n in zip(share, counts, strict=True)]
        counts[behind.index(max(behind))] += 1
    while sum(counts) > queries:
        counts[counts.index(max(counts))] -= 1
    return counts


@given(problems(kind="llm"), st.randoms(use_true_random=False))
def test_without_counts_queries_are_split_by_speed(problem: Problem, random: object) -> None:
    simulator = Simulator(problem)
    clean = simulator.compiled.clean_seconds
    while not simulator.done:
        if not simulator.ready:
            simulator.wait()
            continue
        stage = simulator.ready[0]
        view = simulator.view()
        queries = view.stage(stage)["queries"]
        eligible = view.eligible(stage).tolist()
        random.shuffle(eligible)  # type: ignore[attr-defined]
        devices = eligible[: min(queries, simulator.compiled.shape[-1])]
        simulator.place(stage, devices)
        rows = simulator.trace().shards[-len(devices) :]
        assert rows["device"].tolist() == devices
        assert rows["queries"].tolist() == split(queries, clean[stage, devices].tolist())


@settings(max_examples=20)
@given(problems(kind="llm"))
def test_given_counts_are_kept(problem: Problem) -> None:
    simulator = Simulator(problem)
    shards = simulator.compiled.shape[-1]
    for stage in list(simulator.ready):
        queries = simulator.view().stage(stage)["queries"]
        devices = simulator.view().eligible(stage).tolist()[: min(queries, shards)]
        counts = [1] * (len(devices) - 1) + [queries - len(devices) + 1]
        simulator.place(stage, devices, counts)
        assert simulator.trace().shards[-len(devices) :]["queries"].tolist() == counts


# --- what policies see ------------------------------------------------------------------------


def test_a_view_cannot_change_the_run() -> None:
    stages = tuple(
        Stage(id=s, model="Phi-3-mini", prefix_group="g", prefix_tokens=9, output_tokens=5)
        for s in "ab"
    )
    cluster = Cluster(id="c", devices=(Device(id="d0", gpu="L40S"), Device(id="d1", gpu="A10G")))
    simulator = Simulator(
        Problem.build(cluster, [Workflow(id="w", stages=stages)], options=Options(max_shards=1))
    )
    simulator.place(0, (1,))
    view, before = simulator.view(), simulator.state.copy()
    for array in (
        view.clean_seconds(1), view.drain_estimates(), view.end_estimates(1), view.eligible(1),
        view.resident(1), view.cached_prefix_tokens(1), view.fork().buffer,
    ):  # fmt: skip
        array[:] = 1
    view.ready.clear()
    view.stage(1)["queries"] = 99
    assert np.array_equal(simulator.state.buffer, before.buffer)
    assert view.ready == [1]
    assert view.stage(1)["queries"] == 1
    assert view.resident(1).tolist() == [False, True]
    assert view.cached_prefix_tokens(1).tolist() == [0, 9]


def test_a_view_moves_with_its_simulator() -> None:
    simulator = Simulator(diamond())
    view = simulator.view()
    assert not view.can_wait
    simulator.place(0, (0,))
    assert view.can_wait
    assert view.drain_estimates().tolist() == [2.0, 0.0]
    simulator.wait()
    assert (view.now, view.ready, view.can_wait) == (2.0, [1, 2], False)
    # On p at once; on q after the transfer.
    assert view.end_estimates(1).tolist() == [4.0, 6.0]
    cost = view.estimate(1, 1)
    assert (cost.turn, cost.load, cost.transfer, cost.prefill, cost.decode) == (2, 0, 1, 0, 3)
    assert (cost.busy, cost.end) == (4.0, 6.0)


def test_tools_and_fixed_stages_have_no_model_to_be_resident() -> None:
    view = Simulator(diamond()).view()
    assert not view.resident(0).any()
    assert not view.cached_prefix_tokens(0).any()


def _ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Replace the clock by one on which every decision takes the same time."""
    ticks = iter(float(i) * seconds for i in range(10_000))
    monkeypatch.setattr("fate_gym.sim.simulator.perf_counter", lambda: next(ticks))


def test_charged_planning_passes_before_the_placements(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Problem.classical({s: {"p": 2.0} for s in "abc"}, {("a", "b"): 0.0, ("b", "c"): 0.0})
    _ticking(monkeypatch, 0.25)
    policy = Greedy()
    trace = Simulator(chain).run(policy, charge_planning=True)
    # Nothing else runs while the policy thinks: each of three decisions adds its quarter second.
    assert trace.makespan == 3 * 2.0 + 3 * 0.25
    assert policy.times == [0.0, 2.25, 4.5]
    assert [float(start) for start in trace.shards["start"]] == [0.25, 2.5, 4.75]
    _ticking(monkeypatch, 0.25)
    assert Simulator(chain).run(Greedy()).makespan == 6.0


def test_the_world_moves_on_while_a_policy_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    _ticking(monkeypatch, 5.0)
    trace = Simulator(diamond()).run(Greedy(), charge_planning=True)
    # a: 5 to 7. Then b is decided until 12 and c until 17, by when b has ended: d waits for c.
    assert [float(end) for end in trace.stage_end[:2]] == [7.0, 14.0]
    assert trace.stage_ready[3] == trace.stage_end[:3].max()
    assert trace.decision_seconds.tolist() == [5.0] * 4


@given(problems(), st.floats(0.0, 3.0))
@settings(max_examples=20)
def test_any_charge_leaves_a_complete_run(problem: Problem, seconds: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _ticking(patch, seconds)
        trace = Simulator(problem).run(Greedy(), charge_planning=True)
    assert np.isfinite(trace.workflow_end).all()
    for row in trace.shards:
        # Tools start by themselves; what failed was ready before, too.
        if row["device"] >= 0 and problem.options.failures is None:
            assert row["start"] >= trace.stage_ready[row["stage"]] + seconds - 1e-9
