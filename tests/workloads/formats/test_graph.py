"""Node-link JSON and adjacency lists, as networkx writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from fate_gym.errors import InputError
from fate_gym.workloads import Content, import_workflow, read_workload
from fate_gym.workloads.formats import ImportedDag

EXAMPLES = Path("docs/examples/imports")


def read(text: str) -> ImportedDag:
    found = read_workload(Content("mine", text.encode()))[1]
    assert isinstance(found, ImportedDag)
    return found


def node_link(**changes: Any) -> str:
    """Return the example, with fields of its second node (and ``links``) replaced."""
    data = json.loads((EXAMPLES / "graph.json").read_text(encoding="utf-8"))
    data["links"] = changes.pop("links", data["links"])
    data["directed"] = changes.pop("directed", True)
    data["nodes"][1] |= changes
    return json.dumps(data)


@pytest.mark.parametrize("edges", ["links", "edges"])
def test_node_link_of_networkx(edges: str) -> None:
    graph: nx.DiGraph[Any] = nx.DiGraph([(0, 1), (0, 2), (1, 3), (2, 3)])
    graph.add_node(0, type="split", runtime=1.5)
    found = read(json.dumps(nx.node_link_data(graph, edges=edges)))
    assert found.topology.edges.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert found.topology.types == ("split", "1", "2", "3")
    assert found.seconds == (1.5, 0, 0, 0)


def test_adjacency_list_of_networkx() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph([("a_1", "b_1"), ("a_1", "b_2"), ("b_2", "c")])
    found = read("\n".join(nx.generate_adjlist(graph)))
    assert found.topology.types == ("a", "b", "b", "c")
    assert found.topology.edges.tolist() == [[0, 1], [0, 2], [2, 3]]


def test_models_and_tokens_of_the_file() -> None:
    workflow = import_workflow(read(node_link(prompt_tokens=77)), 0)
    stages = {stage.id: stage for stage in workflow.stages}
    assert stages["answer_1"].prompt_tokens == 77
    assert stages["judge"].model == "Llama-3.1-8B"


def test_a_node_with_seconds_alone_is_a_tool() -> None:
    nothing = {"model": None, "prompt_tokens": None, "output_tokens": None}
    workflow = import_workflow(read(node_link(type="search", runtime=2.5, **nothing)), 0)
    assert {stage.id: stage.tool_seconds for stage in workflow.stages}["answer_1"] == 2.5
    graph = read(node_link(type="search", runtime=2.5, **nothing))
    stages = import_workflow(graph, 0, model="Gemma-2-9B").stages
    assert [stage.model for stage in stages].count("Gemma-2-9B") == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (node_link(id="plan"), ["'plan'", "twice"]),
        (node_link(id=None), ["node #1", "id", "missing"]),
        (node_link(id=10**40), ["node #1", "id"]),
        (node_link(id=True), ["node #1", "id"]),
        (node_link(prompt_tokens=-1), ["node 'answer_1'", "prompt_tokens"]),
        (node_link(output_tokens=1.5), ["node 'answer_1'", "output_tokens", "whole"]),
        (node_link(runtime=-1), ["node 'answer_1'", "runtime"]),
        (node_link(type=3), ["node 'answer_1'", "type"]),
        (node_link(directed=False), ["directed", "DiGraph"]),
        (node_link(links=[{"source": "plan"}]), ["links #0", "target"]),
        (node_link(links=[{"source": "plan", "target": "x"}]), ["links", "unknown task 'x'"]),
        (node_link(links=[{"source": "plan", "target": "plan"}]), ["cycle"]),
        (node_link(links=[{"source": "plan", "target": "judge"}] * 2), ["'judge'", "twice"]),
        (node_link(links=[3]), ["links #0", "object"]),
        ("a b\nb a\n", ["cycle"]),
        ("a b b\n", ["line 1", "'b'", "twice"]),
        ("# c\na b\na c\n", ["line 3", "'a'", "line 2"]),
        ("a " + "b" * 600, ["line 1", "512"]),
    ],
)
def test_errors_name_node_or_line(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert all(word in str(caught.value) for word in ("mine", *words))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "gpt-x"}, ["type", "several models", "'answer'"]),
        ({"model": "gpt-x", "type": "other"}, ["no model", "'other'", "--model"]),
        ({"prompt_tokens": 0}, ["task 'answer_1'", "prompt_tokens"]),
    ],
)
def test_errors_of_models_name_the_type(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        import_workflow(read(node_link(**changes)), 0)
    assert all(word in str(caught.value) for word in words)


def test_a_model_needs_tokens() -> None:
    with pytest.raises(InputError, match=r"no prompt tokens for task types 'a', 'b'"):
        import_workflow(read("a_1 b_1\n"), 0, model="Gemma-2-9B")
