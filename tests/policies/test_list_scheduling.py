"""List schedulers: order, rule for devices, lazy commits, shards; HEFT with insertion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.kernel.placements import new_placements
from fate_gym.kernel.schema import NO_LOG, StateArrays
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Assignment, CompiledProblem, DecisionView, Simulator, compile_problem
from policies import make_policy
from policies.list_scheduling.offline import OfflinePlan, OfflineScheduler, plan_workflow
from policies.list_scheduling.play import decide_instant, plan_instant
from policies.list_scheduling.policy import ListScheduler, Order
from policies.list_scheduling.rules import (
    FCFS,
    MIN_MIN,
    NO_PENALTY,
    STATE,
    STRICT,
    UPWARD_RANK,
    Rules,
)
from tests.kernel.walks import somewhere
from tests.strategies import certain, problems

ORDERS: tuple[Order, ...] = ("fcfs", "upward_rank", "min_min")


def scheduler(
    order: Order, *, boosted: bool = True, lazy: bool = False, shards: int = 1
) -> ListScheduler:
    return ListScheduler(name="it", order=order, boosted=boosted, lazy=lazy, max_shards=shards)


class Checked:
    """Runs an eager list scheduler, and checks each choice against the view it was made in."""

    name = "checked"

    def __init__(self, order: Order) -> None:
        self._inner = scheduler(order)
        self._order = order
        self.choices = 0

    def reset(self, view: DecisionView, seed: int) -> None:
        self._inner.reset(view, seed)
        self._planned: list[Assignment] = []

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        # One at a time, so that each choice meets the state that the ones before it left.
        if not self._planned:
            self._planned = list(self._inner.decide(view))
            assert sorted(a.stage for a in self._planned) == sorted(view.ready)
        choice = self._planned.pop(0)
        ends = {stage: view.end_estimates(stage) for stage in view.ready}
        assert choice.devices == (int(ends[choice.stage].argmin()),)
        assert choice.stage == self._first(view, ends)
        self.choices += 1
        return [choice]

    def _first(self, view: DecisionView, ends: dict[int, np.ndarray]) -> int:
        if self._order == "fcfs":
            return view.ready[0]
        if self._order == "min_min":
            return min(view.ready, key=lambda stage: float(ends[stage].min()))
        rank = view.compiled.arrays.stages["upward_rank"]
        return min(view.ready, key=lambda stage: (-rank[stage], stage))


@pytest.mark.parametrize("order", ORDERS)
@settings(max_examples=25)
@given(problem=problems())
def test_choices_follow_the_order_and_the_earliest_finish(order: Order, problem: Problem) -> None:
    policy = Checked(order)
    simulator = Simulator(certain(problem))
    simulator.run(policy)
    kinds = [stage.kind for workflow in problem.workflows for stage in workflow.stages]
    assert policy.choices == len(kinds) - kinds.count("tool")


def test_orders_differ() -> None:
    """A long task with nothing behind it, a short one with much behind it, and a middling one."""
    problem = Problem.classical(
        {"long": {"m": 7.0}, "head": {"m": 2.0}, "short": {"m": 1.0}, "tail": {"m": 9.0}},
        {("head", "tail"): 0.0},
    )
    orders = {
        order: [int(stage) for stage in Simulator(problem).run(scheduler(order)).shards["stage"]]
        for order in ORDERS
    }
    # The tail becomes ready behind the committed queue.
    assert orders == {"fcfs": [0, 1, 2, 3], "upward_rank": [1, 0, 2, 3], "min_min": [2, 1, 0, 3]}


def two_models() -> tuple[Cluster, Stage]:
    devices = tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(3))
    stage = Stage(id="x", model="Llama-3.1-8B", queries=1, prompt_tokens=500, output_tokens=50)
    return Cluster(id="equal", devices=devices), stage


@pytest.mark.parametrize(("boosted", "device"), [(True, 2), (False, 0)])
def test_only_the_boosted_rule_sees_where_the_model_is(boosted: bool, device: int) -> None:
    cluster, stage = two_models()
    later = stage.model_copy(update={"id": "y"})
    workflow = Workflow(id="w", stages=(stage, later), edges=(Edge(parent="x", child="y"),))
    simulator = Simulator(Problem.build(cluster, [workflow]))
    simulator.place(0, (2,))
    simulator.wait()
    policy = scheduler("upward_rank", boosted=boosted)
    policy.reset(simulator.view(), 0)
    assert list(policy.decide(simulator.view())) == [Assignment(1, (device,))]


@pytest.mark.parametrize(("boosted", "device"), [(True, 2), (False, 0)])
def test_only_the_boosted_rule_sees_cached_prefixes(boosted: bool, device: int) -> None:
    cluster, stage = two_models()
    shared = {"prefix_group": "g", "prefix_tokens": 8000}
    first = stage.model_copy(update=shared)
    loaders = [stage.model_copy(update={"id": f"load{i}"}) for i in range(2)]
    later = first.model_copy(update={"id": "y"})
    workflow = Workflow(
        id="w",
        stages=(first, *loaders, later),
        edges=tuple(Edge(parent=s.id, child="y") for s in (first, *loaders)),
    )
    simulator = Simulator(Problem.build(cluster, [workflow]))
    # The model is everywhere; the prefix on the last device only.
    for number, place in ((0, 2), (1, 0), (2, 1)):
        simulator.place(number, (place,))
    while not simulator.ready:
        simulator.wait()
    policy = scheduler("upward_rank", boosted=boosted)
    policy.reset(simulator.view(), 0)
    assert list(policy.decide(simulator.view())) == [Assignment(3, (device,))]


def test_both_rules_see_queues_and_transfers() -> None:
    problem = Problem.classical(
        {"a": {"p": 1.0}, "b": {"p": 3.0, "q": 3.0}, "c": {"p": 3.0, "q": 3.0}},
        {("a", "b"): 2.0, ("a", "c"): 2.0},
    )
    for boosted in (True, False):
        trace = Simulator(problem).run(scheduler("fcfs", boosted=boosted))
        # b stays where its input is; c would wait 3 s there and pays 2 s of transfer instead.
        assert trace.shards["device"].tolist() == [0, 0, 1]
        assert trace.shards["end"].tolist() == [1.0, 4.0, 6.0]


# --- lazy or eager ----------------------------------------------------------------------------


def test_lazy_waits_for_the_better_device_and_eager_queues() -> None:
    row = {"fast": 1.0, "slow": 100.0}
    problem = Problem.classical({"a": row, "b": row}, {})
    lazy = Simulator(problem).run(scheduler("fcfs", lazy=True)).shards
    eager = Simulator(problem).run(scheduler("fcfs")).shards
    assert lazy["device"].tolist() == eager["device"].tolist() == [0, 0]
    assert lazy["committed"].tolist() == [0.0, 1.0]
    assert eager["committed"].tolist() == [0.0, 0.0]


def test_lazy_changes_its_mind() -> None:
    """What was only planned gives way to a stage of higher rank that turns up."""
    problem = Problem.classical(
        {"running": {"m": 5.0}, "low": {"m": 1.0}, "host": {"n": 2.0}, "high": {"m": 9.0}},
        {("host", "high"): 0.0},
    )
    order: dict[bool, list[int]] = {}
    for lazy in (True, False):
        trace = Simulator(problem).run(scheduler("upward_rank", lazy=lazy))
        mine = trace.shards[trace.shards["device"] == 0]
        order[lazy] = mine["stage"].tolist()
    assert order == {True: [0, 3, 1], False: [0, 1, 3]}


@settings(max_examples=40)
@given(problems(), st.integers(0, 2**32))
def test_lazy_never_queues_behind_a_busy_device(problem: Problem, seed: int) -> None:
    """Also when a shard takes longer than expected: its device is not free before it ends."""
    simulator = Simulator(problem)
    for order, boosted, shards in product(ORDERS, (True, False), (1, 4)):
        policy = scheduler(order, boosted=boosted, lazy=True, shards=shards)
        rows = simulator.run(policy, seed=seed).shards
        assert np.array_equal(rows["start"], rows["committed"])


@settings(max_examples=60)
@given(problems() | problems("pressure", most=20), st.integers(0, 20), st.integers(0, 2**32))
def test_planning_an_instant_leaves_the_state_as_it_was(
    problem: Problem, steps: int, seed: int
) -> None:
    """And the choices are those that are made in a copy, whatever is evicted or queued for them."""
    simulator = somewhere(certain(problem), steps, seed)
    p = simulator.compiled.arrays
    before, after, scratch = simulator.state.copy(), simulator.state.copy(), simulator.state.copy()
    planned, copied = (
        new_placements(p.stages.size, p.max_shards, p.devices.size) for _ in range(2)
    )
    for order, rule, lazy in product((FCFS, UPWARD_RANK, MIN_MIN), (STATE, STRICT), (1, 0)):
        rules = Rules(order, rule, lazy, p.max_shards)
        if lazy or rule == STRICT:
            count = plan_instant(p, after, NO_LOG, rules, planned, scratch)
            assert kept(after, before)
            assert count == decide_instant(p, before.copy(), NO_LOG, rules, copied)
            for name in ("rows", "devices", "counts"):
                mine, other = getattr(planned, name), getattr(copied, name)
                np.testing.assert_array_equal(mine[:count], other[:count])


def kept(after: StateArrays, before: StateArrays) -> bool:
    """Whether two states are equal, apart from links of entries that are in no list."""
    linked = after.copy()
    unused = np.ones(after.older.size, bool)
    for device in before.devices:
        entry = device["oldest"]
        while entry >= 0:
            unused[entry] = False
            entry = before.newer[entry]
    linked.older[unused], linked.newer[unused] = before.older[unused], before.newer[unused]
    return bool((linked.buffer == before.buffer).all())


# --- shards -----------------------------------------------------------------------------------


def batch(queries: int, output: int) -> Problem:
    devices = tuple(Device(id=f"d{i}", gpu="A10G") for i in range(3))
    stage = Stage(
        id="s", model="Qwen2.5-7B", queries=queries, prompt_tokens=200, output_tokens=output
    )
    workflow = Workflow(id="w", stages=(stage,))
    return Problem.build(
        Cluster(id="c", devices=devices), [workflow], options=Options(max_shards=3)
    )


def test_a_large_stage_is_split_and_ends_earlier() -> None:
    problem = batch(600, 400)
    one = Simulator(problem).run(scheduler("fcfs"))
    split = Simulator(problem).run(scheduler("fcfs", shards=3))
    assert len(one.shards) == 1
    assert split.shards["queries"].tolist() == [200, 200, 200]
    assert split.makespan < one.makespan


def test_one_query_is_not_split() -> None:
    assert len(Simulator(batch(1, 400)).run(scheduler("fcfs", shards=3)).shards) == 1


def test_a_stage_is_not_split_when_loading_the_model_takes_longer() -> None:
    problem = batch(4, 20)
    (workflow,) = problem.workflows
    (stage,) = workflow.stages
    later = stage.model_copy(update={"id": "later"})
    chain = Workflow(id="w", stages=(stage, later), edges=(Edge(parent="s", child="later"),))
    simulator = Simulator(Problem.build(problem.cluster, [chain], options=problem.options))
    # The model is on the first device only.
    simulator.place(0, (0,))
    simulator.wait()
    policy = scheduler("fcfs", shards=3)
    policy.reset(simulator.view(), 0)
    assert list(policy.decide(simulator.view())) == [Assignment(1, (0,))]


def test_shards_are_bounded_by_the_scheduler_and_by_the_problem() -> None:
    problem = batch(600, 400)
    assert len(Simulator(problem).run(scheduler("fcfs", shards=2)).shards) == 2
    narrow = problem.model_copy(update={"options": Options(max_shards=2)})
    assert len(Simulator(narrow).run(scheduler("fcfs", shards=16)).shards) == 2


@settings(max_examples=40)
@given(problems(kind="llm"))
def test_a_choice_with_shards_is_never_later_than_the_best_device(problem: Problem) -> None:
    """And its expected end is the end that comes out."""
    simulator = Simulator(certain(problem))
    if not simulator.ready:
        return
    policy = scheduler("fcfs", shards=4)
    policy.reset(simulator.view(), 0)
    first = policy.decide(simulator.view())[0]
    alone = simulator.view().end_estimates(first.stage)
    simulator.place(first.stage, first.devices, first.counts)
    while simulator.compiled.arrays.stages["kind"][first.stage] == 0:
        end = simulator.trace().stage_end[first.stage]
        if end > 0.0 or simulator.done:
            break
        if simulator.ready:
            other = simulator.ready[0]
            simulator.place(other, (int(simulator.view().end_estimates(other).argmin()),))
        else:
            simulator.wait()
    end = simulator.trace().stage_end[first.stage]
    if len(first.devices) == 1:
        assert end == pytest.approx(alone.min(), rel=1e-12)
    else:
        assert end < alone.min()


# --- HEFT with insertion ----------------------------------------------------------------------


def gap() -> Problem:
    """On p, ``child`` waits until 10 for its input; ``a`` and ``b`` fit in before."""
    return Problem.classical(
        {"a": {"p": 6.0}, "parent": {"q": 1.0}, "child": {"p": 5.0}, "b": {"p": 4.0}},
        {("parent", "child"): 9.0},
    )


def heft_plan(compiled: CompiledProblem, available: np.ndarray, now: float) -> OfflinePlan:
    ranks = compiled.arrays.stages["upward_rank"].copy()
    return plan_workflow(compiled.arrays, 0, ranks, NO_PENALTY, available=available, now=now)


def test_insertion_uses_gaps() -> None:
    compiled = compile_problem(gap())
    plan = heft_plan(compiled, np.zeros(2), 0.0)
    # By rank: parent (15), a (6), child (5), b (4); b fills what is left to the second.
    assert plan.sequence.tolist() == [1, 0, 2, 3]
    assert plan.start.tolist() == [0.0, 0.0, 10.0, 6.0]
    assert plan.end.tolist() == [6.0, 1.0, 15.0, 10.0]
    assert plan.device.tolist() == [0, 1, 0, 0]


def test_the_plan_is_carried_out_in_its_order() -> None:
    trace = Simulator(gap()).run(OfflineScheduler(name="heft_offline"))
    mine = trace.shards[trace.shards["device"] == 0]
    assert mine["stage"].tolist() == [0, 3, 2]
    assert trace.makespan == 15.0


def test_a_plan_begins_when_devices_are_free() -> None:
    compiled = compile_problem(Problem.classical({"a": {"p": 4.0, "q": 5.0}}, {}))
    plan = heft_plan(compiled, np.array([3.0, 1.0]), 2.0)
    assert (plan.device[0], plan.start[0], plan.end[0]) == (0, 3.0, 7.0)
    plan = heft_plan(compiled, np.array([3.0, 1.0]), 4.0)
    assert (plan.device[0], plan.start[0], plan.end[0]) == (0, 4.0, 8.0)


@settings(max_examples=40)
@given(problems(kind="classical"))
def test_classical_problems_run_as_planned(problem: Problem) -> None:
    compiled = compile_problem(problem)
    plan = heft_plan(compiled, np.zeros(len(compiled.device_ids)), 0.0)
    trace = Simulator(compiled).run(make_policy("heft_offline"))
    assert trace.stage_end == pytest.approx(plan.end, rel=1e-9, abs=1e-9)


def test_a_later_workflow_is_planned_behind_the_first() -> None:
    row = {"p": 4.0, "q": 9.0}
    first = Problem.classical({"a": row, "b": row}, {})
    (workflow,) = first.workflows
    second = workflow.model_copy(update={"id": "second", "arrival": 1.0})
    problem = first.model_copy(update={"workflows": (workflow, second)})
    trace = Simulator(problem).run(OfflineScheduler(name="heft_offline"))
    # At 0: a on p until 4, b on p until 8 rather than on q until 9. At 1: a on q until 10 rather
    # than on p until 12, b on p until 12.
    by_stage = trace.shards[np.argsort(trace.shards["stage"])]
    assert by_stage["device"].tolist() == [0, 0, 1, 0]
    assert by_stage["end"].tolist() == [4.0, 8.0, 10.0, 12.0]
