"""Every format is detected from the file's content; mutated files are valid or one error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.problem import Cluster, Problem, dump_problem
from fate_gym.workloads import (
    Content,
    build_suite,
    import_workflows,
    load_cluster,
    parse_suite,
    read_workload,
)
from fate_gym.workloads.formats import FORMATS, problem_id

EXAMPLES = Path("docs/examples/imports")
FORMAT_OF = {
    "answer.dax": "Pegasus DAX",
    "answer.yml": "Pegasus 5 YAML",
    "graph.json": "networkx node-link",
    "graph.adjlist": "adjacency list",
    "azure.csv": "Azure LLM inference trace",
    "burstgpt.csv": "BurstGPT trace",
    "traces.jsonl": "agent trace JSON Lines",
    "spans.json": "OpenTelemetry GenAI spans",
    "mooncake.jsonl": "Mooncake trace",
    "bailian.jsonl": "Qwen-Bailian trace",
    "kv_cache_tester.json": "kv-cache-tester trace",
}
MODEL_NEEDED = {Path(file).stem for file in list(FORMAT_OF)[4:]}
CLUSTER: Cluster = load_cluster("mixed_12")


def build(content: Content) -> Problem:
    _, found = read_workload(content)
    model = "Llama-3.1-8B" if content.name in MODEL_NEEDED else None
    workflows = import_workflows(found, 0, model=model)
    return Problem.build(CLUSTER, workflows, id=problem_id(found, workflows))


def test_every_format_has_an_example() -> None:
    assert {*FORMAT_OF.values(), "WfFormat"} == {entry.name for entry in FORMATS}


@pytest.mark.parametrize("file", FORMAT_OF)
def test_the_name_of_the_file_does_not_matter(file: str) -> None:
    data = (EXAMPLES / file).read_bytes()
    for content in (Content("trace.txt", data), Content("x", b"\n" + data)):
        if content.source == "x" and file.endswith("dax"):
            continue  # XML begins with its declaration
        assert read_workload(content)[0] == FORMAT_OF[file]


@pytest.mark.parametrize("file", FORMAT_OF)
def test_the_same_file_gives_the_same_problem(file: str) -> None:
    first, again = (dump_problem(build(Content.of(EXAMPLES / file))) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", ["no format", "BurstGPT"]),
        (b"Hello, world!\n", ["no format", "Pegasus DAX"]),
        (b'{"a": 1}\n{"b": 2}\n', ["no format"]),
        (b'{"a": ', ["not valid JSON"]),
        (b'{"a" 1}\n{"b": 2}\n', ["line 1", "not valid JSON"]),
        (b"[1, 2]", ["no format"]),
        (b"<html></html>", ["no format"]),
        (b"types:\n  a: {model: bge-large}\n", ["sidecar", "--roles"]),
        (b'{"workflows": []}', ["problem", "fate-gym validate"]),
        (b'{"workflows": [], "state": {}}', ["snapshot", "fate-gym plan"]),
        (b"\xff\xfe", ["UTF-8"]),
        (b"a,b,c\n1,2,3\n", ["no format"]),
        (b"name: x\nvalue: [\n", ["no format"]),
        (b"jobs: [\n", ["not valid YAML"]),
    ],
)
def test_other_files_are_one_error_that_helps(text: bytes, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        read_workload(Content("mine.txt", text))
    assert all(word in str(caught.value) for word in ("mine.txt", *words))


NASTY = """-1|0|1e999|nan|null|[]|{}|é|\u2028|\x00|\ud800|ID01|ID04|*a|&a |!!int x|!!timestamp x
|<|>|"|'|,|:|<!DOCTYPE a>|&lt;|&x;|2026-13-01|0001-01-01|9999-12-31T23:59:59+00:00"""
BITS = st.sampled_from(["", "|", "9" * 5000, *NASTY.split("|")]) | st.text(max_size=4)


@given(st.sampled_from(sorted(FORMAT_OF)), st.data())
def test_mutated_files_are_valid_or_one_error(file: str, data: st.DataObject) -> None:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 40)))
        text = text[:start] + data.draw(BITS) + text[end:]
    check(file, text)


@given(st.sampled_from(sorted(FORMAT_OF)), st.data())
def test_files_with_moved_lines_are_valid_or_one_error(file: str, data: st.DataObject) -> None:
    lines = (EXAMPLES / file).read_text(encoding="utf-8").splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        line = lines.pop(data.draw(st.integers(0, len(lines) - 1)))
        for _ in range(data.draw(st.integers(0, 2))):
            lines.insert(data.draw(st.integers(0, len(lines))), line)
        if not lines:
            break
    check(file, "".join(lines))


@given(st.sampled_from(sorted(FORMAT_OF)), st.data())
def test_files_with_swapped_words_are_valid_or_one_error(file: str, data: st.DataObject) -> None:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    words = sorted({*text.replace('"', " ").replace(",", " ").split()})
    old, new = (data.draw(st.sampled_from(words)) for _ in range(2))
    check(file, text.replace(old, new, data.draw(st.sampled_from([1, -1]))))


NASTY_VALUES = st.sampled_from(
    [None, -1, 0, 0.5, 1e308, 10**30, 2**63, "", "x", "-5", "\ud800", [], {}, [1], [[0]], True]
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of everything inside a JSON value."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in entries:
        yield (*place, key)
        if isinstance(entry, dict | list):
            yield from places(entry, (*place, key))


@given(st.sampled_from([file for file in FORMAT_OF if ".json" in file]), st.data())
def test_changed_fields_are_valid_or_one_error(file: str, data: st.DataObject) -> None:
    text = (EXAMPLES / file).read_text(encoding="utf-8")
    objects = [json.loads(line) for line in (text.splitlines() if "jsonl" in file else [text])]
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from([*places(objects)]))
        holder = objects
        for key in path:
            holder = holder[key]
        change = data.draw(st.sampled_from(["set", "remove", "repeat"]))
        if change == "set":
            holder[last] = copy.deepcopy(data.draw(NASTY_VALUES))
        elif change == "repeat" and isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        elif len(objects) > 1 or path:
            del holder[last]
    check(file, "\n".join(json.dumps(value) for value in objects))


@example(EXAMPLES / "azure.csv", b"")
@given(st.sampled_from([EXAMPLES / file for file in FORMAT_OF]), st.binary(max_size=4))
def test_bytes_of_any_kind_are_one_error_at_most(file: Path, garbage: bytes) -> None:
    data = file.read_bytes()
    for place in (0, len(data) // 2, len(data)):
        check_bytes(file.name, data[:place] + garbage)


def check(file: str, text: str) -> None:
    check_bytes(file, text.encode("utf-8", "surrogatepass"))


def check_bytes(file: str, data: bytes) -> None:
    message = fault(Content(file, data))
    assert message is None or file in message
    (message or "").encode()  # can be printed


def fault(content: Content) -> str | None:
    """Return the message of a file's input error; other exceptions are not caught."""
    try:
        assert build(content).stage_count
    except InputError as error:
        return str(error.at(content.source))  # as `import_file` and the suite do
    return None


def test_the_suite_files_reads_every_format() -> None:
    files = [str(EXAMPLES / file) for file in ("answer.dax", "graph.json", "graph.adjlist")]
    spec = parse_suite(
        {"name": "f", "cluster": "mixed_12", "source": "files", "files": files}, source="f"
    )
    assert len(build_suite(spec, CLUSTER, 0)) == 3
    spec = parse_suite(
        {"name": "f", "cluster": "mixed_12", "source": "files", "model": "Llama-3.1-8B"}
        | {"files": [str(EXAMPLES / file) for file in ("azure.csv", "burstgpt.csv")]},
        source="f",
    )
    azure, burst = build_suite(spec, CLUSTER, 0)
    assert (azure.stage_count, burst.stage_count) == (4, 4)
