"""Requirements on every registered policy, and the registry."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.metrics.bounds import problem_bounds
from fate_gym.problem import Cluster, Failures, Problem
from fate_gym.sim import Policy, Simulator, Trace, compile_problem
from fate_gym.validator import assert_valid
from policies import build_policy, make_policy, policy_names, policy_specs
from policies.list_scheduling.policy import ListScheduler, Order
from tests.kernel.batching.test_engine import batching
from tests.policies.instances import SMALL
from tests.strategies import Kind, problems, untied

SEEDS = st.integers(0, 2**32)
INSTANT = 1e-9
"""Rounding of absolute times, seconds: a latency may be too short by this much."""
every_policy = pytest.mark.parametrize("name", policy_names())


@every_policy
@pytest.mark.parametrize("kind", ["mixed", "pressure", "classical"])
@settings(max_examples=6)
@given(data=st.data(), seed=SEEDS)
def test_runs_are_valid_and_repeat(name: str, kind: Kind, data: st.DataObject, seed: int) -> None:
    """Complete, valid, the same again by the same object after another run, and by a new one."""
    problem = data.draw(problems(kind))
    if name == "oracle_cpsat":
        problem = untied(problem)
    other = untied(data.draw(problems(kind, most=5)))
    policy = make_policy(name, **SMALL.get(name, {}))
    assert isinstance(policy, Policy)
    assert policy.name == name
    simulator = Simulator(problem)
    first = simulator.run(policy, seed=seed)
    assert simulator.done
    assert_valid(first)
    assert_bounded(first)
    assert first.policy == name
    Simulator(other).run(policy, seed=seed)
    again = simulator.run(policy, seed=seed)
    assert first.same_schedule(again)
    assert _counted(first) == _counted(again)
    fresh = make_policy(name, **SMALL.get(name, {}))
    assert first.same_schedule(Simulator(problem).run(fresh, seed=seed))


@pytest.mark.parametrize("name", [name for name in policy_names() if name != "oracle_cpsat"])
@settings(max_examples=4)
@given(problem=problems(most=8), seed=SEEDS)
def test_runs_on_batching_devices_are_valid_and_repeat(
    name: str, problem: Problem, seed: int
) -> None:
    tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
    assume(tokens <= 6000)  # the validator makes each of them
    simulator = Simulator(batching(problem))
    policy = make_policy(name, **SMALL.get(name, {}))
    first = simulator.run(policy, seed=seed)
    assert_valid(first)
    assert_bounded(first)
    assert first.same_schedule(simulator.run(policy, seed=seed))


def assert_bounded(trace: Trace) -> None:
    """Check that a run does not beat the lower bounds, which are NaN where none hold."""
    bounds = problem_bounds(compile_problem(trace.problem), trace.stage_vanished)
    assert not trace.makespan < bounds.makespan * (1 - 1e-9) - INSTANT
    assert not (trace.latencies < bounds.latency * (1 - 1e-9) - INSTANT).any()


def _counted(trace: Trace) -> dict[str, float]:
    return {key: value for key, value in trace.counters.items() if not key.endswith("seconds")}


@every_policy
@settings(max_examples=3)
@given(problem=problems(kind="llm", most=6))
def test_one_device_is_enough(name: str, problem: Problem) -> None:
    """Every stage queues on the largest device."""
    largest = max(problem.cluster.devices, key=lambda device: problem.memory_limits[device.id])
    cluster = Cluster(
        id="one", devices=(largest,), memory_utilisation=problem.cluster.memory_utilisation
    )
    if name == "oracle_cpsat":
        problem = untied(problem)
    workflows = [
        workflow.model_copy(
            update={
                "stages": tuple(
                    stage.model_copy(update={"allowed_devices": None}) for stage in workflow.stages
                )
            }
        )
        for workflow in problem.workflows
    ]
    options = problem.options
    if options.failures and options.failures.outages:
        outages = tuple(o for o in options.failures.outages if o.device == largest.id)
        failures = Failures(outages=outages) if outages else None
        options = options.model_copy(update={"failures": failures})
    alone = Problem.build(cluster, workflows, options=options, models=problem.models)
    assert_valid(Simulator(alone).run(make_policy(name, **SMALL.get(name, {}))))


def test_only_the_random_policies_heed_their_seed() -> None:
    """Without noise nothing else may depend on the seed."""
    seconds = {f"t{i}": {f"m{j}": float(i + j + 1) for j in range(4)} for i in range(8)}
    simulator = Simulator(Problem.classical(seconds, {}))
    differ = {
        name
        for name in policy_names()
        if not simulator.run(make_policy(name), seed=0).same_schedule(
            simulator.run(make_policy(name), seed=1)
        )
    }
    assert differ == {"random", "power_of_two"}


@settings(max_examples=25)
@given(problems(), SEEDS, st.booleans())
def test_play_gives_the_schedule_of_run(problem: Problem, seed: int, batch: bool) -> None:
    """Bit for bit, for every list scheduler that can be made."""
    compiled = compile_problem(batching(problem) if batch else problem)
    asked, played = Simulator(compiled), Simulator(compiled)
    plain: tuple[Order, ...] = ("fcfs", "upward_rank", "min_min", "fdws", "rank_hybd")
    makers: list[dict[str, Any]] = [
        {"order": order, "max_shards": shards} for order, shards in product(plain, (1, 4))
    ]
    makers += [{"order": order} for order in ("max_min", "sufferage", "dynamic_level")]
    makers += [
        {"order": "path_through", "device": "critical_path"},
        {"order": "optimistic_cost", "device": "optimistic_cost"},
        {"order": "upward_rank", "device": "look_ahead"},
    ]
    for made, boosted, lazy in product(makers, (True, False), (True, False)):
        policy = ListScheduler(name="any", boosted=boosted, lazy=lazy, **made)
        trace = asked.run(policy, seed=seed)
        played.reset(seed)
        last = policy.play(played)
        case = (made, boosted, lazy)
        assert played.done, case
        assert last == played.trace().workflow_end.max(), case
        assert trace.same_schedule(played.trace()), case


# --- the registry -----------------------------------------------------------------------------


def test_every_file_says_what_the_policy_is() -> None:
    specs = policy_specs()
    assert list(specs) == sorted(specs)
    for name, spec in specs.items():
        assert spec.name == name
        assert spec.source.strip()
        assert spec.family.strip()


def test_the_reference_of_all_results_is_registered() -> None:
    assert "round_robin" in policy_names()


def test_parameters_replace_those_of_the_file() -> None:
    """A sharded HEFT restricted to one device each is HEFT without shards."""
    problem = compile_problem(
        Problem.classical({f"t{i}": {"a": 1.0 + i, "b": 2.0} for i in range(5)}, {})
    )
    narrowed = Simulator(problem).run(make_policy("heft_sharded", max_shards=1))
    assert narrowed.policy == "heft_sharded"
    assert narrowed.same_schedule(Simulator(problem).run(make_policy("heft_boosted")))


def test_unknown_policy() -> None:
    with pytest.raises(InputError, match=r"'round_robbin'.*did you mean 'round_robin'"):
        make_policy("round_robbin")


def test_unknown_parameter() -> None:
    with pytest.raises(InputError, match="did you mean 'max_shards'") as raised:
        make_policy("heft_sharded", max_shard=2)
    assert (raised.value.item, raised.value.field) == ("policy 'heft_sharded'", "params.max_shard")
    with pytest.raises(InputError, match="takes no parameters"):
        make_policy("round_robin", turn=1)
    # The name is the registry's business.
    with pytest.raises(InputError, match="unknown parameter 'name'"):
        build_policy(_spec(params={"name": "mine"}))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"target": "policies.heuristics:NoSuchClass"}, "target"),
        ({"target": "policies.no_such_module:Random"}, "target"),
        ({"target": "policies.heuristics"}, "target"),
        ({"source": None}, "source"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_faults_of_a_policy_file(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as raised:
        build_policy(_spec(**change))
    assert raised.value.field == field
    assert raised.value.remedy


def test_a_policy_of_ones_own() -> None:
    policy = build_policy(_spec(name="mine", params={"order": "fcfs"}))
    assert policy.name == "mine"
    problem = Problem.classical({"t": {"a": 2.0, "b": 1.0}}, {})
    assert np.array_equal(Simulator(problem).run(policy).stage_end, [1.0])


def _spec(**change: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "target": "policies.list_scheduling.policy:ListScheduler",
        "family": "list scheduling",
        "source": "this test",
        "params": {"order": "fcfs"},
    } | change
