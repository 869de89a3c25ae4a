"""No policy reads what its file does not declare: by a record of its calls, and if blinded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import (
    Assignment,
    CompiledProblem,
    Decision,
    DecisionView,
    Policy,
    Simulator,
    compile_problem,
)
from fate_gym.sim.groups import ALL, ARRAYS, GROUPS, expand
from fate_gym.sim.visibility import RecordingView, blind
from policies import build_policy, make_policy, policy_names, policy_specs

LIMITED = [name for name, spec in policy_specs().items() if ALL not in spec.sees]


class Watched:
    """A policy whose view records calls, or hides what the policy may not see."""

    def __init__(
        self, policy: Policy, sees: Sequence[str] | None = None, *, from_the_start: bool = True
    ) -> None:
        self.name = policy.name
        self._policy, self._sees, self._from_the_start = policy, sees, from_the_start
        self.seen: set[str] = set()

    def reset(self, view: DecisionView, seed: int) -> None:
        self._policy.reset(self._through(view) if self._from_the_start else view, seed)

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        return self._policy.decide(self._through(view))

    def _through(self, view: DecisionView) -> DecisionView:
        if self._sees is not None:
            return blind(view, self._sees)
        recording: Any = RecordingView(view, self.seen)
        return recording


def stage(id: str, model: str, queries: int = 1, group: str | None = None, **change: int) -> Stage:
    given = {"prompt_tokens": 300, "output_tokens": 40} | change
    return Stage(
        id=id,
        model=model,
        queries=queries,
        prefix_group=group,
        prefix_tokens=3000 if group else 0,
        **given,
    )


def workflow(number: int, arrival: float) -> Workflow:
    """Return a fan-out with two models, shared prefixes, inherited contexts, a tool, and a join."""
    small, large = "Phi-3-mini", "Llama-3.1-8B"
    stages = (
        stage("root", large, group="g"),
        *(stage(f"a{i}", small if i % 2 else large, 4 + 8 * i, "g") for i in range(4)),
        Stage(id="tool", tool_seconds=1.5),
        *(stage(f"b{i}", large, 2, "h", prompt_tokens=2500) for i in range(3)),
        stage("join", large, group="g", prompt_tokens=800),
    )
    edges = (
        *(Edge(parent="root", child=f"a{i}", bytes=3e9, inherited_tokens=200) for i in range(4)),
        Edge(parent="root", child="tool", bytes=1e6),
        *(Edge(parent=f"a{i}", child=f"b{i}", bytes=2e9, inherited_tokens=100) for i in range(3)),
        Edge(parent="tool", child="b0", bytes=1e6),
        *(Edge(parent=f"b{i}", child="join", bytes=1e9, inherited_tokens=300) for i in range(3)),
        Edge(parent="a3", child="join", bytes=1e9),
    )
    return Workflow(id=f"w{number}", stages=stages, edges=edges, arrival=arrival)


def crowded(*, uncertainty: float = 0.0) -> Problem:
    """Return four workflows that arrive over time at unequal devices with little memory."""
    devices = tuple(
        Device(id=f"d{i}", gpu=gpu, node=f"n{i // 2}")
        for i, gpu in enumerate(("A10G", "L40S", "A10G", "A100-80"))
    )
    cluster = Cluster(id="unequal", devices=devices, network_gb_s=2.0)
    arrivals = (0.0, 0.0, 9.0, 40.0)
    return Problem.build(
        cluster,
        [workflow(i, arrival) for i, arrival in enumerate(arrivals)],
        options=Options(uncertainty=uncertainty),
    )


def batching(problem: Problem) -> Problem:
    cluster = problem.cluster.model_copy(update={"execution": "batching", "max_sequences": 24})
    return problem.model_copy(update={"cluster": cluster})


PROBLEMS = [
    compile_problem(problem)
    for uncertainty in (0.0, 0.3)
    for exclusive in (crowded(uncertainty=uncertainty),)
    for problem in (exclusive, batching(exclusive))
]


@pytest.mark.parametrize("name", LIMITED)
def test_policies_read_what_they_declare(name: str) -> None:
    """Accessors that are called belong to the declared groups, and each of these is needed."""
    sees = policy_specs()[name].sees
    seen: set[str] = set()
    for problem in PROBLEMS:
        watched = Watched(make_policy(name))
        Simulator(problem).run(watched)
        seen |= watched.seen
    assert seen - {ARRAYS} <= expand(sees)
    if ARRAYS not in seen:
        assert set(sees) <= seen


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
@pytest.mark.parametrize("name", LIMITED)
def test_policies_decide_the_same_without_what_they_may_not_see(name: str, execution: str) -> None:
    for problem in PROBLEMS[execution == "batching" :: 2]:
        simulator = Simulator(problem)
        open_eyed = simulator.run(make_policy(name), seed=3)
        blindfolded = simulator.run(Watched(make_policy(name), policy_specs()[name].sees), seed=3)
        assert open_eyed.same_schedule(blindfolded)


def test_only_planners_see_everything() -> None:
    assert {policy_specs()[name].family for name in set(policy_names()) - set(LIMITED)} <= {
        "fate",
        "learned",
        "reference",
    }


# --- the tests can fail -----------------------------------------------------------------------


class Spy:
    """Places everything on the device that minimises an expression."""

    name = "spy"

    def __init__(self, value: Any) -> None:
        self._value = value

    def reset(self, view: DecisionView, seed: int) -> None:
        pass

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        stage = view.ready[0]
        eligible = view.eligible(stage)
        values = np.asarray(self._value(view, stage), np.float64)[eligible]
        return [Assignment(stage, (int(eligible[values.argmin()]),))]


SPIES = {
    "queues": lambda view, _: view.outstanding(),
    "drains": lambda view, _: view.drain_estimates(),
    "residency": lambda view, stage: view.resident(stage),
    "prefixes": lambda view, stage: view.cached_prefix_tokens(stage),
    "contexts": lambda view, stage: view.cached_context_tokens(stage),
    "memory": lambda view, _: -view.free_bytes(),
    "costs": lambda view, stage: view.clean_seconds(stage),
    "places": lambda view, stage: view.local_bytes(stage),
    "links": lambda view, stage: -view.prefix_transfer_seconds(stage, 0, np.full(4, 1000)),
    "estimates": lambda view, stage: view.end_estimates(stage),
    "progress": lambda view, stage: [
        -sum(view.service_seconds(parent) for parent in view.parents(stage)) * (d % 2)
        for d in range(view.devices)
    ],
    "dag": lambda view, stage: (
        np.arange(view.devices) * (-1.0) ** view.compiled.arrays.stages["children_to"][stage]
    ),
}


@pytest.mark.parametrize("problem", PROBLEMS[:2], ids=["exclusive", "batching"])
@pytest.mark.parametrize("group", GROUPS)
def test_a_spy_is_caught(group: str, problem: CompiledProblem) -> None:
    """One that may see all but this group, and looks at it."""
    batches = bool(problem.arrays.batching)
    allowed = [other for other in GROUPS if group not in expand([other], batching=batches)]
    if group == "estimates":  # its parts would do
        allowed = []
    simulator = Simulator(problem)
    watched = Watched(Spy(SPIES[group]))
    open_eyed = simulator.run(watched)
    assert group in watched.seen or ARRAYS in watched.seen
    assert not open_eyed.same_schedule(simulator.run(Watched(Spy(SPIES[group]), allowed)))


def test_nobody_sees_what_has_not_arrived() -> None:
    """A view that hides nothing still hides the future: a spy on it is caught."""
    simulator = Simulator(PROBLEMS[0])
    spy = Spy(
        lambda view, _: (
            np.arange(view.devices)
            * (-1.0) ** (view.compiled.arrays.workflows["arrival"] < 1e9).sum()
        )
    )
    open_eyed = simulator.run(spy)
    assert not open_eyed.same_schedule(simulator.run(Watched(spy, [ALL])))


def conversations(*, uncertainty: float = 0.0) -> Problem:
    """Return the crowd with turns that follow one another, whose arrivals depend on the run."""
    first, second, third, fourth = crowded(uncertainty=uncertainty).workflows
    follow = {"arrival": 0.0, "session": "s"}
    flows = (
        first,
        second.model_copy(update=follow | {"follows": first.id, "think_seconds": 2.0}),
        third,
        fourth.model_copy(update=follow | {"follows": second.id}),
    )
    return crowded(uncertainty=uncertainty).model_copy(update={"workflows": flows})


TURNS = [
    compile_problem(problem)
    for exclusive in (conversations(), conversations(uncertainty=0.3))
    for problem in (exclusive, batching(exclusive))
]


@pytest.mark.parametrize("name", LIMITED)
def test_turns_to_come_change_no_decision(name: str) -> None:
    for problem in TURNS:
        simulator = Simulator(problem)
        open_eyed = simulator.run(make_policy(name), seed=3)
        blindfolded = simulator.run(Watched(make_policy(name), policy_specs()[name].sees), seed=3)
        assert open_eyed.same_schedule(blindfolded)


ON_TURNS = {
    "followers": lambda view: view.compiled.arrays.workflows["followers_to"].sum(),
    "sessions": lambda view: (view.compiled.arrays.workflows["session"] > 0).sum(),
    "turns": lambda view: view.compiled.arrays.workflows["turn"].sum(),
    "thoughts": lambda view: (view.compiled.arrays.workflows["think_s"] > 0).sum(),
    "arrivals": lambda view: np.isfinite(view.compiled.arrays.workflows["arrival"]).sum(),
}
"""Accessors that reveal turns that have not arrived."""


@pytest.mark.parametrize("problem", TURNS[:2], ids=["exclusive", "batching"])
@pytest.mark.parametrize("name", ON_TURNS)
def test_a_spy_on_turns_to_come_is_caught(name: str, problem: CompiledProblem) -> None:
    spy = Spy(lambda view, _: np.arange(view.devices) * (-1.0) ** ON_TURNS[name](view))
    simulator = Simulator(problem)
    open_eyed = simulator.run(spy)
    assert not open_eyed.same_schedule(simulator.run(Watched(spy, [ALL])))


PLANNERS = [
    # References are given the whole problem: that is what makes them references.
    name
    for name, spec in policy_specs().items()
    if ALL in spec.sees and spec.family != "reference"
]


@pytest.mark.parametrize("name", PLANNERS)
def test_planners_do_not_see_the_future_either(name: str) -> None:
    """Their decisions, that is: they make tables of all stages when a run begins."""
    for problem in (PROBLEMS[0], TURNS[0]):
        simulator = Simulator(problem)
        open_eyed = simulator.run(make_policy(name))
        watched = Watched(make_policy(name), [ALL], from_the_start=False)
        assert open_eyed.same_schedule(simulator.run(watched))


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'drains'"):
        build_policy(policy_specs()["eft"].model_dump() | {"sees": ["drain"]})
