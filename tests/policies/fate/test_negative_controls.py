"""Where a dimension of state costs nothing, seeing it gains nothing, on both kinds of devices.

Each control has a counterpart: where the dimension does cost something, the same pair of planners
decides differently. Otherwise a planner that ignores the dimension would pass, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator, Trace
from policies import make_policy, policy_specs
from tests.policies.fate.test_policy import REAL
from tests.policies.instances import SMALL as REFERENCES

Execution = Literal["exclusive", "batching"]
executions = pytest.mark.parametrize("execution", ["exclusive", "batching"])

SMALL, LARGE = "Llama-3.1-8B", "Llama-3.1-70B-AWQ"
ROLLOUT = {"first": 2_000, "steps": 300}
"""A search budget for tests."""


def with_cluster(problem: Problem, **changes: Any) -> Problem:
    return problem.model_copy(update={"cluster": problem.cluster.model_copy(update=changes)})


def with_parts(
    problem: Problem,
    stage: Callable[[Stage], dict[str, Any]] = lambda _: {},
    edge: Callable[[Edge], dict[str, Any]] = lambda _: {},
) -> Problem:
    """Return the problem with these changes to every stage and edge."""
    workflows = tuple(
        workflow.model_copy(
            update={
                "stages": tuple(one.model_copy(update=stage(one)) for one in workflow.stages),
                "edges": tuple(one.model_copy(update=edge(one)) for one in workflow.edges),
            }
        )
        for workflow in problem.workflows
    )
    return problem.model_copy(update={"workflows": workflows})


# --- dimensions of state --------------------------------------------------------------------------


def free_loads(problem: Problem) -> Problem:
    """Make loading so fast that its seconds are exactly 0."""
    devices = tuple(
        device.model_copy(update={"load_gb_s": None}) for device in problem.cluster.devices
    )
    return with_cluster(problem, load_init_s=0.0, load_gb_s=1e300, devices=devices)


def large_outputs(problem: Problem) -> Problem:
    return with_parts(problem, edge=lambda _: {"bytes": 5e9})


def nothing_passed_on(problem: Problem) -> Problem:
    """Remove the bytes of all edges, and inherited contexts."""
    return with_parts(problem, edge=lambda _: {"bytes": 0.0, "inherited_tokens": 0})


def without_prefixes(problem: Problem) -> Problem:
    """Make shared prefixes a part of each query's own prompt."""

    def merged(stage: Stage) -> dict[str, Any]:
        tokens = stage.prompt_tokens + stage.prefix_tokens
        return {"prompt_tokens": tokens, "prefix_tokens": 0, "prefix_group": None}

    return with_parts(problem, merged)


def nothing_cached(problem: Problem) -> Problem:
    """Remove prefixes and inherited contexts, for which the score has one weight."""
    return with_parts(without_prefixes(problem), edge=lambda _: {"inherited_tokens": 0})


def shared_prefix() -> Problem:
    """Return a stage that can run on three equal devices, and a child that can run on two of them.

    Both have the same long prefix, and nothing else is against the first device: two devices of
    three are not scarce.
    """
    prefix: dict[str, Any] = {"prefix_group": "g", "prefix_tokens": 8000, "prompt_tokens": 100}
    stages = (
        Stage(id="a", model=SMALL, output_tokens=20, **prefix),
        Stage(id="b", model=SMALL, output_tokens=20, allowed_devices=("d1", "d2"), **prefix),
    )
    devices = tuple(Device(id=f"d{i}", gpu="A100-80") for i in range(3))
    workflow = Workflow(id="w", stages=stages, edges=(Edge(parent="a", child="b"),))
    problem = Problem.build(Cluster(id="three", devices=devices), [workflow])
    return free_loads(problem)


def own_prefixes(problem: Problem) -> Problem:
    """Give every stage its own prefix, shared only by its queries."""
    number = itertools.count()
    return with_parts(
        problem, lambda stage: {"prefix_group": stage.prefix_group and f"own{next(number)}"}
    )


def all_hosts(problem: Problem) -> Problem:
    """Make all devices of one type, large enough for everything."""
    devices = tuple(
        device.model_copy(update={"gpu": "H200-SXM"}) for device in problem.cluster.devices
    )
    return with_parts(with_cluster(problem, devices=devices), lambda _: {"allowed_devices": None})


def narrow(output: int, large_output: int, queries: int = 4) -> Problem:
    """Return small stages that can run anywhere, and two large children that one device can host.

    With many queries few of them share a batch.
    """
    shape: dict[str, Any] = {"queries": queries, "prompt_tokens": 400}
    small = [Stage(id=f"s{i}", model=SMALL, output_tokens=output, **shape) for i in range(6)]
    large = [Stage(id=f"l{i}", model=LARGE, output_tokens=large_output, **shape) for i in (0, 1)]
    edges = tuple(Edge(parent=f"s{i}", child=f"l{i}") for i in (0, 1))
    devices = tuple(
        Device(id=f"d{i}", gpu=gpu, node=f"n{i}")
        for i, gpu in enumerate(("A100-80", "A10G", "A10G"))
    )
    return Problem.build(
        Cluster(id="narrow", devices=devices, network_gb_s=1.0),
        [Workflow(id="w", stages=(*small, *large), edges=edges)],
        options=Options(max_shards=1),
    )


@dataclass(frozen=True)
class Control:
    """Problems in which a dimension has a cost, and a function that removes the cost."""

    dimension: str
    problems: tuple[Problem, ...]
    free: Callable[[Problem], Problem]


CONTROLS = {
    "residency": Control("residency", tuple(REAL), free_loads),
    "locality": Control("locality", tuple(map(large_outputs, REAL)), nothing_passed_on),
    "prefix": Control("prefix", (*REAL, shared_prefix()), nothing_cached),
    "reachability": Control(
        "reachability",
        (narrow(400, 100), narrow(100, 400), narrow(600, 300), narrow(800, 50, 64)),
        all_hosts,
    ),
}


@dataclass(frozen=True)
class Planner:
    """A planner, and the parameters that make it blind to a dimension."""

    name: str
    params: dict[str, Any]
    blind: Callable[[str], dict[str, Any]]

    def run(self, problem: Problem, blind_to: str | None = None) -> Trace:
        params = self.params | (self.blind(blind_to) if blind_to else {})
        return Simulator(problem).run(make_policy(self.name, **params))

    def cares(self, dimension: str, problem: Problem) -> bool:
        """Return whether the schedule changes when the planner is blind to the dimension."""
        return not self.run(problem).same_schedule(self.run(problem, dimension))


PLANNERS = {
    "fate": Planner("fate", {}, lambda dimension: {"ignore": [dimension]}),
    # Without the guard: it takes a base's plan where the score's is not better.
    "fate's score": Planner("fate", {"guard": False}, lambda dimension: {dimension: 0.0}),
    "rollout": Planner("fate_rollout", ROLLOUT, lambda dimension: {"ignore": [dimension]}),
}

planners = pytest.mark.parametrize("planner", PLANNERS)
controls = pytest.mark.parametrize("control", CONTROLS)


@executions
@planners
@controls
def test_what_costs_nothing_is_worth_nothing(
    control: str, planner: str, execution: Execution
) -> None:
    """The planner that does not see it makes the same schedule, bit for bit."""
    one = CONTROLS[control]
    for problem in one.problems:
        free = with_cluster(one.free(problem), execution=execution)
        assert not PLANNERS[planner].cares(one.dimension, free), problem.workflows[0].id


@executions
@planners
@controls
def test_what_costs_something_is_seen(control: str, planner: str, execution: Execution) -> None:
    """On some of the problems of which the control is made."""
    one = CONTROLS[control]
    problems = (with_cluster(problem, execution=execution) for problem in one.problems)
    assert any(PLANNERS[planner].cares(one.dimension, problem) for problem in problems)


@executions
def test_contexts_are_no_prefixes(execution: Execution) -> None:
    """A rollout that ignores prefixes still sees what contexts are cached. (The score does not.)"""
    for problem in REAL:
        plain = with_cluster(without_prefixes(problem), execution=execution)
        assert not PLANNERS["rollout"].cares("prefix", plain)


@executions
def test_a_prefix_that_nobody_else_has_is_worth_nothing_to_the_score(execution: Execution) -> None:
    """No descendant finds it cached.

    Of the score only: a planner that ignores prefixes counts them as tokens of each query's prompt,
    and so does not know that the queries of one stage compute theirs once.
    """
    for problem in REAL:
        own = with_parts(own_prefixes(problem), edge=lambda _: {"inherited_tokens": 0})
        alone = with_cluster(own, execution=execution)
        assert not PLANNERS["fate's score"].cares("prefix", alone)


@executions
@pytest.mark.parametrize("planner", ["fate", "rollout"])
def test_a_planner_goes_where_the_prefix_will_be_needed(planner: str, execution: Execution) -> None:
    """The first stage takes the device of the second, which then computes no prefix."""
    problem = with_cluster(shared_prefix(), execution=execution)
    assert PLANNERS[planner].run(problem).shards["device"].tolist() == [1, 1]
    free = with_cluster(nothing_cached(shared_prefix()), execution=execution)
    assert PLANNERS[planner].run(free).shards["device"].tolist() == [0, 1]


# --- one device -----------------------------------------------------------------------------------

EVERY = [name for name in policy_specs() if name not in (*REFERENCES, "learned")]
"""All policies but searches that know the future and those that need a checkpoint."""
IN_ORDER = [name for name, spec in policy_specs().items() if spec.family == "heuristic"]
"""Policies that choose only devices, and take stages in the order in which they become ready."""


def run(problem: Problem, name: str) -> Trace:
    budget = ROLLOUT if name.startswith("fate_rollout") else {}
    return Simulator(problem).run(make_policy(name, **budget))


def one_device(execution: Execution, workflow: Workflow) -> Problem:
    """Return the workflow on one device with room for everything, all stages of one model."""
    cluster = Cluster(id="one", devices=(Device(id="d", gpu="H200-SXM"),), execution=execution)
    model = {"model": SMALL, "allowed_devices": None, "tool_seconds": None}

    def served(stage: Stage) -> dict[str, Any]:
        return model | ({"prompt_tokens": 300, "output_tokens": 30} if stage.model is None else {})

    return with_parts(Problem(cluster=cluster, workflows=(workflow,)), served)


def fork_and_join(execution: Execution, width: int = 8) -> Problem:
    """Return a root, identical stages, and a stage that waits for all of them."""
    shape: dict[str, Any] = {"model": SMALL, "queries": 3, "prompt_tokens": 900}
    names = [f"s{i}" for i in range(width)]
    stages = [Stage(id=name, output_tokens=120, **shape) for name in ("root", *names, "join")]
    edges = [Edge(parent="root", child=name, bytes=1e6) for name in names]
    edges += [Edge(parent=name, child="join", inherited_tokens=120) for name in names]
    return one_device(execution, Workflow(id="w", stages=tuple(stages), edges=tuple(edges)))


@executions
@pytest.mark.parametrize("problem", REAL, ids=lambda problem: problem.workflows[0].id)
def test_with_one_device_there_is_nothing_to_place(problem: Problem, execution: Execution) -> None:
    """Policies that take stages as they come do the same, bit for bit: prefixes, contexts and all.

    Holds on both kinds of devices, since the order is the same. What a policy gains on several
    devices it gains by where it places.
    """
    alone = one_device(execution, problem.workflows[0])
    assert len(IN_ORDER) >= 8
    first, *others = [run(alone, name) for name in IN_ORDER]
    assert all(first.same_schedule(other) for other in others)


@pytest.mark.parametrize("name", EVERY)
def test_no_order_gains_anything_on_one_exclusive_device(name: str) -> None:
    """Whoever lets no device rest is done at the same time: the work is the same.

    Exactly so without shared prefixes. (Which stage computes one changes how many tokens it has
    beside those that need logits; that is a millionth of the makespan.)
    """
    for problem in REAL:
        plain = without_prefixes(one_device("exclusive", problem.workflows[0]))
        trace = run(plain, name)
        assert not trace.evictions.size
        assert trace.makespan == pytest.approx(run(plain, "round_robin").makespan, rel=1e-9)


@executions
@pytest.mark.parametrize("name", EVERY)
def test_no_order_gains_anything_among_stages_that_are_alike(
    name: str, execution: Execution
) -> None:
    """On a batching device order counts otherwise: who decodes beside whom follows from it."""
    problem = fork_and_join(execution)
    assert run(problem, name).makespan >= run(problem, "round_robin").makespan * (1 - 1e-9)


@executions
@pytest.mark.parametrize("name", EVERY)
def test_nobody_loses_anything_among_stages_that_are_alike(name: str, execution: Execution) -> None:
    """A policy that makes stages wait for one another gives away the batch."""
    problem = fork_and_join(execution)
    assert run(problem, name).makespan <= run(problem, "round_robin").makespan * (1 + 1e-9)
