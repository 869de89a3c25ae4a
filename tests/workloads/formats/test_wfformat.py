"""WfFormat and graphs: what is read; anything else is one clear error."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import InputError, InputWarning
from fate_gym.problem import Problem, Workflow
from fate_gym.workloads import (
    assign_roles,
    import_workflow,
    load_cluster,
    load_wfformat,
    topology,
    topology_from_graph,
)
from fate_gym.workloads.formats.sidecar import Sidecar, apply_sidecar
from fate_gym.workloads.formats.tasks import type_of
from fate_gym.workloads.formats.wfformat import parse_wfformat

PARENTS = {
    "split_1": [],
    "work_2": ["split_1"],
    "work_3": ["split_1"],
    "join_4": ["work_2", "work_3"],
}
SIZES = {"split_1": 100, "work_2": 20, "work_3": 30, "join_4": 5}
SECONDS = {"split_1": 1.5, "work_2": 2.0, "work_3": 3.0, "join_4": 0.5}


def flat(version: str, *, by_name: bool = False) -> dict[str, Any]:
    """Return the diamond in the layout of 1.3 and 1.4; with ``by_name`` ids and names differ."""
    runtime, size = ("runtime", "size") if version == "1.3" else ("runtimeInSeconds", "sizeInBytes")
    ids = {name: f"ID{i}" if by_name else name for i, name in enumerate(PARENTS)}
    tasks = [
        {
            "name": name,
            "id": ids[name],
            "type": "compute",
            "parents": parents,
            runtime: SECONDS[name],
            "machine": "m",
            "files": [{"link": "output", "name": f"{name}.out", size: SIZES[name]}]
            + [{"link": "input", "name": f"{p}.out", size: SIZES[p]} for p in parents],
        }
        for name, parents in PARENTS.items()
    ]
    return {"name": "diamond", "schemaVersion": version, "workflow": {"tasks": tasks}}


def split() -> dict[str, Any]:
    """Return the diamond in the layout of 1.5."""
    tasks = [
        {
            "name": name,
            "id": name,
            "parents": parents,
            "children": [child for child, above in PARENTS.items() if name in above],
            "inputFiles": [f"{parent}.out" for parent in parents],
            "outputFiles": [f"{name}.out"],
        }
        for name, parents in PARENTS.items()
    ]
    files = [{"id": f"{name}.out", "sizeInBytes": size} for name, size in SIZES.items()]
    ran = [{"id": n, "runtimeInSeconds": s, "machines": ["m"]} for n, s in SECONDS.items()]
    return {
        "name": "diamond",
        "schemaVersion": "1.5",
        "workflow": {
            "specification": {"tasks": tasks, "files": files},
            "execution": {"tasks": ran},
        },
    }


DOCUMENTS = {"1.3": flat("1.3"), "1.4": flat("1.4"), "1.5": split()}
SIDECAR = {
    "types": {
        "split": {"tool_seconds": "runtime"},
        "work": {"model": "Qwen2.5-7B", "queries": 3, "prefix_tokens": 50, "prompt_tokens": 10},
        "join": {"model": "Llama-3.1-8B", "prompt_tokens": 5, "inherited_tokens": 7},
    }
}


@pytest.mark.parametrize("version", DOCUMENTS)
def test_every_version_says_the_same(version: str) -> None:
    instance = parse_wfformat(DOCUMENTS[version])
    found = instance.topology
    assert found.task_ids == tuple(PARENTS)
    assert found.types == ("split", "work", "work", "join")
    assert found.edges.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert instance.edge_bytes == (100.0, 100.0, 20.0, 30.0)
    assert instance.seconds == tuple(SECONDS.values())
    assert found.name == "diamond"


def test_parents_by_name() -> None:
    instance = parse_wfformat(flat("1.3", by_name=True))
    assert instance.topology.task_ids == ("ID0", "ID1", "ID2", "ID3")
    assert instance.topology.edges.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]


def test_category_is_the_type_and_order_of_the_file_does_not_matter() -> None:
    data = flat("1.4")
    data["workflow"]["tasks"].reverse()
    for task in data["workflow"]["tasks"]:
        task["category"] = "same"
    found = parse_wfformat(data).topology
    assert set(found.types) == {"same"}
    assert all(parent < child for parent, child in found.edges.tolist())


def test_an_exported_topology_comes_back() -> None:
    original = topology("epigenomics-chameleon-hep-1seq-100k-001")
    ids = original.task_ids
    parents: dict[str, list[str]] = {task: [] for task in ids}
    for parent, child in original.edges.tolist():
        parents[ids[child]].append(ids[parent])
    tasks = [
        {"name": task, "category": kind, "parents": parents[task]}
        for task, kind in zip(ids, original.types, strict=True)
    ]
    data = {"name": "e", "schemaVersion": "1.4", "workflow": {"tasks": tasks}}
    found = parse_wfformat(data).topology
    edges = {(found.task_ids[a], found.task_ids[b]) for a, b in found.edges.tolist()}
    assert edges == {(ids[a], ids[b]) for a, b in original.edges.tolist()}


def test_sidecar_attributes_with_the_bytes_and_seconds_of_the_file() -> None:
    sidecar = Sidecar.model_validate(SIDECAR)
    workflow = apply_sidecar(parse_wfformat(DOCUMENTS["1.4"]), sidecar, workflow_id="w")
    by_id = {stage.id: stage for stage in workflow.stages}
    assert by_id["split_1"].tool_seconds == 1.5
    assert (by_id["work_2"].queries, by_id["work_2"].prefix_tokens) == (3, 50)
    assert by_id["work_2"].prefix_group == by_id["work_3"].prefix_group
    edges = {(e.parent, e.child): (e.bytes, e.inherited_tokens) for e in workflow.edges}
    assert edges["work_3", "join_4"] == (30.0, 7)
    Problem.build(load_cluster("mixed_8"), [workflow])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"join": None}, ["types.join", "join"]),
        ({"join": None, "work": None}, ["types", "'join', 'work'", "default"]),
        ({"join": {}}, ["types.join", "exactly one of"]),
        ({"join": {"model": "bge-large", "prompts": 1}}, ["join", "prompts"]),
        ({"join": {"model": "bge-large", "queries": 0}}, ["join", "queries"]),
        ({"join": {"tool_seconds": float("nan")}}, ["join", "tool_seconds"]),
    ],
)
def test_bad_sidecars(change: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    types = {k: v for k, v in (SIDECAR["types"] | change).items() if v is not None}
    file = tmp_path / "roles.yaml"
    file.write_text(yaml.safe_dump({"types": types}))
    with pytest.raises(InputError) as caught:
        import_workflow(parse_wfformat(DOCUMENTS["1.4"]), 0, roles=file)
    assert all(word in str(caught.value) for word in ("roles.yaml", *words))


def task(data: dict[str, Any], number: int) -> dict[str, Any]:
    workflow = data["workflow"]
    found: dict[str, Any] = workflow.get("specification", workflow)["tasks"][number]
    return found


def put(version: str, number: int, key: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(DOCUMENTS[version])
    task(data, number)[key] = value
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], ["the file", "object"]),
        ({"schemaVersion": "2.0"}, ["schemaVersion", "2.0", "1.5"]),
        ({"schemaVersion": "1.5", "workflow": {"tasks": []}}, ["workflow.specification"]),
        ({"schemaVersion": "1.4", "workflow": {"tasks": []}}, ["tasks"]),
        (put("1.4", 0, "parents", ["join_4"]), ["cycle", "parents", "task"]),
        (put("1.4", 1, "parents", ["work_2"]), ["cycle", "task 'work_2'"]),
        (put("1.4", 1, "parents", ["split"]), ["task 'work_2'", "parents", "'split_1'"]),
        (put("1.5", 1, "children", ["joint"]), ["task 'work_2'", "children"]),
        (put("1.4", 3, "parents", ["work_2", "work_2"]), ["task 'join_4'", "parents", "twice"]),
        (put("1.4", 1, "id", "split_1"), ["task 'split_1'", "id", "twice"]),
        (put("1.4", 1, "id", 3), ["task #1", "id"]),
        (put("1.4", 1, "id", "\ud800"), ["task #1", "id", "Unicode"]),
        (put("1.4", 1, "runtimeInSeconds", float("nan")), ["task 'work_2'", "runtimeInSeconds"]),
        (put("1.3", 1, "runtime", -1), ["task 'work_2'", "runtime"]),
        (put("1.3", 1, "runtime", 10**400), ["task 'work_2'", "runtime"]),
        (put("1.3", 1, "runtime", True), ["task 'work_2'", "runtime"]),
        (put("1.3", 1, "files", [{"link": "both", "name": "f"}]), ["task 'work_2'", "files.link"]),
        (put("1.4", 1, "files", "f"), ["task 'work_2'", "files"]),
        (put("1.5", 1, "inputFiles", ["x"]), ["task 'work_2'", "inputFiles", "unknown file"]),
    ],
)
def test_errors_name_task_and_field(data: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_wfformat(data, source="my.json")
    assert all(word in str(caught.value) for word in ("my.json", *words))


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [here] * bool(here) + [p for key, inner in items for p in paths(inner, (*here, key))]


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**400), 1e308, float("nan"), float("inf"), -0.0, "\ud800", ""]),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(list(PARENTS)),
    st.lists(st.sampled_from(list(PARENTS)), max_size=4),
    st.recursive(st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
)


@pytest.mark.parametrize(
    ("version", "place", "field"),
    [
        ("1.3", ("workflow", "tasks", 1, "files", 0), "size"),
        ("1.4", ("workflow", "tasks", 1, "files", 0), "sizeInBytes"),
        ("1.5", ("workflow", "specification", "files", 0), "sizeInBytes"),
    ],
)
def test_files_of_unknown_size_are_counted_as_nothing(
    version: str, place: tuple[Any, ...], field: str
) -> None:
    """Published instances have sizes of -1."""
    data = copy.deepcopy(DOCUMENTS[version])
    file = data
    for key in place:
        file = file[key]
    file[field] = 0
    known = repr(parse_wfformat(data))
    file[field] = -1
    with pytest.warns(InputWarning, match=r"my\.json: the size of 1 files is negative"):
        assert repr(parse_wfformat(data, source="my.json")) == known


@pytest.mark.filterwarnings("ignore::fate_gym.errors.InputWarning")
@given(st.sampled_from(list(DOCUMENTS)), st.data())
def test_mutated_files_are_valid_or_one_error(version: str, data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENTS[version])
    for _ in range(data.draw(st.integers(1, 3))):
        *way, last = data.draw(st.sampled_from(paths(document)))
        holder = document
        for key in way:
            holder = holder[key]
        match data.draw(st.sampled_from(["replace", "remove", "repeat"])):
            case "replace":
                holder[last] = data.draw(STRANGE)
            case "remove":
                del holder[last]
            case "repeat" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[last]))
        if not paths(document):
            break
    check(document)


@given(st.sampled_from(list(DOCUMENTS)), st.data())
def test_truncated_files_are_one_error(
    tmp_path_factory: pytest.TempPathFactory, version: str, data: st.DataObject
) -> None:
    text = json.dumps(DOCUMENTS[version]).encode()
    cut = data.draw(st.integers(0, len(text) - 1))
    garbage = data.draw(st.binary(max_size=3))
    file = tmp_path_factory.mktemp("cut") / "cut.json"
    file.write_bytes(text[:cut] + garbage)
    error = fault(lambda: load_wfformat(file))
    assert error is None or "cut.json" in error


@pytest.mark.parametrize("text", [b"[" * 100_000, b"9" * 10_000, b"\xff\xfe\x00"])
def test_hostile_files(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(text)
    with pytest.raises(InputError, match=r"f\.json"):
        load_wfformat(tmp_path / "f.json")


def fault(call: Callable[[], object]) -> str | None:
    """Return the message of a call's input error; other exceptions are not caught."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def check(document: Any) -> None:
    def build() -> None:
        workflow = import_workflow(parse_wfformat(document, source="mutant.json"), 0)
        Problem.build(load_cluster("mixed_8"), [workflow])

    error = fault(build)
    assert error is None or "mutant.json" in error
    (error or "").encode()  # can be printed


def diamond() -> nx.DiGraph[str]:
    graph: nx.DiGraph[str] = nx.DiGraph()
    for name, parents in PARENTS.items():
        graph.add_node(name, type=name.split("_")[0])
        graph.add_edges_from((parent, name) for parent in parents)
    return graph


def test_a_networkx_graph_is_the_same_as_the_file() -> None:
    found = topology_from_graph(diamond(), name="diamond")
    read = parse_wfformat(DOCUMENTS["1.5"]).topology
    assert (found.types, found.task_ids) == (read.types, read.task_ids)
    assert found.edges.tolist() == read.edges.tolist()
    assert isinstance(assign_roles(found, 0), Workflow)


def test_bad_graphs() -> None:
    with pytest.raises(InputError, match="no tasks"):
        topology_from_graph(nx.DiGraph())
    graph = diamond()
    graph.add_edge("join_4", "split_1")
    with pytest.raises(InputError, match="cycle"):
        topology_from_graph(graph)
    with pytest.raises(InputError, match="twice"):
        topology_from_graph(nx.MultiDiGraph([("a", "b"), ("a", "b")]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("sort_ID000012", "sort"),
        ("sort_1-2_3", "sort"),
        ("ID_12", "ID"),
        ("12_ID3", "12_ID3"),
        ("2024110112304512345678901234567890x", "2024110112304512345678901234567890x"),
        ("x" + "1" * 10_000, "x"),
        ("x" + "_ID1" * 3_000, "x"),
        ("1" * 10_000 + "x", "1" * 10_000 + "x"),
        ("1_" * 10_000 + "-", "1_" * 10_000 + "-"),
    ],
)
def test_numbering_of_any_length_is_stripped_without_backtracking(name: str, kind: str) -> None:
    assert type_of(name) == kind


@given(st.text("aID_-12", max_size=9))
def test_numbering_is_the_longest_end_of_numbers(name: str) -> None:
    assert type_of(name) == (re.sub(r"(?:[_-]?(?:ID)?\d+)+$", "", name) or name)


def test_a_time_stamp_in_a_name_does_not_stop_an_import() -> None:
    name = "1" * 500 + "x"
    data = put("1.4", 3, "name", name)
    assert name in parse_wfformat(data).topology.types


def test_files_between_two_tasks_have_one_limit_together() -> None:
    files = [{"name": f"f{number}", "sizeInBytes": 9e14} for number in range(2)]
    tasks = [
        {"name": "a", "id": "1", "files": [one | {"link": "output"} for one in files]},
        {"name": "b", "id": "2", "parents": ["1"], "files": [f | {"link": "input"} for f in files]},
    ]
    data = {"name": "n", "schemaVersion": "1.4", "workflow": {"tasks": tasks}}
    with pytest.raises(InputError, match=r"task '2'.*1.8e\+15 bytes of task '1'.*1e\+15 at"):
        parse_wfformat(data)
