"""Problems as JSON: round trips, and every kind of bad file."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.problem import Problem, dump_problem, load_problem, parse_problem
from tests.strategies import problems

Tree = dict[str, Any]

GOOD: Tree = {
    "schema_version": 1,
    "id": "good",
    "cluster": {
        "id": "c",
        "devices": [{"id": "d0", "gpu": "A10G"}, {"id": "d1", "gpu": "L40S"}],
        "links": [{"a": "d0", "b": "d1", "gb_s": 10.0}],
    },
    "workflows": [
        {
            "id": "w0",
            "stages": [
                {"id": "ask", "model": "Llama-3.1-8B", "prompt_tokens": 50, "output_tokens": 9},
                {"id": "look", "tool_seconds": 1.0},
                {"id": "merge", "model": "Qwen2.5-14B", "queries": 3, "prompt_tokens": 50},
                {"id": "old", "seconds_on": {"d0": 1.0}},
            ],
            "edges": [
                {"parent": "ask", "child": "look", "bytes": 100.0},
                {"parent": "look", "child": "merge", "inherited_tokens": 7},
            ],
        },
        {"id": "w1", "stages": [{"id": "ask", "tool_seconds": 0.5}], "arrival": 3.0},
    ],
}


def stage(tree: Tree, index: int = 0) -> Tree:
    found: Tree = tree["workflows"][0]["stages"][index]
    return found


def edges(tree: Tree) -> list[Tree]:
    found: list[Tree] = tree["workflows"][0]["edges"]
    return found


# What is done to a good file; the item and the field that the error has to name, and a word of it.
FAULTS: dict[str, tuple[Callable[[Tree], Any], str | None, str | None, str]] = {
    "cycle": (
        lambda t: edges(t).append({"parent": "merge", "child": "ask"}),
        "workflow 'w0'", "edges", "cycle",
    ),
    "loop of one stage": (
        lambda t: edges(t).append({"parent": "old", "child": "old"}),
        "workflow 'w0'", "edges", "'old'|old",
    ),
    "objectives that ask for nothing": (
        lambda t: t["workflows"][0].update(slo={}),
        "workflow 'w0'", "slo", "needs ttft_s, tpot_s or both",
    ),
    "an objective of no time": (
        lambda t: t["workflows"][0].update(slo={"ttft_s": 0}),
        "workflow 'w0'", "slo.ttft_s", "greater than 0",
    ),
    "a misspelt objective": (
        lambda t: t["workflows"][0].update(slo={"ttft": 1}),
        "workflow 'w0'", "slo.ttft", "unknown field 'ttft'",
    ),
    "an objective that there is not": (
        lambda t: t.update(options={"objective": "makespn"}),
        None, "options.objective", "unknown objective 'makespn'",
    ),
    "deadlines that nobody has": (
        lambda t: t.update(options={"objective": "deadlines"}),
        "options", "objective", "no workflow has one",
    ),
    "missing parent": (
        lambda t: edges(t)[0].update(parent="asl"),
        "workflow 'w0'", "edges.parent", "unknown stage 'asl'",
    ),
    "missing child": (
        lambda t: edges(t)[0].update(child="nobody"),
        "workflow 'w0'", "edges.child", "unknown stage 'nobody'",
    ),
    "duplicate edge": (
        lambda t: edges(t).append({"parent": "ask", "child": "look"}),
        "workflow 'w0'", "edges", "twice",
    ),
    "duplicate workflow": (
        lambda t: t["workflows"][1].update(id="w0"), None, "id", "duplicate workflow id 'w0'",
    ),
    "duplicate stage": (
        lambda t: stage(t, 1).update(id="ask"), "workflow 'w0'", "id", "duplicate stage id 'ask'",
    ),
    "duplicate device": (
        lambda t: t["cluster"]["devices"][1].update(id="d0"),
        "cluster 'c'", "id", "duplicate device id 'd0'",
    ),
    "duplicate link": (
        lambda t: t["cluster"]["links"].append({"a": "d1", "b": "d0", "gb_s": 1.0}),
        "cluster 'c'", "links", "two links between devices 'd0' and 'd1'",
    ),
    "link to itself": (
        lambda t: t["cluster"]["links"][0].update(a="d1"), "cluster 'c'", "links", "to itself",
    ),
    "link to nowhere": (
        lambda t: t["cluster"]["links"][0].update(b="d7"),
        "cluster 'c'", "links", "unknown device 'd7'",
    ),
    "duplicate own GPU": (
        lambda t: t.update(gpus=[own_gpu(), own_gpu()]), None, "gpus", "duplicate GPU 'Own'",
    ),
    "duplicate own model": (
        lambda t: t.update(models=[own_model(), own_model()]),
        None, "models", "duplicate model 'Own'",
    ),
    "no device can host the model": (
        lambda t: stage(t).update(model="Llama-3.1-70B"),
        "workflow 'w0', stage 'ask'", "model", "no device can host",
    ),
    "no device can host the context": (
        lambda t: stage(t).update(output_tokens=9 * 10**7),
        "workflow 'w0', stage 'ask'", "model", "no device can host",
    ),
    "no device can host the inherited context": (
        lambda t: edges(t)[1].update(inherited_tokens=9 * 10**7),
        "workflow 'w0', stage 'merge'", "model", "no device can host",
    ),
    "no allowed device can host": (
        lambda t: stage(t, 2).update(allowed_devices=["d0"]),
        "workflow 'w0', stage 'merge'", "allowed_devices", "no device can host",
    ),
    "unknown allowed device": (
        lambda t: stage(t).update(allowed_devices=["d9"]),
        "workflow 'w0', stage 'ask'", "allowed_devices", "unknown device 'd9'",
    ),
    "unknown device with seconds": (
        lambda t: stage(t, 3).update(seconds_on={"d9": 1.0}),
        "workflow 'w0', stage 'old'", "seconds_on", "unknown device 'd9'",
    ),
    "unknown model": (
        lambda t: stage(t).update(model="Llama-3.1-9B"),
        "workflow 'w0', stage 'ask'", "model", "unknown model 'Llama-3.1-9B'",
    ),
    "unknown GPU": (
        lambda t: t["cluster"]["devices"][0].update(gpu="A10"),
        "cluster 'c', device 'd0'", "gpu", "unknown GPU 'A10'",
    ),
    "zero queries": (
        lambda t: stage(t).update(queries=0),
        "workflow 'w0', stage 'ask'", "queries", "greater than or equal to 1",
    ),
    "half a query": (
        lambda t: stage(t).update(queries=1.5),
        "workflow 'w0', stage 'ask'", "queries", "integer",
    ),
    "negative tokens": (
        lambda t: stage(t).update(prompt_tokens=-1),
        "workflow 'w0', stage 'ask'", "prompt_tokens", "greater than or equal to 0",
    ),
    "negative seconds": (
        lambda t: stage(t, 1).update(tool_seconds=-1.0),
        "workflow 'w0', stage 'look'", "tool_seconds", "greater than or equal to 0",
    ),
    "negative seconds on a device": (
        lambda t: stage(t, 3)["seconds_on"].update(d0=-1.0),
        "workflow 'w0', stage 'old'", "seconds_on.d0", "greater than or equal to 0",
    ),
    "negative bytes": (
        lambda t: edges(t)[1].update(bytes=-5),
        "workflow 'w0', edge #1", "bytes", "greater than or equal to 0",
    ),
    "negative arrival": (
        lambda t: t["workflows"][1].update(arrival=-0.1),
        "workflow 'w1'", "arrival", "greater than or equal to 0",
    ),
    "NaN": (
        lambda t: t["workflows"][1].update(arrival=math.nan),
        "workflow 'w1'", "arrival", "finite",
    ),
    "infinity": (
        lambda t: edges(t)[0].update(bytes=math.inf),
        "workflow 'w0', edge #0", "bytes", "finite",
    ),
    "NaN as tokens": (
        lambda t: stage(t).update(prompt_tokens=math.nan),
        "workflow 'w0', stage 'ask'", "prompt_tokens", "finite",
    ),
    "negative infinity as bandwidth": (
        lambda t: t["cluster"].update(network_gb_s=-math.inf),
        None, "cluster.network_gb_s", "finite",
    ),
    "zero bandwidth": (
        lambda t: t["cluster"]["devices"][0].update(load_gb_s=0),
        "device 'd0'", "load_gb_s", "greater than or equal to 0.000000000001",
    ),
    "a number too large for a double": (
        lambda t: t["workflows"][1].update(arrival=10**400), "workflow 'w1'", "arrival", "valid",
    ),
    "unknown schema version": (
        lambda t: t.update(schema_version=2, unheard_of=1),
        None, "schema_version", "unknown schema version 2",
    ),
    "schema version of a wrong type": (
        lambda t: t.update(schema_version="one"), None, "schema_version", "'one'",
    ),
    "wrong type: text for a number": (
        lambda t: stage(t).update(prompt_tokens="many"),
        "workflow 'w0', stage 'ask'", "prompt_tokens", "got 'many'",
    ),
    "wrong type: number for a name": (
        lambda t: stage(t).update(model=5), "workflow 'w0', stage 'ask'", "model", "string",
    ),
    "wrong type: list for an object": (
        lambda t: t.update(cluster=[]), None, "cluster", "dictionary",
    ),
    "wrong type: object for a list": (
        lambda t: t["workflows"][0].update(stages={}), "workflow 'w0'", "stages", "tuple",
    ),
    "wrong type: null": (
        lambda t: t["workflows"][0].update(edges=None), "workflow 'w0'", "edges", "tuple",
    ),
    "extra field": (
        lambda t: stage(t).update(promt_tokens=5),
        "workflow 'w0', stage 'ask'", "promt_tokens", "unknown field 'promt_tokens'",
    ),
    "missing field": (
        lambda t: edges(t)[0].pop("child"), "workflow 'w0', edge #0", "child", "required",
    ),
    "no workflow": (lambda t: t.update(workflows=[]), None, "workflows", "at least 1"),
    "no stage": (
        lambda t: t["workflows"][1].update(stages=[]), "workflow 'w1'", "stages", "at least 1",
    ),
    "no device": (
        lambda t: t["cluster"].update(devices=[]), None, "cluster.devices", "at least 1",
    ),
    "empty id": (
        lambda t: t["workflows"][1].update(id=""), "workflow #1", "id", "at least 1 character",
    ),
}  # fmt: skip

# Faults between fields of one stage: the message names the fields.
STAGE_FAULTS: dict[str, tuple[Tree, str]] = {
    "no kind": ({"model": None}, "model, tool_seconds and seconds_on"),
    "two kinds": ({"tool_seconds": 1.0}, "model, tool_seconds and seconds_on"),
    "no seconds": ({"model": None, "seconds_on": {}}, "seconds_on"),
    "fixed batch": ({"model": None, "seconds_on": {"d0": 1.0}, "queries": 2}, "one query"),
    "prefix without group": ({"prefix_tokens": 5}, "prefix_group"),
    "empty prompt": ({"prompt_tokens": 0}, "prompt_tokens or prefix_tokens"),
}


def own_gpu() -> Tree:
    return {
        "name": "Own", "memory_gb": 10, "bandwidth_gb_s": 100, "tflops": 10, "pcie": 3, "watts": 9,
        "usd_per_hour": 0, "mfu": 0.5, "mbu": 0.5,
    }  # fmt: skip


def own_model() -> Tree:
    return {
        "name": "Own", "params_b": 1, "layers": 2, "hidden": 8, "kv_heads": 1, "head_dim": 8,
        "weight_gb": 2,
    }  # fmt: skip


def fault_of(text: str | bytes) -> InputError:
    with pytest.raises(InputError) as caught:
        parse_problem(text, source="plan.json")
    return caught.value


def test_the_good_file_is_good() -> None:
    problem = parse_problem(json.dumps(GOOD | {"gpus": [own_gpu()], "models": [own_model()]}))
    assert problem.stage_count == 5


@pytest.mark.parametrize("name", FAULTS)
def test_fault_names_file_item_field_and_remedy(name: str) -> None:
    change, item, field, words = FAULTS[name]
    tree = copy.deepcopy(GOOD)
    change(tree)
    error = fault_of(json.dumps(tree))
    assert (error.source, error.item, error.field) == ("plan.json", item, field)
    assert any(word in error.fault for word in words.split("|"))
    assert error.remedy
    for part in ("plan.json", item or "", field or "", error.remedy):
        assert part in str(error)


@pytest.mark.parametrize("name", STAGE_FAULTS)
def test_fault_between_fields_names_file_stage_and_the_fields(name: str) -> None:
    change, words = STAGE_FAULTS[name]
    tree = copy.deepcopy(GOOD)
    stage(tree).update(change)
    error = fault_of(json.dumps(tree))
    assert (error.source, error.item) == ("plan.json", "workflow 'w0', stage 'ask'")
    assert words in error.fault
    assert error.remedy


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [("model", "Llama-3.1-8b", "Llama-3.1-8B"), ("model", "Qwen-2.5-14B", "Qwen2.5-14B")],
)
def test_the_remedy_for_a_misspelt_name_is_the_right_one(
    field: str, wrong: str, right: str
) -> None:
    tree = copy.deepcopy(GOOD)
    stage(tree)[field] = wrong
    remedy = fault_of(json.dumps(tree)).remedy
    assert remedy is not None
    assert repr(right) in remedy


@pytest.mark.parametrize(
    "text",
    [
        "", "{", json.dumps(GOOD)[:-1], json.dumps(GOOD) + "}", "[" * 100_000, "1" * 5000,
        b"\xff\xfe\x00", b'{"\xff": 1}', "\ufeff{}", "{'id': 1}",
    ],
)  # fmt: skip
def test_broken_json_is_one_clear_error(text: str | bytes) -> None:
    error = fault_of(text)
    assert error.fault.startswith("not valid JSON")
    assert error.source == "plan.json"
    assert error.remedy


@pytest.mark.parametrize("text", ["null", "[]", "5", '"text"', "NaN", "{}"])
def test_json_that_is_no_problem_is_one_clear_error(text: str) -> None:
    error = fault_of(text)
    assert error.source == "plan.json"
    assert error.remedy


def test_missing_file_and_directory_are_input_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(InputError) as caught:
            load_problem(path)
        assert caught.value.source == str(path)
        assert "cannot read" in caught.value.fault
        assert caught.value.remedy == "check the path"


def test_fault_in_a_file_names_its_path(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(GOOD)[:200], encoding="utf-8")
    with pytest.raises(InputError, match=r"plan\.json: not valid JSON"):
        load_problem(path)


@given(problems())
def test_json_round_trip(problem: Problem) -> None:
    text = dump_problem(problem)
    again = parse_problem(text)
    assert again == problem
    assert dump_problem(again) == text


def test_objectives_round_trip_and_stay_away_where_there_are_none() -> None:
    tree = copy.deepcopy(GOOD)
    tree["workflows"][0]["slo"] = {"tpot_s": 0.05}
    problem = parse_problem(json.dumps(tree))
    first, second = json.loads(problem.model_dump_json())["workflows"]
    assert first["slo"] == {"ttft_s": None, "tpot_s": 0.05}
    assert "slo" not in second
    assert parse_problem(problem.model_dump_json()) == problem


def test_file_round_trip(tmp_path: Path) -> None:
    problem = parse_problem(json.dumps(GOOD))
    path = tmp_path / "out.json"
    text = dump_problem(problem, path)
    assert path.read_text(encoding="utf-8") == text + "\n"
    assert load_problem(path) == problem
    assert json.loads(text)["schema_version"] == 1


# --- any damage to a valid file gives a valid problem or an InputError, and nothing else ---------

_JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, False, 0, -1, 1, 2.5, 1e308, -1e308, 1e-320, 10**30, 10**400, math.nan,
        math.inf, -math.inf, "", "x", "d0", "s0", "\ud800", "\x00", "é" * 600, [], {}, [[]], [None],
        {"id": "x"}, {"": 1},
    ]
)  # fmt: skip


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Yield the path to every value of a tree."""
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    return [path, *(place for key, child in items for place in _places(child, (*path, key)))]


def _damage(draw: st.DrawFn, tree: Any) -> Any:
    *path, last = draw(st.sampled_from([place for place in _places(tree) if place]))
    parent = tree
    for key in path:
        parent = parent[key]
    deed = draw(st.sampled_from(["delete", "replace", "replace", "double", "add", "swap"]))
    if deed == "delete":
        del parent[last]
    elif deed == "replace":
        parent[last] = draw(_JUNK)
    elif deed == "double" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
    elif deed == "add" and isinstance(parent[last], dict):
        parent[last][draw(st.sampled_from(["new", "id", "model", "gpu", "bytes"]))] = draw(_JUNK)
    else:
        parent[last] = copy.deepcopy(parent[draw(st.sampled_from(sorted(_keys(parent), key=str)))])
    return tree


def _keys(node: Any) -> list[Any]:
    return list(node) if isinstance(node, dict) else list(range(len(node)))


@st.composite
def damaged_trees(draw: st.DrawFn) -> str:
    tree = json.loads(dump_problem(draw(problems(most=4))))
    for _ in range(draw(st.integers(1, 3))):
        if len(_places(tree)) > 1:
            tree = _damage(draw, tree)
    return json.dumps(tree)


@st.composite
def damaged_texts(draw: st.DrawFn) -> bytes:
    text = dump_problem(draw(problems(most=3))).encode()
    at = draw(st.integers(0, len(text) - 1))
    end = draw(st.integers(at, min(len(text), at + 40)))
    middle = draw(
        st.sampled_from([b"", b"NaN", b"Infinity", b"1e999", b"\xff", b"{", b"]", b'"', b",", b"-"])
        | st.binary(max_size=8)
    )
    tail = b"" if draw(st.integers(0, 3)) == 0 else text[end:]
    return text[:at] + middle + tail


def _valid_or_input_error(text: str | bytes) -> None:
    fault: InputError | None = None
    try:
        problem = parse_problem(text, source="plan.json")
    except InputError as error:
        fault = error
    if fault is None:
        assert parse_problem(dump_problem(problem)) == problem
        return
    assert fault.source == "plan.json"
    assert fault.remedy
    assert str(fault).startswith("plan.json: ")
    assert str(fault).encode(), "a terminal has to be able to show it"


@given(damaged_trees())
@example(json.dumps(GOOD | {"id": "\ud800"}))
def test_damaged_tree_is_valid_or_an_input_error(text: str) -> None:
    _valid_or_input_error(text)


@given(damaged_texts())
def test_damaged_text_is_valid_or_an_input_error(text: bytes) -> None:
    _valid_or_input_error(text)
