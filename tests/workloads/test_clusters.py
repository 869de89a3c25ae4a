"""Clusters from groups of nodes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.problem import Problem, Stage, Workflow
from fate_gym.workloads import ClusterSpec, NodeSpec, build_cluster, load_cluster

CONF = Path(__file__).parents[2] / "conf" / "cluster"
SHIPPED = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_groups_are_expanded() -> None:
    cluster = build_cluster(
        ClusterSpec(
            name="c",
            nodes=(
                NodeSpec(gpus={"L40S": 1, "A10G": 2}),
                NodeSpec(gpus={"A10G": 1}, count=2, load_gb_s=3.0, network_gb_s=1.0),
            ),
            network_gb_s=5.0,
            network_latency_s=0.5,
            load_gb_s=7.0,
            load_init_s=2.0,
        )
    )
    assert [(d.id, d.gpu, d.node, d.load_gb_s, d.network_gb_s) for d in cluster.devices] == [
        ("l40s-0", "L40S", "node0", None, None),
        ("a10g-0", "A10G", "node0", None, None),
        ("a10g-1", "A10G", "node0", None, None),
        ("a10g-2", "A10G", "node1", 3.0, 1.0),
        ("a10g-3", "A10G", "node2", 3.0, 1.0),
    ]
    assert (cluster.id, cluster.network_gb_s, cluster.network_latency_s) == ("c", 5.0, 0.5)
    assert (cluster.load_gb_s, cluster.load_init_s) == (7.0, 2.0)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_name_every_field(name: str) -> None:
    data = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(data) == set(ClusterSpec.model_fields)
    assert data["name"] == name
    assert load_cluster(name).id == name


def test_sizes_of_the_shipped_clusters() -> None:
    gpus = {name: Counter(d.gpu for d in load_cluster(name).devices) for name in SHIPPED}
    nodes = {name: len({d.node for d in load_cluster(name).devices}) for name in SHIPPED}
    assert gpus["mixed_8"] == {"H100-SXM": 2, "A100-80": 2, "L40S": 2, "A10G": 2}
    assert gpus["mixed_12"] == {"H100-SXM": 2, "A100-80": 2, "L40S": 4, "A10G": 4}
    assert (nodes["mixed_8"], nodes["mixed_12"], nodes["mixed_32"]) == (3, 4, 8)
    assert gpus["mixed_4"].total() == len(gpus["mixed_4"]) == 4
    assert gpus["mixed_32"].total() == 32
    assert gpus["mixed_64"] == {gpu: 2 * count for gpu, count in gpus["mixed_32"].items()}
    assert gpus["mixed_256"] == {gpu: 4 * count for gpu, count in gpus["mixed_64"].items()}
    assert gpus["serving_8"] == {gpu: 2 * count for gpu, count in gpus["serving_4"].items()}
    assert len(gpus["homogeneous_8"]) == 1 and gpus["homogeneous_8"].total() == 8


def test_clusters_between_alike_and_mixed_have_the_same_memory_bandwidth() -> None:
    """Decoding, which most of the time goes to, is as fast on all of them together."""
    totals, spreads = [], []
    for name in ("homogeneous_8", "two_kinds_12", "graded_12", "mixed_12"):
        rates = [catalog.gpu(str(d.gpu)).bandwidth_gb_s for d in load_cluster(name).devices]
        totals.append(sum(rates))
        spreads.append(np.std(rates) / np.mean(rates))
    assert max(totals) / min(totals) < 1.04
    assert spreads == sorted(spreads) and spreads[0] == 0.0


def test_scarce_large_hosts_the_largest_models_once() -> None:
    for model in ("Llama-3.1-70B-AWQ", "Qwen2.5-72B-AWQ"):
        stage = Stage(id="s", model=model, prompt_tokens=1000, output_tokens=100)
        workflow = Workflow(id="w", stages=(stage,))
        problem = Problem.build(load_cluster("scarce_large"), [workflow])
        assert len(problem.eligible_devices(workflow, stage)) == 1


def test_unknown_gpu_has_near_matches() -> None:
    spec = ClusterSpec(name="c", nodes=(NodeSpec(gpus={"H100": 1}),))
    with pytest.raises(InputError) as caught:
        build_cluster(spec)
    assert "cluster 'c'" in str(caught.value)
    assert "H100-SXM" in str(caught.value)


def test_bad_file_names_the_field(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "bad.yaml").write_text("name: bad\nnodes: [{gpus: {L4: 0}}]\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_cluster("bad", [tmp_path])
    assert all(word in str(caught.value) for word in ("bad.yaml", "nodes", "L4"))


def test_bad_gpu_in_a_file_names_the_cluster(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "bad.yaml").write_text("name: bad\nnodes: [{gpus: {L4O: 1}}]\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_cluster("bad", [tmp_path])
    assert all(word in str(caught.value) for word in ("cluster 'bad'", "L4O", "'L4'"))


def test_unknown_cluster_has_near_matches() -> None:
    with pytest.raises(InputError, match="'mixed_12'"):
        load_cluster("mixed12")


# --- how devices execute, and GPUs that work as one ---------------------------------------------


def test_gpus_of_a_type_are_grouped() -> None:
    nodes = (
        NodeSpec(gpus={"H100-SXM": 4, "L40S": 2}, tensor_parallel=2),
        NodeSpec(gpus={"H100-SXM": 1}, count=2),
    )
    cluster = build_cluster(ClusterSpec(name="c", nodes=nodes))
    assert [(d.id, d.gpu, d.node, d.tensor_parallel) for d in cluster.devices] == [
        ("h100-sxm-0", "H100-SXM", "node0", 2),
        ("h100-sxm-1", "H100-SXM", "node0", 2),
        ("l40s-0", "L40S", "node0", 2),
        ("h100-sxm-2", "H100-SXM", "node1", 1),
        ("h100-sxm-3", "H100-SXM", "node2", 1),
    ]


@pytest.mark.parametrize("gpus", [{"H100-SXM": 3}, {"H100-SXM": 3, "A100-80": 1}])
def test_gpus_that_make_no_whole_groups_of_equal_ones(gpus: dict[str, int]) -> None:
    nodes = (NodeSpec(gpus=gpus, tensor_parallel=2),)
    with pytest.raises(InputError) as caught:
        build_cluster(ClusterSpec(name="c", nodes=nodes))
    error = caught.value
    assert (error.item, error.field) == ("cluster 'c'", "nodes.tensor_parallel")
    assert error.fault == "3 H100-SXM do not make groups of 2 equal GPUs"
    assert "multiple of 2" in (error.remedy or "")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("execution: batchin", "field 'execution': unknown execution 'batchin'.*'batching'"),
        ("prefill: last", "field 'prefill': unknown prefill 'last'"),
        ("token_budget: true", "field 'token_budget': .*not numbers .got True"),
        ("max_sequences: 0", "field 'max_sequences': .*greater than or equal to 1"),
        ("prefill: first", "cluster 'bad': field 'prefill': prefill is an option of batching"),
        ("{execution: batching, token_budget: 9}", "cluster 'bad': field 'token_budget': a token"),
        ("excution: batching", "unknown field 'excution'.*'execution'"),
        ("{nodes: [{gpus: {L4: 2}, tensor_parallel: 1.5}]}", "tensor_parallel': .*integer"),
        ("{nodes: [{gpus: {L4: 2}, tensor_parallel: 4}]}", "2 L4 do not make groups of 4"),
    ],
)
def test_a_bad_option_names_file_and_field(line: str, words: str, tmp_path: Path) -> None:
    good = {"name": "bad", "nodes": [{"gpus": {"L4": 1}}]}
    (tmp_path / "cluster").mkdir()
    text = yaml.safe_dump(good | yaml.safe_load(line))
    (tmp_path / "cluster" / "bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_cluster("bad", [tmp_path])
    assert "bad.yaml: " in str(caught.value)
    assert re.search(words, str(caught.value))
    assert caught.value.remedy


def test_a_cluster_can_be_changed_as_it_is_loaded() -> None:
    plain = load_cluster("mixed_8")
    changed = load_cluster("mixed_8", execution="batching", prefill="first", max_sequences=9)
    assert changed.serving == (True, True, 8192, 9)
    assert changed.model_copy(update=dict.fromkeys(("prefill", "max_sequences"))) == (
        plain.model_copy(update={"execution": "batching"})
    )
    with pytest.raises(InputError, match="'excution'"):
        load_cluster("mixed_8", excution="batching")
    with pytest.raises(InputError, match="option of batching devices"):
        load_cluster("mixed_8", token_budget=512)


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_pairs_of_h100_host_70b_models_in_16_bits(execution: str) -> None:
    stage = Stage(id="s", model="Llama-3.1-70B", prompt_tokens=4000, output_tokens=1000)
    workflow = Workflow(id="w", stages=(stage,))
    pairs = load_cluster("h100_pairs", execution=execution)
    problem = Problem.build(pairs, [workflow])
    assert problem.eligible_devices(workflow, stage) == [f"h100-sxm-{i}" for i in range(4)]
    for name in set(SHIPPED) - {"h100_pairs", "serving_4", "serving_8"}:
        with pytest.raises(InputError, match=r"no device can host the stage: Llama-3.1-70B"):
            Problem.build(load_cluster(name, execution=execution), [workflow])


@pytest.mark.parametrize("execution", ["exclusive", "batching"])
def test_serving_8_hosts_contexts_as_long_as_the_models_were_made_for(execution: str) -> None:
    hosts = {"Llama-3.1-70B": 6, "Qwen3-30B-A3B-2507": 6, "Llama-3.1-8B": 8}
    for model, count in hosts.items():
        most = catalog.model(model).max_context
        assert most is not None
        stage = Stage(id="s", model=model, prompt_tokens=most - 1000, output_tokens=1000)
        workflow = Workflow(id="w", stages=(stage,))
        problem = Problem.build(load_cluster("serving_8", execution=execution), [workflow])
        assert len(problem.eligible_devices(workflow, stage)) == count


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("count", 1_000_000_000, "nodes.0.count"),
        ("gpus", {"T4": 2**31 - 1}, "nodes.0.gpus.T4"),
        ("gpus", {"T4": 10_000, "L4": 1}, "nodes"),
        ("load_gb_s", 5e-324, "nodes.0.load_gb_s"),
    ],
)
def test_a_cluster_that_no_memory_holds_is_refused_before_it_is_built(
    tmp_path: Path, field: str, value: object, named: str
) -> None:
    node = {"gpus": {"T4": 1}, field: value}
    (tmp_path / "cluster").mkdir()
    path = tmp_path / "cluster" / "huge.yaml"
    path.write_text(yaml.safe_dump({"name": "huge", "nodes": [node]}))
    with pytest.raises(InputError) as caught:
        load_cluster("huge", [tmp_path])
    assert (caught.value.source, caught.value.field) == (str(path), named)
