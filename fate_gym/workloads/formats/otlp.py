"""OpenTelemetry spans of agents: OTLP JSON, with the semantic conventions for generative AI.

A file holds an export request (``resourceSpans``, ``scopeSpans``, ``spans``), or one per line. The
attributes read are those of the conventions 1.37 and later, and older names of token counts:
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans. docs/workloads.md describes how
spans become workflows; this module reads them, `fate_gym.workloads.formats.spans` orders them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fate_gym.catalog.limits import MOST_QUERIES, MOST_SECONDS
from fate_gym.errors import InputError
from fate_gym.workloads.formats.agent_traces import ImportedTraces
from fate_gym.workloads.formats.fields import (
    Fields,
    checked_number,
    checked_text,
    checked_tokens,
    wrong,
)
from fate_gym.workloads.formats.records import Record
from fate_gym.workloads.formats.spans import Span, trace_of

_MODEL_OPERATIONS = {"chat", "text_completion", "generate_content", "embeddings"}
_INPUT = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
_OUTPUT = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
_MODEL = ("gen_ai.request.model", "gen_ai.response.model")
_AGENT = ("gen_ai.agent.id", "gen_ai.agent.name")
_CACHED = "gen_ai.usage.cache_read.input_tokens"
_CHOICES = "gen_ai.request.choice.count"
_CONVERSATION = "gen_ai.conversation.id"
_FAILED = 2
"""Status code of a span that ended in an error."""
_MOST_NS = 2**64


def is_otlp(first: Any) -> bool:
    """Return whether the first object of a file is an export request of spans."""
    return isinstance(first, dict) and "resourceSpans" in first


def read_otlp(records: Sequence[Record], name: str) -> ImportedTraces:
    """Return a trace per conversation, with a turn per trace id; other trace ids stand alone.

    Raises:
        InputError: naming the span and the attribute at fault.
    """
    by_trace: dict[str, dict[str, Span]] = {}
    for record in records:
        for span in _spans(record):
            known = by_trace.setdefault(span.trace, {})
            if span.id in known:
                raise InputError(
                    "the id occurs twice in its trace",
                    item=span.item,
                    field="spanId",
                    remedy="export each span once",
                )
            known[span.id] = span
    sessions: dict[str, list[list[Span]]] = {}
    useful = [list(known.values()) for known in by_trace.values()]
    useful = [spans for spans in useful if any(span.is_call for span in spans)]
    for spans in sorted(useful, key=lambda spans: min(span.start for span in spans)):
        named = (span.conversation for span in spans if span.conversation is not None)
        sessions.setdefault(next(named, spans[0].trace), []).append(spans)
    first = min((span.start for turn in useful for span in turn), default=0)
    return ImportedTraces.of(
        name,
        (trace_of(session, turns, first) for session, turns in sessions.items()),
        infer_prefixes=True,
    )


def _spans(record: Record) -> Iterator[Span]:
    top = Fields(Fields.of(record.json(), record.item, "the file").values, record.item)
    number = 0
    for resource in top.objects("resourceSpans"):
        for scope in resource.objects("scopeSpans", []):
            for row in scope.objects("spans", []):
                yield _span(row.values, record.item, number)
                number += 1


def _span(row: Mapping[Any, Any], line: str | None, number: int) -> Span:
    item = f"span #{number}" if line is None else f"{line}, span #{number}"
    key = checked_text(row.get("spanId"), item, "spanId")
    item = f"span {key!a}" if line is None else f"{line}, span {key!a}"
    start = _nanoseconds(row.get("startTimeUnixNano"), item, "startTimeUnixNano")
    end = _nanoseconds(row.get("endTimeUnixNano"), item, "endTimeUnixNano")
    if end < start:
        raise InputError(
            f"ends {(start - end) / 1e9:g} s before it starts",
            item=item,
            field="endTimeUnixNano",
            remedy="correct the clock, or remove the span",
        )
    checked_number((end - start) / 1e9, item, "endTimeUnixNano", MOST_SECONDS)
    attributes = _attributes(row.get("attributes"), item)
    parent = row.get("parentSpanId")
    span = Span(
        id=key,
        trace=checked_text(row.get("traceId"), item, "traceId"),
        parent=None if parent in (None, "") else checked_text(parent, item, "parentSpanId"),
        item=item,
        start=start,
        end=end,
        agent=_text(attributes, _AGENT, item),
        conversation=_text(attributes, (_CONVERSATION,), item),
    )
    return _with_call(span, row, attributes)


def _with_call(span: Span, row: Mapping[Any, Any], attributes: dict[str, Any]) -> Span:
    """Return the span with the data of its model or tool call, if it is one."""
    operation = _text(attributes, ("gen_ai.operation.name",), span.item)
    tokens = _tokens(attributes, _INPUT, span.item)
    model = _text(attributes, _MODEL, span.item)
    tool = _text(attributes, ("gen_ai.tool.name",), span.item)
    if operation == "execute_tool" or (operation is None and tool is not None):
        return span._replace(tool=tool or "tool")
    if operation is None:
        calls_model = model is not None and tokens is not None
    else:
        calls_model = operation in _MODEL_OPERATIONS
    if not calls_model:
        return span
    status = row.get("status")
    failed = isinstance(status, dict) and status.get("code") in (_FAILED, "STATUS_CODE_ERROR")
    if not tokens:
        if failed or "error.type" in attributes:
            return span
        raise InputError(
            "a call of a model says no input tokens",
            item=span.item,
            field=_INPUT[0],
            remedy="record the usage of tokens, or remove the span",
        )
    samples = _count(attributes, span.item)
    output = _tokens(attributes, _OUTPUT, span.item) or 0
    return span._replace(
        model=model,
        operation=operation or "chat",
        prompt_tokens=tokens,
        output_tokens=-(-output // samples),
        cached_tokens=_tokens(attributes, (_CACHED,), span.item),
        samples=samples,
    )


def _nanoseconds(value: Any, item: str, field: str) -> int:
    """Return a 64-bit number, which OTLP writes as a text; numbers are accepted too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < _MOST_NS:
        raise wrong(value, item, field, "a number of nanoseconds")
    return value


def _attributes(entries: Any, item: str) -> dict[str, Any]:
    """Return the attributes that are texts or whole numbers, by key."""
    if entries is None:
        return {}
    if not isinstance(entries, list):
        raise wrong(entries, item, "attributes", "a list")
    found = {}
    for entry in entries:
        key = entry.get("key") if isinstance(entry, dict) else None
        if not isinstance(key, str):
            raise wrong(entry, item, "attributes", "a list of keys and values")
        value = entry.get("value")
        if not key.startswith(("gen_ai.", "error.")) or not isinstance(value, dict):
            continue
        if "stringValue" in value:
            found[key] = value["stringValue"]
        elif "intValue" in value:
            found[key] = _whole(value["intValue"])
    return found


def _whole(value: Any) -> Any:
    """Return a whole number; 64-bit ones are texts in OTLP JSON."""
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError:
            return value
    return value


def _text(attributes: dict[str, Any], keys: Sequence[str], item: str) -> str | None:
    for key in keys:
        if attributes.get(key) not in (None, ""):
            return checked_text(attributes[key], item, key)
    return None


def _tokens(attributes: dict[str, Any], keys: Sequence[str], item: str) -> int | None:
    for key in keys:
        if attributes.get(key) is not None:
            return checked_tokens(attributes[key], item, key)
    return None


def _count(attributes: dict[str, Any], item: str) -> int:
    value = attributes.get(_CHOICES, 1)
    if type(value) is not int or not 1 <= value <= MOST_QUERIES:
        raise wrong(value, item, _CHOICES, f"a whole number from 1 to {MOST_QUERIES:g}")
    return value
