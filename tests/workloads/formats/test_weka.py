"""Sessions of kv-cache-tester: turns, sub-agents, blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fate_gym.errors import InputError
from fate_gym.problem import Workflow
from fate_gym.workloads import Content, import_workflows, read_workload
from tests.workloads.test_sessions import found

REQUEST = {"t": 0.0, "type": "s", "model": "m", "in": 700, "out": 60, "hash_ids": list(range(10))}


def imported(*requests: Any, **fields: Any) -> tuple[Workflow, ...]:
    session = {"id": "s", "block_size": 64, "hash_id_scope": "local", "requests": list(requests)}
    trace = read_workload(Content("w.json", json.dumps(session | fields).encode()))[1]
    return import_workflows(trace, 0, model="Llama-3.1-8B")


def test_the_example() -> None:
    trace = read_workload(Content.of(Path("docs/examples/imports/kv_cache_tester.json")))[1]
    first, second = import_workflows(trace, 0, model="Llama-3.1-8B")
    join = {edge.parent for edge in first.parents["call-5"]}
    assert join == {"call-1", "call-3", "call-4"}
    assert (second.follows, second.think_seconds) == (first.id, 60)
    assert found([first, second]) == [0, 700, 0, 296, 128, 976, 1242]
    assert first.prefixes[0].parent == "system/weka/448"


def test_sub_agents_have_blocks_of_their_own_unless_the_scope_says_otherwise() -> None:
    agent = {"t": 1.0, "type": "subagent", "requests": [REQUEST | {"in": 690}]}
    assert found(imported(REQUEST, agent)) == [0, 640]
    assert found(imported(REQUEST, agent, hash_id_scope="per_context")) == [0, 0]


def test_gaps_without_think_time_are_what_the_api_left() -> None:
    later = REQUEST | {"t": 9.0, "input_types": ["tool_result"]}
    (workflow,) = imported(REQUEST | {"api_time": 4.0}, later)
    assert [stage.tool_seconds for stage in workflow.stages] == [None, 5, None]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"in": 0}, ["requests.1.in", "1 at least"]),
        ({"in": None}, ["requests.1.in", "missing"]),
        ({"out": -1}, ["requests.1.out"]),
        ({"t": "soon"}, ["requests.1.t", "a number"]),
        ({"hash_ids": [1.5]}, ["requests.1.hash_ids"]),
        ({"type": "subagent", "requests": {}}, ["requests.1.requests", "a list"]),
        ({"think_time": -2}, ["requests.1.think_time"]),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        imported(REQUEST, REQUEST | changed)
    assert all(word in str(caught.value) for word in ("w.json", *words))


def test_empty_sessions() -> None:
    for fields in ({"block_size": 0}, {"id": 7}):
        with pytest.raises(InputError, match=f"field '{next(iter(fields))}'"):
            imported(REQUEST, **fields)
    with pytest.raises(InputError, match="has no requests"):
        imported({"t": 0, "type": "subagent", "requests": []})
