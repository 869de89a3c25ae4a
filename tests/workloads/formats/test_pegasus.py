"""Pegasus: DAX and YAML give the same workflows; errors name their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.errors import InputError
from fate_gym.workloads import Content, import_workflow, read_workload
from fate_gym.workloads.formats import ImportedDag

EXAMPLES = Path("docs/examples/imports")

DAX = (EXAMPLES / "answer.dax").read_text(encoding="utf-8")
YAML = (EXAMPLES / "answer.yml").read_text(encoding="utf-8")


def read(text: str) -> ImportedDag:
    found = read_workload(Content("mine", text.encode()))[1]
    assert isinstance(found, ImportedDag)
    return found


def assert_refused(example: str, old: str, new: str, words: list[str]) -> None:
    """Check that a faulty example gives one error with the file's name and these words."""
    text = example.replace(old, new)
    assert text != example
    with pytest.raises(InputError) as caught:
        read(text)
    assert all(word in str(caught.value) for word in ("mine", *words))


@pytest.mark.parametrize("text", [DAX, YAML], ids=["dax", "yaml"])
def test_jobs_edges_bytes_and_seconds(text: str) -> None:
    found = read(text)
    assert found.topology.name == "answer"
    assert found.topology.task_ids == ("ID01", "ID02", "ID03", "ID04")
    assert found.topology.types == ("split", "search", "draft", "write")
    assert found.topology.edges.tolist() == [[0, 1], [0, 2], [1, 3], [2, 3]]
    assert found.edge_bytes == (2000, 2000, 400_000, 3000)
    assert found.seconds == (1.5, 0.8, 0, 0)


def test_files_make_dependencies_that_are_not_listed() -> None:
    without = DAX[: DAX.index("  <child")] + "</adag>"
    assert read(without).topology.edges.tolist() == read(DAX).topology.edges.tolist()


def test_older_dax() -> None:
    text = (
        '<adag name="old"><job id="a" name="x" runtime="2.5">'
        '<uses file="f" link="output" size="7"/></job>'
        '<job id="b" name="y"><uses file="f" link="input" size="7"/></job></adag>'
    )
    found = read(text)
    assert (found.seconds, found.edge_bytes) == ((2.5, 0), (7,))


def test_a_sidecar_with_a_default() -> None:
    workflow = import_workflow(read(DAX), 0, roles=EXAMPLES / "answer_roles.yaml")
    stages = {stage.label: stage for stage in workflow.stages}
    assert stages["search"].tool_seconds == 0.8
    assert stages["draft"].model == "Qwen2.5-7B"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('size="2000"', 'size="-1"', ["job 'ID01'", "size"]),
        ('size="2000"', 'size="big"', ["job 'ID01'", "size", "number"]),
        ('<parent ref="ID02"/>', '<parent ref="ID09"/>', ["'ID04'", "unknown job 'ID09'"]),
        ('<child ref="ID02">', '<child ref="ID09">', ["child", "unknown job 'ID09'"]),
        ('id="ID03"', 'id="ID02"', ["'ID02'", "twice"]),
        ('<child ref="ID02"><parent ref="ID01"', '<child ref="ID01"><parent ref="ID04"', ["cycle"]),
        ('link="output"', 'link="sideways"', ["job 'ID01'", "uses.link", "inout"]),
        ('<job id="ID03" name="draft">', '<job id="ID03">', ["job 'ID03'", "name", "missing"]),
        ("<adag xmlns", "<!DOCTYPE adag><adag xmlns", ["DOCTYPE"]),
        ("<adag xmlns", '<!DOCTYPE a [<!ENTITY b "c">]><adag xmlns', ["DOCTYPE"]),
        (">1.5<", ">&lots;<", ["not valid XML"]),
        (">1.5<", ">soon<", ["job 'ID01'", "runtime"]),
        ("</adag>", "", ["not valid XML"]),
        ("</adag>", '<dax id="x" file="y"/></adag>', ["dax", "workflow of its own"]),
    ],
)
def test_errors_of_a_dax(old: str, new: str, words: list[str]) -> None:
    assert_refused(DAX, old, new, words)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"5.0"', '"4.9"', ["pegasus", "4.9", "5.0"]),
        ("size: 2000", "size: -1", ["job 'ID01'", "uses.size"]),
        ("children: [ID02, ID03]", "children: [ID02, ID09]", ["'ID01'", "unknown job 'ID09'"]),
        ("{id: ID01,", "{id: ID09,", ["jobDependencies.id", "unknown job 'ID09'"]),
        ("id: ID03\n", "id: ID02\n", ["'ID02'", "twice"]),
        ("{id: ID02, children: [ID04]}", "{id: ID04, children: [ID01]}", ["cycle"]),
        ("type: output", "type: sideways", ["job 'ID01'", "uses.type", "inout"]),
        ("    name: draft\n", "", ["job 'ID03'", "name", "missing"]),
        ("runtime: 0.8", "runtime: .nan", ["job 'ID02'", "runtime"]),
        ("runtime: 0.8", "runtime: !!timestamp x", ["not valid YAML"]),
        ("type: job", "type: pegasusWorkflow", ["'ID01'", "workflow of its own"]),
    ],
)
def test_errors_of_yaml(old: str, new: str, words: list[str]) -> None:
    assert_refused(YAML, old, new, words)


def test_aliases_that_explode_are_one_short_error() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
    )
    with pytest.raises(InputError, match="aliases make more than"):
        read(f"{bomb}pegasus: '5.0'\njobs: {{a: *a29}}\n")
