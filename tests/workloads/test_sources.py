"""Suites of every source: streams, controlled prefixes, shapes, files."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow, dump_problem
from fate_gym.sim import compile_problem
from fate_gym.workloads import FilesSuite, build_suite, load_cluster, load_suite, parse_suite
from fate_gym.workloads.load import capacity_per_s, device_seconds
from fate_gym.workloads.prefix_reuse import build_prefix_reuse
from fate_gym.workloads.stress import SHAPES, build_shape

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "agent.json"


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return load_cluster("mixed_12")


def suite(**fields: Any) -> Any:
    return parse_suite({"name": "s", "cluster": "mixed_12"} | fields, source="test")


@pytest.mark.parametrize("name", ["agentic", "agentic_train", "agentic_test", "real_dag_stream"])
def test_streams_are_one_problem_whose_workflows_arrive_in_order(
    name: str, cluster: Cluster
) -> None:
    (first,), (again,), (other,) = (
        build_suite(load_suite(name), cluster, seed) for seed in (0, 0, 1)
    )
    assert first == again
    times = [workflow.arrival for workflow in first.workflows]
    assert times == sorted(times) and times[-1] > times[0] > 0
    assert times != [workflow.arrival for workflow in other.workflows]
    assert first.id == "stream/s0"
    assert all(workflow.id.endswith("/s0") for workflow in first.workflows)


def test_a_load_is_work_that_arrives_over_work_that_is_done(cluster: Cluster) -> None:
    fields = {"source": "agentic", "mode": "stream", "tenants": 4, "runs": 20}
    (problem,) = build_suite(suite(**fields, arrivals={"load": 0.5}), cluster, 0)
    last = problem.workflows[-1].arrival
    load = sum(device_seconds(problem)) / (last * len(cluster.devices))
    assert 0.45 < load < 0.55


def test_nominal_work_grows_with_queries_and_shrinks_with_devices(cluster: Cluster) -> None:
    problem = build_suite(suite(source="agentic", families=["self_consistency"]), cluster, 0)[0]
    workflow = problem.workflows[0]
    larger = workflow.model_copy(
        update={"stages": tuple(s.model_copy(update={"queries": 500}) for s in workflow.stages)}
    )
    more = problem.model_copy(update={"workflows": (larger,)})
    assert device_seconds(more)[0] > 2 * device_seconds(problem)[0]
    big = Problem.build(load_cluster("homogeneous_8"), [workflow])
    assert capacity_per_s(big) == pytest.approx(8 / device_seconds(big)[0])


def test_streams_without_work_need_a_rate(tmp_path: Path, cluster: Cluster) -> None:
    problem = Problem.build(
        cluster,
        [{"id": "w", "stages": [{"id": "t", "tool_seconds": 1.0}]}],  # type: ignore[list-item]
    )
    with pytest.raises(InputError, match="rate_per_s"):
        capacity_per_s(problem)


def test_given_times(cluster: Cluster) -> None:
    fields = {"source": "agentic", "mode": "stream"}
    given = {"process": "given", "times": [1.0, 5.0, 5.0]}
    (problem,) = build_suite(suite(**fields, arrivals=given), cluster, 0)
    assert [workflow.arrival for workflow in problem.workflows] == [1.0, 5.0, 5.0]
    too_many = {"process": "given", "times": list(range(100))}
    with pytest.raises(InputError) as caught:
        build_suite(suite(**fields, arrivals=too_many), cluster, 0)
    assert "suite 's'" in str(caught.value) and "100 times" in str(caught.value)


def test_suites_that_are_alone_are_written_without_arrivals() -> None:
    # Hashes of configurations made before there were streams stay valid.
    assert "arrivals" not in load_suite("smoke").model_dump()
    assert load_suite("agentic").model_dump()["arrivals"]["load"] == 0.7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": "agentik"}, ["source", "'agentic'"]),
        ({"source": ["agentic"]}, ["source"]),
        ({"source": "agentic", "runs": 0}, ["runs"]),
        ({"source": "agentic", "mode": "stream"}, ["arrivals"]),
        ({"source": "agentic", "arrivals": {"load": 1}}, ["arrivals"]),
        ({"source": "agentic", "shares": [1]}, ["shares"]),
        ({"source": "prefix_reuse", "shares": [1.5]}, ["shares"]),
        ({"source": "stress", "sizes": [2]}, ["sizes"]),
    ],
)
def test_bad_suites(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        suite(**fields)
    assert all(word in str(caught.value) for word in ("test", *words))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": "agentic", "families": ["ragg"]}, ["families", "'rag'"]),
        ({"source": "agentic", "split": "train", "families": ["peer"]}, ["families", "train"]),
        ({"source": "prefix_reuse", "shares": [0], "tasks": ["TRECK"]}, ["tasks", "'TREC'"]),
        ({"source": "stress", "sizes": [9], "shapes": ["chian"]}, ["shapes", "'chain'"]),
        ({"source": "files", "files": []}, ["files"]),
        ({"source": "files", "files": ["nothing.json"]}, ["nothing.json"]),
    ],
)
def test_bad_choices_name_the_suite_or_the_file(
    fields: dict[str, Any], words: list[str], cluster: Cluster
) -> None:
    with pytest.raises(InputError) as caught:
        build_suite(suite(**fields), cluster, 0)
    assert all(word in str(caught.value) for word in words)


def test_only_the_prefix_groups_change_with_the_share(cluster: Cluster) -> None:
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    runs = [
        build_prefix_reuse("Qasper", share, 3, layers=4, width=6, queries=2) for share in shares
    ]
    apart = {"label", "prefix_group"}
    assert all(
        [s.model_dump(exclude=apart) for s in run.stages]
        == [s.model_dump(exclude=apart) for s in runs[0].stages]
        and run.edges == runs[0].edges
        for run in runs
    )
    shared = [{s.id for s in run.stages if s.label == "shared"} for run in runs]
    assert [len(ids) for ids in shared] == [0, 6, 12, 18, 24]
    assert all(less <= more for less, more in pairwise(shared))
    for run in runs:
        groups = Counter((s.label, s.prefix_group) for s in run.stages)
        assert all(count == 1 for (label, _), count in groups.items() if label == "private")
        assert sum(label == "shared" for label, _ in groups) <= 1
    Problem.build(cluster, runs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [3, 10, 101])
def test_shapes_are_valid_and_about_as_large_as_asked(
    shape: str, size: int, cluster: Cluster
) -> None:
    workflow = build_shape(shape, size, 0)
    Problem.build(cluster, [workflow])
    assert size - 3 <= len(workflow.stages) <= size + 10
    assert workflow == build_shape(shape, size, 0)


def test_what_makes_the_shapes_hard() -> None:
    def fan(workflow: Any) -> tuple[int, int]:
        into = Counter(edge.child for edge in workflow.edges)
        out = Counter(edge.parent for edge in workflow.edges)
        return max(into.values()), max(out.values())

    assert fan(build_shape("chain", 40, 0)) == (1, 1)
    assert fan(build_shape("fan_out", 40, 0)) == (1, 39)
    assert fan(build_shape("in_tree", 41, 0)) == (2, 1)
    assert fan(build_shape("fork_join", 40, 0)) == (8, 8)
    assert fan(build_shape("scarce", 41, 0)) == (40, 1)
    for shape in ("bottleneck", "scarce"):
        models = Counter(stage.model for stage in build_shape(shape, 60, 0).stages)
        assert models["Llama-3.1-70B-AWQ"] >= 20


def test_problem_files_keep_their_cluster_unless_one_is_chosen(cluster: Cluster) -> None:
    kept = suite(source="files", files=[str(EXAMPLE)])
    assert build_suite(kept, cluster, 0)[0].cluster.id == "two-nodes"
    replaced = suite(source="files", files=[str(EXAMPLE)], keep_clusters=False)
    assert build_suite(replaced, cluster, 0)[0].cluster == cluster


def test_the_clusters_of_problem_files_can_be_changed(cluster: Cluster) -> None:
    (kept,) = build_suite(suite(source="files", files=[str(EXAMPLE)]), cluster, 0)
    changes = {"execution": "batching", "token_budget": 512}
    spec = suite(source="files", files=[str(EXAMPLE)], cluster_changes=changes)
    (changed,) = build_suite(spec, cluster, 0)
    assert changed.cluster == kept.cluster.model_copy(update=changes)
    wrong = suite(source="files", files=[str(EXAMPLE)], cluster_changes={"token_budget": 512})
    with pytest.raises(InputError, match=r"\.json: .*'token_budget': .*option of batching"):
        build_suite(wrong, cluster, 0)


def test_both_kinds_of_devices_get_the_same_arrivals() -> None:
    spec = load_suite("real_dag_stream_test")
    exclusive, batching = (
        build_suite(spec, load_cluster("mixed_12", execution=execution), 3)[0]
        for execution in ("exclusive", "batching")
    )
    assert exclusive.workflows == batching.workflows


def test_nominal_seconds_on_gpus_that_work_as_one() -> None:
    """A stage of one wave on one device takes nominally what it takes with nothing cached."""
    stage = Stage(id="s", model="Llama-3.1-70B", prompt_tokens=900, output_tokens=90, queries=5)
    for device in (
        Device(id="d", gpu="H100-SXM", tensor_parallel=4),
        Device(id="d", gpu="A100-80", tensor_parallel=3, peer_gb_s=5.0, load_gb_s=1.0),
    ):
        cluster = Cluster(id="c", devices=(device,))
        problem = Problem.build(cluster, [Workflow(id="w", stages=(stage,))])
        (seconds,) = device_seconds(problem)
        assert seconds == pytest.approx(compile_problem(problem).clean_seconds[0, 0])


def test_files_of_both_kinds_and_equal_names(tmp_path: Path, cluster: Cluster) -> None:
    tasks = [{"name": "a_1", "parents": []}, {"name": "b_2", "parents": ["a_1"]}]
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"schemaVersion": "1.4", "workflow": {"tasks": tasks}}))
    copy = tmp_path / "copy.json"
    copy.write_text(EXAMPLE.read_text())
    files = [str(EXAMPLE), str(copy), str(mine)]
    problems = build_suite(suite(source="files", files=files), cluster, 4)
    assert [problem.id for problem in problems] == [str(EXAMPLE), str(copy), "mine/s4"]
    assert problems[2].cluster == cluster


def test_sidecars_and_contents_count(tmp_path: Path, cluster: Cluster) -> None:
    file, roles = tmp_path / "w.json", tmp_path / "roles.yaml"
    tasks = [{"name": "a_1", "parents": []}]
    file.write_text(json.dumps({"schemaVersion": "1.4", "workflow": {"tasks": tasks}}))
    roles.write_text(yaml.safe_dump({"types": {"a": {"model": "bge-large", "prompt_tokens": 9}}}))
    spec = suite(source="files", files=[str(file)], roles=str(roles))
    assert isinstance(spec, FilesSuite)
    assert build_suite(spec, cluster, 0)[0].workflows[0].stages[0].prompt_tokens == 9
    before = spec.contents_hash()
    roles.write_text(yaml.safe_dump({"types": {"a": {"model": "bge-large", "prompt_tokens": 8}}}))
    assert spec.contents_hash() != before


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"workflows": []}', '{"workflow": {}}'])
def test_bad_files_are_named(text: str, tmp_path: Path, cluster: Cluster) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"bad\.json"):
        build_suite(suite(source="files", files=[str(file)]), cluster, 0)


def test_a_written_problem_is_read_back(tmp_path: Path, cluster: Cluster) -> None:
    (problem,) = build_suite(suite(source="stress", shapes=["layered"], sizes=[16]), cluster, 0)
    dump_problem(problem, tmp_path / "p.json")
    spec = suite(source="files", files=[str(tmp_path / "p.json")])
    assert build_suite(spec, cluster, 7) == [problem]
    assert np.isfinite(device_seconds(problem)).all()
