"""The oracle against exhaustive search, and its bound against every policy."""

from __future__ import annotations

from itertools import permutations, product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.references.oracle_cpsat import TICK
from tests.policies.fate.test_policy import alone
from tests.policies.instances import TOPCUOGLU
from tests.strategies import Kind, problems


def unsharded(problem: Problem) -> Problem:
    problem = alone(problem)
    options = problem.options.model_copy(update={"max_shards": 1})
    return problem.model_copy(update={"options": options})


def exhaustive(problem: Problem) -> float:
    """Compute the least makespan over all assignments and all orders of commits."""
    simulator = Simulator(problem)
    compiled = simulator.compiled
    stages = [s for s in range(len(compiled.stage_ids)) if compiled.tool_seconds[s] == 0]
    stages = [s for s in stages if (compiled.clean_seconds[s] < float("inf")).any()]
    hosts = [simulator.view().eligible(s).tolist() for s in stages]
    best = float("inf")
    for order in permutations(range(len(stages))):
        for chosen in product(*hosts):
            best = min(best, played(simulator, [(stages[i], chosen[i]) for i in order]))
    return best


def played(simulator: Simulator, wanted: list[tuple[int, int]]) -> float:
    """Compute the makespan if each device takes its stages in the given order; inf: a deadlock."""
    queues: dict[int, list[int]] = {}
    for stage, device in wanted:
        queues.setdefault(device, []).append(stage)
    simulator.reset()
    while not simulator.done:
        ready = set(simulator.ready)
        for device, queue in queues.items():
            while queue and queue[0] in ready:
                simulator.place(queue.pop(0), (device,))
        if not simulator.done:
            if not simulator.view().can_wait:
                return float("inf")
            simulator.wait()
    return float(simulator.trace().makespan)


@pytest.mark.parametrize("kind", ["llm", "classical", "mixed"])
@settings(max_examples=8)
@given(data=st.data())
def test_bound_and_schedule_enclose_the_optimum(kind: Kind, data: st.DataObject) -> None:
    problem = unsharded(data.draw(problems(kind, most=3)))
    assume(len(problem.cluster.devices) <= 3)
    trace = Simulator(problem).run(make_policy("oracle_cpsat"))
    assert_valid(trace)
    best = exhaustive(problem)
    slack = TICK * 10
    assert trace.counters["oracle_bound"] <= best + slack
    assert trace.makespan >= best - 1e-9
    if trace.counters["oracle_optimal"] and kind == "classical":
        # Nothing is left out of the model here: the schedule is as good as the bound.
        assert trace.makespan == pytest.approx(best, abs=slack)


@settings(max_examples=8)
@given(problems(most=6))
def test_no_policy_without_shards_is_below_the_bound(problem: Problem) -> None:
    problem = unsharded(problem)
    simulator = Simulator(problem)
    oracle = simulator.run(make_policy("oracle_cpsat"))
    assert_valid(oracle)
    for name in ("heft_boosted", "min_min", "fate"):
        least = simulator.run(make_policy(name)).makespan
        assert oracle.counters["oracle_bound"] <= least + 10 * TICK, name


def test_the_published_example() -> None:
    """HEFT's 80 is not the optimum of Topcuoglu's example; the oracle proves its own."""
    trace = Simulator(TOPCUOGLU.problem).run(make_policy("oracle_cpsat", limit=20.0))
    assert trace.counters["oracle_optimal"]
    assert trace.makespan == pytest.approx(trace.counters["oracle_bound"], abs=1e-2)
    assert trace.makespan < 80


def test_large_problems_are_refused() -> None:
    problem = Problem.classical({f"t{i}": {"m": 1.0} for i in range(50)}, {})
    with pytest.raises(InputError, match="50 stages"):
        Simulator(problem).run(make_policy("oracle_cpsat"))


def test_turns_are_refused() -> None:
    one = Problem.classical({"t": {"m": 1.0}}, {})
    first = one.workflows[0]
    second = first.model_copy(update={"id": "second", "follows": first.id})
    with pytest.raises(InputError, match="workflows follow others"):
        Simulator(one.model_copy(update={"workflows": (first, second)})).run(
            make_policy("oracle_cpsat")
        )


def test_batching_devices_are_refused() -> None:
    one = Problem.classical({"t": {"m": 1.0}}, {})
    cluster = one.cluster.model_copy(update={"execution": "batching"})
    with pytest.raises(InputError, match="these batch"):
        Simulator(one.model_copy(update={"cluster": cluster})).run(make_policy("oracle_cpsat"))
