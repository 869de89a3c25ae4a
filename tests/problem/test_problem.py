"""Problems as objects: the classical constructor, eligibility, order, copies."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable

import pytest
from hypothesis import given

from fate_gym import catalog
from fate_gym.catalog import Gpu, Model
from fate_gym.errors import InputError
from fate_gym.problem import (
    Cluster,
    Device,
    Edge,
    Problem,
    Stage,
    Workflow,
    topological_order,
)
from tests.strategies import clusters, problems, workflows

SECONDS = {"a": {"m0": 2.0, "m1": 3.0}, "b": {"m1": 1.0}}
EDGES = {("a", "b"): 5.0}


def test_classical_instance() -> None:
    problem = Problem.classical(SECONDS, EDGES, id="tiny")
    (workflow,) = problem.workflows
    assert [device.id for device in problem.cluster.devices] == ["m0", "m1"]
    assert [device.gpu for device in problem.cluster.devices] == [None, None]
    assert {stage.id: stage.seconds_on for stage in workflow.stages} == SECONDS
    assert [(edge.parent, edge.child, edge.bytes) for edge in workflow.edges] == [("a", "b", 5.0)]
    assert problem.options.eager_transfers
    assert problem.options.max_shards == 1
    # One byte a second between any two machines, without latency.
    assert problem.cluster.network_gb_s * catalog.GB == pytest.approx(1.0)
    assert problem.cluster.network_latency_s == 0
    assert len({device.node for device in problem.cluster.devices}) == 2


def test_classical_links() -> None:
    problem = Problem.classical(SECONDS, EDGES, link_bytes_s={("m0", "m1"): 4.0})
    (link,) = problem.cluster.links
    assert {link.a, link.b} == {"m0", "m1"}
    assert link.gb_s * catalog.GB == pytest.approx(4.0)
    assert link.latency_s == 0
    uniform = Problem.classical(SECONDS, EDGES, link_bytes_s=2)
    assert uniform.cluster.network_gb_s * catalog.GB == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("build", "item", "field"),
    [
        (lambda: Problem.classical({}, {}), None, "cluster.devices"),
        (lambda: Problem.classical({"a": {}}, {}), None, "cluster.devices"),
        (
            lambda: Problem.classical({"a": {"m": -1.0}}, {}),
            "workflow 'classical', stage 'a'",
            "seconds_on.m",
        ),
        (
            lambda: Problem.classical(SECONDS, {("a", "b"): math.nan}),
            "workflow 'classical', edge #0",
            "bytes",
        ),
        (
            lambda: Problem.classical(SECONDS, {("a", "c"): 1.0}),
            "workflow 'classical'",
            "edges.child",
        ),
        (
            lambda: Problem.classical(SECONDS, EDGES | {("b", "a"): 1.0}),
            "workflow 'classical'",
            "edges",
        ),
        (lambda: Problem.classical(SECONDS, EDGES, link_bytes_s=0), None, "cluster.network_gb_s"),
        (
            lambda: Problem.classical(SECONDS, EDGES, link_bytes_s={("m0", "m9"): 1.0}),
            "cluster 'classical-machines'",
            "links",
        ),
    ],
)
def test_bad_classical_instances(
    build: Callable[[], Problem], item: str | None, field: str
) -> None:
    with pytest.raises(InputError) as caught:
        build()
    assert (caught.value.source, caught.value.item, caught.value.field) == (
        "classical",
        item,
        field,
    )
    assert caught.value.remedy


def test_build_without_workflows_is_an_input_error() -> None:
    cluster = Cluster(id="c", devices=(Device(id="d"),))
    with pytest.raises(InputError) as caught:
        Problem.build(cluster, [])
    assert caught.value.field == "workflows"


def boundary(memory_gb: float, **stage: object) -> list[str]:
    """Return devices for a stage of a 1 GB model with 1 MB of KV per token, at utilisation 0.5."""
    gpu = Gpu(
        name="G", memory_gb=memory_gb, bandwidth_gb_s=1, tflops=1, pcie=3, watts=1,
        usd_per_hour=1, mfu=0.5, mbu=0.5,
    )  # fmt: skip
    model = Model(
        name="M", params_b=1, layers=10, hidden=1, kv_heads=10, head_dim=2500, weight_gb=1
    )
    cluster = Cluster(
        id="c",
        devices=(Device(id="roomy", gpu="H100-SXM"), Device(id="d", gpu="G"), Device(id="bare")),
        memory_utilisation=0.5,
    )
    last = Stage.model_validate({"id": "s", "model": "M"} | stage)
    workflow = Workflow(
        id="w",
        stages=(Stage(id="first", tool_seconds=1), last),
        edges=(Edge(parent="first", child="s", inherited_tokens=300),),
    )
    problem = Problem.build(cluster, [workflow], gpus=[gpu], models=[model])
    return problem.eligible_devices(workflow, last)


def test_eligible_up_to_the_last_byte_of_one_query() -> None:
    # 1 GB of weights and 1 MB x (100 prefix + 200 own + 300 inherited + 400 output) = 2 GB.
    lengths = {
        "prefix_group": "g", "prefix_tokens": 100, "prompt_tokens": 200, "output_tokens": 400,
        "queries": 1000,
    }  # fmt: skip
    assert boundary(4.0, **lengths) == ["roomy", "d"]
    for name in ("prefix_tokens", "prompt_tokens", "output_tokens"):
        assert boundary(4.0, **(lengths | {name: 401})) == ["roomy"]


def test_allow_list_cuts_but_never_adds() -> None:
    short = {"prompt_tokens": 1}
    assert boundary(4.0, **short, allowed_devices=["d"]) == ["d"]
    assert boundary(4.0, **short, allowed_devices=["d", "roomy"]) == ["roomy", "d"]
    assert boundary(1.0, **short, allowed_devices=["d", "roomy", "bare"]) == ["roomy"]


def test_fixed_and_tool_stages() -> None:
    problem = Problem.classical(SECONDS, EDGES)
    (workflow,) = problem.workflows
    a, b = workflow.stages
    assert problem.eligible_devices(workflow, a) == ["m0", "m1"]
    assert problem.eligible_devices(workflow, b) == ["m1"]
    assert problem.eligible_devices(workflow, Stage(id="t", tool_seconds=1)) == []


@given(problems())
def test_random_problems_are_what_they_promise(problem: Problem) -> None:
    assert 1 <= problem.stage_count <= 12
    assert 1 <= len(problem.cluster.devices) <= 4
    for workflow in problem.workflows:
        for stage in workflow.stages:
            hosts = problem.eligible_devices(workflow, stage)
            assert (hosts == []) == (stage.kind == "tool")
            assert set(hosts) <= set(problem.memory_limits)


@given(workflows())
def test_topological_order_is_a_permutation_with_parents_first(workflow: Workflow) -> None:
    order = topological_order(workflow)
    assert sorted(order) == sorted(stage.id for stage in workflow.stages)
    place = {stage: i for i, stage in enumerate(order)}
    assert all(place[edge.parent] < place[edge.child] for edge in workflow.edges)


def test_topological_order_keeps_the_order_of_the_file_without_edges() -> None:
    stages = tuple(Stage(id=name, tool_seconds=1) for name in "cab")
    assert topological_order(Workflow(id="w", stages=stages)) == ["c", "a", "b"]


def test_topological_order_leaves_out_cycles_and_what_is_behind_them() -> None:
    workflow = Workflow(
        id="w",
        stages=tuple(Stage(id=name, tool_seconds=1) for name in "abcd"),
        edges=tuple(Edge(parent=p, child=c) for p, c in itertools.pairwise("abcbd"[1:])),
    )
    assert topological_order(workflow) == ["a"]


@given(problems(most=5))
def test_pickle_keeps_the_problem_and_drops_what_is_derived(problem: Problem) -> None:
    fresh = pickle.dumps(problem)
    limits, parents = problem.memory_limits, problem.workflows[0].parents
    assert problem.gpu_facts
    assert problem.model_facts
    assert len(pickle.dumps(problem)) == len(fresh)
    again = pickle.loads(pickle.dumps(problem))
    assert again == problem
    assert again.memory_limits == limits
    assert again.workflows[0].parents == parents


@given(problems("llm", most=4), clusters(most=2))
def test_a_copy_with_updates_forgets_what_was_derived(problem: Problem, cluster: Cluster) -> None:
    assert problem.memory_limits
    copied = problem.model_copy(update={"cluster": cluster})
    assert list(copied.memory_limits) == [device.id for device in cluster.devices]
    workflow = problem.workflows[0]
    assert workflow.parents.keys() == {stage.id for stage in workflow.stages}
    assert not any(workflow.model_copy(update={"edges": ()}).parents.values())


def test_objects_are_frozen() -> None:
    stage = Stage(id="s", tool_seconds=1)
    with pytest.raises(ValueError, match="frozen"):
        stage.id = "t"  # type: ignore[misc]
