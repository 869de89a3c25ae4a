"""The engine against the independent validator, on random problems and random decisions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import IllegalActionError
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Assignment, Decision, DecisionView, Retention, Simulator
from fate_gym.validator import assert_valid
from fate_gym.workloads import load_cluster
from tests.strategies import problems


class Anything:
    """Places or waits at random, with random devices and counts, so that all legal paths occur."""

    name = "anything"

    def reset(self, view: DecisionView, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._shape = view.compiled.shape

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        rng = self._rng
        if view.can_wait and rng.random() < 0.3:
            return []
        stages, machines, models, prefixes, _, shards = self._shape
        decisions: list[Decision] = []
        if rng.random() < 0.2:
            # Few values, so that many are equal.
            ranks = rng.integers(0, 3, (3, machines, max(stages, models, prefixes)))
            wide = rng.random() < 0.5
            decisions.append(
                Retention(
                    ranks[0, :, :prefixes] if wide else ranks[0, 0, :prefixes],
                    ranks[1, 0, :stages] if rng.random() < 0.8 else None,
                    ranks[2, :, :models] if wide else ranks[2, 0, :models],
                    self._ends(view.now, (machines, prefixes) if wide else (prefixes,)),
                )
            )
        stage = int(rng.choice(view.ready))
        source = int(rng.integers(machines)) if rng.random() < 0.4 else None
        queries = view.stage(stage)["queries"]
        eligible = view.eligible(stage)
        width = int(rng.integers(1, min(shards, queries, eligible.size) + 1))
        devices = tuple(int(d) for d in rng.permutation(eligible)[:width])
        if rng.random() < 0.5:
            return [*decisions, Assignment(stage, devices, migrate_from=source)]
        cuts = np.sort(rng.choice(np.arange(1, queries), width - 1, replace=False))
        counts = np.diff(np.concatenate(([0], cuts, [queries])))
        return [*decisions, Assignment(stage, devices, tuple(int(n) for n in counts), source)]

    def _ends(self, now: float, shape: tuple[int, ...]) -> npt.NDArray[np.float64] | None:
        """Draw until when values of prefixes hold: some have expired, some end soon, some never."""
        rng = self._rng
        if rng.random() < 0.4:
            return None
        sign = rng.choice([-1.0, 0.0, 1.0, np.inf], shape)
        ends: npt.NDArray[np.float64] = now + sign * rng.exponential(3.0, shape)
        return ends


@given(problems(), st.integers(0, 2**32))
def test_every_run_satisfies_the_independent_validator(problem: Problem, seed: int) -> None:
    assert_valid(Simulator(problem).run(Anything(), seed=seed))


@given(problems(kind="pressure"), st.integers(0, 2**32))
def test_runs_under_memory_pressure_satisfy_the_validator(problem: Problem, seed: int) -> None:
    assert_valid(Simulator(problem).run(Anything(), seed=seed))


@given(problems(), st.integers(0, 2**32))
def test_same_seed_same_run(problem: Problem, seed: int) -> None:
    simulator = Simulator(problem)
    first = simulator.run(Anything(), seed=seed)
    assert first.same_schedule(simulator.run(Anything(), seed=seed))
    assert first.same_schedule(Simulator(problem).run(Anything(), seed=seed))


@given(problems(), st.integers(0, 2**32), st.integers(0, 20))
def test_a_copy_goes_its_own_way(problem: Problem, seed: int, steps: int) -> None:
    simulator = Simulator(problem, seed=seed)
    for _ in range(steps):
        if not simulator.done:
            _step(simulator)
    copy, before = simulator.copy(), simulator.state.copy()
    while not copy.done:
        _step(copy)
    assert np.array_equal(simulator.state.buffer, before.buffer)
    while not simulator.done:
        _step(simulator)
    assert simulator.trace().same_schedule(copy.trace())


@given(problems(), st.integers(0, 2**32))
def test_a_fork_plays_out_the_estimates(problem: Problem, seed: int) -> None:
    """Without noise and later arrivals a fork is the state itself; it never changes its source."""
    simulator = Simulator(problem, seed=seed)
    for _ in range(3):
        if not simulator.done:
            _step(simulator)
    before = simulator.state.copy()
    fork = simulator.view().fork()
    assert np.array_equal(simulator.state.buffer, before.buffer)
    certain = not uncertain(problem)
    arrivals = {workflow.arrival for workflow in problem.workflows}
    alone = not any(workflow.follows for workflow in problem.workflows)
    if certain and alone and len(arrivals) == 1:
        other = Simulator(problem, seed=seed)
        other.restore(fork)
        while not other.done:
            _step(other)
        while not simulator.done:
            _step(simulator)
        assert other.trace().stage_end.tolist() == simulator.trace().stage_end.tolist()


def uncertain(problem: Problem) -> bool:
    """Return whether a run of the problem draws anything."""
    options = problem.options
    drawn = options.uncertainty > 0 or options.length_uncertainty > 0 or options.failures
    return bool(drawn) or any(w.choices or w.fan_outs for w in problem.workflows)


def _step(simulator: Simulator) -> None:
    if simulator.ready:
        stage = simulator.ready[0]
        simulator.place(stage, (int(simulator.view().end_estimates(stage).argmin()),))
    else:
        simulator.wait()


@given(problems(kind="llm"))
def test_estimates_are_exact_without_noise(problem: Problem) -> None:
    if problem.options.uncertainty > 0 or problem.options.length_uncertainty > 0:
        return
    simulator = Simulator(problem)
    while not simulator.done:
        if not simulator.ready:
            simulator.wait()
            continue
        stage = simulator.ready[0]
        ends = simulator.view().end_estimates(stage)
        device = int(ends.argmin())
        parts = simulator.view().estimate(stage, device)
        simulator.place(stage, (device,))
        row = simulator.trace().shards[-1]
        assert row["end"] == pytest.approx(ends[device], rel=1e-12)
        assert row["end"] == pytest.approx(parts.end, rel=1e-12)


def _two_stages() -> Problem:
    stages = [
        Stage(id="a", model="Llama-3.1-8B", queries=2, prompt_tokens=100, output_tokens=10),
        Stage(id="b", model="Llama-3.1-70B-AWQ", queries=1, prompt_tokens=100, output_tokens=10),
    ]
    edges = [Edge(parent="a", child="b")]
    return Problem.build(load_cluster("mixed_8"), [Workflow(id="w", stages=stages, edges=edges)])


@pytest.mark.parametrize(
    ("stage", "devices", "counts", "message"),
    [
        (1, (0,), None, "not ready"),
        (7, (0,), None, "not ready"),
        (0, (), None, "0 devices"),
        (0, (0, 0), None, "stands twice"),
        (0, (99,), None, "cannot host"),
        (0, (0, 1, 2), None, "3 devices for 2 queries"),
        (0, (0, 1), (2, 0), "positive numbers"),
        (0, (0, 1), (1, 2), "sum to 2"),
    ],
)
def test_illegal_placements_are_refused_and_change_nothing(
    stage: int, devices: tuple[int, ...], counts: tuple[int, ...] | None, message: str
) -> None:
    simulator = Simulator(_two_stages())
    before = simulator.state.copy()
    with pytest.raises(IllegalActionError, match=message):
        simulator.place(stage, devices, counts)
    assert np.array_equal(simulator.state.buffer, before.buffer)


def test_waiting_needs_an_event_ahead() -> None:
    with pytest.raises(IllegalActionError, match="no event lies ahead"):
        Simulator(_two_stages()).wait()


def test_a_stage_without_room_is_refused() -> None:
    simulator = Simulator(_two_stages())
    simulator.place(0, (0,))
    simulator.wait()
    small = simulator.compiled.device_ids.index(
        next(d.id for d in simulator.compiled.problem.cluster.devices if d.gpu == "A10G")
    )
    with pytest.raises(IllegalActionError, match="cannot host"):
        simulator.place(1, (small,))


def test_noise_is_the_same_for_every_policy_and_differs_by_seed() -> None:
    problem = _two_stages()
    noisy = Problem.build(problem.cluster, problem.workflows, options=Options(uncertainty=0.5))

    def factor(seed: int, order: tuple[int, ...]) -> float:
        simulator = Simulator(noisy, seed=seed)
        simulator.place(0, order)
        rows = simulator.trace().shards
        return float(rows["noise"][list(rows["device"]).index(0)])

    assert factor(1, (0,)) == factor(1, (1, 0)) != factor(2, (0,))


def test_noise_has_mean_one() -> None:
    stage = Stage(id="0", seconds_on={"d": 1.0})
    stages = tuple(stage.model_copy(update={"id": str(i)}) for i in range(4000))
    problem = Problem.classical({"0": {"d": 1.0}}, {})
    noisy = Problem.build(
        problem.cluster,
        [Workflow(id="w", stages=stages)],
        options=Options(uncertainty=0.3, max_shards=1),
    )
    simulator = Simulator(noisy, seed=5)
    for number in range(4000):
        simulator.place(number, (0,))
    noise = simulator.trace().shards["noise"]
    assert np.log(noise).std() == pytest.approx(0.3, rel=0.05)
    assert noise.mean() == pytest.approx(1.0, abs=4 * 0.3 / np.sqrt(4000))


def test_a_group_without_prefix_tokens_does_not_protect_the_groups_prefix() -> None:
    """The second stage uses no prefix, so the cached one of its group has to make room."""
    shape = {"model": "Phi-3-mini", "prefix_group": "g", "prompt_tokens": 100, "queries": 40}
    stages = [
        Stage(id="first", prefix_tokens=5000, output_tokens=1, **shape),
        Stage(id="second", prefix_tokens=0, output_tokens=900, **shape),
    ]
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="A10G"),))
    edges = [Edge(parent="first", child="second")]
    problem = Problem.build(cluster, [Workflow(id="w", stages=stages, edges=edges)])
    simulator = Simulator(problem)
    simulator.place(0, (0,))
    simulator.wait()
    assert simulator.view().cached_prefix_tokens(0).tolist() == [5000]
    simulator.place(1, (0,))
    assert simulator.view().cached_prefix_tokens(0).tolist() == [0]
    while not simulator.done:
        simulator.wait()
    trace = simulator.trace()
    assert trace.evictions["kind"].tolist() == [0]
    assert_valid(trace)


def test_shards_that_take_no_time_leave_the_queue_in_any_order() -> None:
    """The later one first: the events of an instant go by the number of the stage."""
    seconds = {"a": {"m": 0.0}, "b": {"m": 0.0}, "c": {"m": 5.0}, "d": {"n": 1.0}}
    simulator = Simulator(Problem.classical(seconds, {("a", "d"): 0.0}))
    for stage in (1, 0, 2):
        simulator.place(stage, (0,))
    assert simulator.view().outstanding().tolist() == [3, 0]
    simulator.wait()
    assert (simulator.now, simulator.ready) == (0.0, [3])
    assert simulator.view().outstanding().tolist() == [1, 0]
    simulator.place(3, (1,))
    simulator.wait()
    assert simulator.done
    assert simulator.view().open_devices().all()
