"""OpenTelemetry spans: which are calls, what they depend on, conversations, prefixes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.problem import Problem, Workflow
from fate_gym.workloads import Content, import_workflows, load_cluster, read_workload
from fate_gym.workloads.formats.agent_traces import ImportedTraces

SECOND = 10**9
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 10,
}
TOOL = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}


def span(
    key: str, start: float, end: float, parent: str = "", *, trace: str = "t", **fields: Any
) -> dict[str, Any]:
    """Return a span; ``fields`` are attributes, or other fields of the span by name."""
    attributes = fields.pop("attributes", CHAT)
    return {
        "traceId": trace,
        "spanId": key,
        "parentSpanId": parent,
        "startTimeUnixNano": str(int((100 + start) * SECOND)),
        "endTimeUnixNano": str(int((100 + end) * SECOND)),
        "attributes": [
            {"key": name, "value": {"intValue" if isinstance(value, int) else "stringValue": value}}
            for name, value in attributes.items()
        ],
    } | fields


def content(*spans: dict[str, Any]) -> Content:
    request = {"resourceSpans": [{"scopeSpans": [{"spans": list(spans)}]}]}
    return Content("spans.json", json.dumps(request).encode())


def imported(*spans: dict[str, Any], **options: Any) -> tuple[Workflow, ...]:
    found = read_workload(content(*spans))[1]
    assert isinstance(found, ImportedTraces)
    return import_workflows(found, 0, model="Llama-3.1-8B", **options)


def parents(workflow: Workflow) -> dict[str, set[str]]:
    return {stage: {edge.parent for edge in edges} for stage, edges in workflow.parents.items()}


def test_fan_out_and_join() -> None:
    (workflow,) = imported(
        span("root", 0, 9, attributes={"gen_ai.operation.name": "invoke_agent"}),
        span("plan", 0, 1, "root"),
        span("a", 1, 3, "root"),
        span("b", 1.5, 4, "root", attributes=TOOL),
        span("http", 4, 8, "root", attributes={}),
        span("end", 8, 9, "root"),
    )
    assert parents(workflow) == {
        "call-0": set(),
        "call-1": {"call-0"},
        "tool-2": {"call-0"},
        "gap-3": {"call-1", "tool-2"},
        "call-3": {"gap-3"},
    }
    seconds = {stage.id: stage.tool_seconds for stage in workflow.stages}
    assert (seconds["tool-2"], seconds["gap-3"]) == (2.5, 4)
    assert workflow.stages[2].label == "search"


def test_what_is_inside_waits_for_what_precedes_and_is_waited_for() -> None:
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
    (workflow,) = imported(
        span("plan", 0, 1),
        span("agent", 1, 5, attributes=agent),
        span("x", 1, 3, "agent"),
        span("y", 2, 5, "agent"),
        span("tool", 3, 4, "x", attributes={"gen_ai.tool.name": "in the call"}),
        span("last", 5, 6),
    )
    # A span of a model with calls inside is no call itself.
    assert parents(workflow) == {
        "call-0": set(),
        "tool-1": {"call-0"},
        "call-2": {"call-0"},
        "call-3": {"tool-1", "call-2"},
    }
    assert [stage.label for stage in workflow.stages][2] == "helper"


def test_older_names_choices_and_embeddings() -> None:
    old = {
        "gen_ai.response.model": "m",
        "gen_ai.usage.prompt_tokens": 50,
        "gen_ai.usage.completion_tokens": 7,
        "gen_ai.request.choice.count": 2,
    }
    embed = {"gen_ai.operation.name": "embeddings", "gen_ai.usage.input_tokens": 30}
    (workflow,) = imported(
        span("a", 0, 1, attributes=old), span("b", 1, 2, attributes=embed | {"error.type": "none"})
    )
    first, second = workflow.stages
    assert (first.queries, first.output_tokens) == (2, 4)
    assert first.prefix_tokens + first.prompt_tokens == 50
    assert (second.prompt_tokens, second.output_tokens) == (30, 0)


def test_conversations_are_sessions() -> None:
    talk = CHAT | {"gen_ai.conversation.id": "c"}
    longer = talk | {"gen_ai.usage.input_tokens": 300}
    spans = (
        span("b", 20, 21, trace="second", attributes=longer),
        span("a", 0, 1, trace="first", attributes=talk),
        span("x", 5, 6, trace="other"),
    )
    first, second, other = imported(*spans)
    assert (first.id, second.id, other.id) == ("c/turn-0", "c/turn-1", "other")
    assert (second.follows, second.think_seconds) == ("c/turn-0", 19)
    assert (first.session, other.session, other.arrival) == ("c", "other", 5)
    assert second.stages[0].prefix_tokens == 110
    cached = talk | {"gen_ai.usage.cache_read.input_tokens": 80}
    spans = (*spans, span("d", 30, 31, trace="third", attributes=cached))
    assert imported(*spans)[2].stages[0].prefix_tokens == 80
    apart = imported(*spans, infer_prefixes=False)
    assert [w.stages[0].prefix_group for w in apart] == [None] * 4


def test_export_requests_by_line() -> None:
    text = b"\n".join(content(span(str(number), number, number + 1)).data for number in range(3))
    found = read_workload(Content("x", text))[1]
    assert isinstance(found, ImportedTraces)
    (workflow,) = import_workflows(found, 0, model="Llama-3.1-8B")
    assert len(workflow.stages) == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"startTimeUnixNano": None}, ["startTimeUnixNano", "is missing"]),
        ({"endTimeUnixNano": "-5"}, ["endTimeUnixNano", "nanoseconds"]),
        ({"endTimeUnixNano": str(90 * SECOND)}, ["endTimeUnixNano", "before it starts"]),
        ({"spanId": ""}, ["span #1", "spanId"]),
        ({"spanId": "a"}, ["span 'a'", "occurs twice"]),
        ({"parentSpanId": "b"}, ["parentSpanId", "its own ancestor"]),
        ({"traceId": 5}, ["traceId"]),
        ({"attributes": {}}, ["attributes", "a list"]),
        ({"attributes": [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}]},
         ["gen_ai.usage.input_tokens", "record the usage"]),
        ({"attributes": [{"key": "gen_ai.tool.name", "value": {"intValue": "7"}}]},
         ["gen_ai.tool.name"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(changed: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        imported(span("a", 0, 1), span("b", 0, 1) | changed)
    assert all(word in str(caught.value) for word in ("spans.json", *words))


@pytest.mark.parametrize("value", [-1, 10**9, "many", "1.5"])
def test_tokens_are_whole_numbers(value: Any) -> None:
    attributes = CHAT | {"gen_ai.usage.input_tokens": 5}
    given = span("a", 0, 1, attributes=attributes)
    given["attributes"][2]["value"] = {"intValue": value}
    with pytest.raises(InputError, match=r"span 'a': field 'gen_ai.usage.input_tokens'"):
        imported(given)


def test_failed_calls_without_usage_and_missing_parents() -> None:
    failed = {"gen_ai.operation.name": "chat", "error.type": "timeout"}
    other = span("f", 2, 3, attributes={"gen_ai.operation.name": "chat"}, status={"code": 2})
    (workflow,) = imported(span("e", 1, 2, attributes=failed), other, span("a", 0, 1, "elsewhere"))
    assert [stage.id for stage in workflow.stages] == ["call-0"]
    with pytest.raises(InputError, match="no calls of models"):
        imported(span("e", 1, 2, attributes=failed))


def test_nesting_without_end() -> None:
    spans = [span(str(n), 0, 1, str(n - 1)) for n in range(1, 1000)]
    with pytest.raises(InputError, match="nested more than 300 deep"):
        imported(*spans)


def before(workflow: Workflow) -> dict[str, set[str]]:
    """Return all ancestors of each stage; stages are in topological order."""
    found: dict[str, set[str]] = {}
    for stage in workflow.stages:
        near = {edge.parent for edge in workflow.parents[stage.id]}
        found[stage.id] = near.union(*(found[parent] for parent in near))
    return found


SIBLINGS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), min_size=1, max_size=25)


@example([(0, 1)] * 12 + [(5, 1)] * 12)
@given(SIBLINGS)
def test_spans_come_after_those_that_had_ended(times: Sequence[tuple[int, int]]) -> None:
    times = sorted((start, start + length) for start, length in times)
    (workflow,) = imported(
        *(span(str(n), start, end) for n, (start, end) in enumerate(times)), infer_prefixes=False
    )
    order = before(workflow)
    calls = [stage.id for stage in workflow.stages if stage.model is not None]
    for one, (_, end) in zip(calls, times, strict=True):
        for other, (start, _) in zip(calls, times, strict=True):
            assert (one in order[other]) == (end <= start)
    assert len(workflow.edges) <= 10 * len(workflow.stages)


def test_a_thousand_side_by_side_are_joined() -> None:
    spans = [span(f"{wave}-{n}", wave, wave + 1) for wave in (0, 1) for n in range(1000)]
    (workflow,) = imported(*spans)
    assert len(workflow.edges) == 2000
    assert sum(stage.label == "join" for stage in workflow.stages) == 1
    Problem.build(load_cluster("mixed_12"), [workflow])


def test_the_example() -> None:
    found = read_workload(Content.of(Path("docs/examples/imports/spans.json")))[1]
    first, second = import_workflows(found, 0, model="Llama-3.1-8B")
    assert all(one.id != other.id for one, other in pairwise((first, second)))
    assert parents(first)["gap-5"] == {"tool-1", "tool-2", "call-4"}
    assert second.stages[0].prefix_tokens == 2200
