"""Traces of agents in this project's own format: JSON Lines, one `Trace` per line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from pydantic import ValidationError

from fate_gym.errors import InputError
from fate_gym.problem.faults import first_repeated, from_pydantic
from fate_gym.workloads.formats.records import Record
from fate_gym.workloads.traces import Trace

SCHEMA = files("fate_gym.workloads").joinpath("data/agent_trace.schema.json")
"""JSON Schema of a line, for editors."""


@dataclass(frozen=True)
class ImportedTraces:
    """Sessions and runs of agents, in the order of the file."""

    name: str
    traces: tuple[Trace, ...]
    infer_prefixes: bool | None = None
    """As in `SessionRules`: some formats allow only to infer what prompts share."""

    @classmethod
    def of(
        cls, name: str, traces: Iterable[Trace], *, infer_prefixes: bool | None = None
    ) -> ImportedTraces:
        """Collect traces. Raises `InputError` if there are none, or an id occurs twice."""
        found = cls(name, tuple(traces), infer_prefixes)
        twice = first_repeated(trace.id for trace in found.traces)
        if twice is not None:
            raise InputError(
                "the id occurs twice", item=f"trace {twice!a}", field="id", remedy="make ids unique"
            )
        if not found.traces:
            raise InputError("there are no calls of models", remedy="check that it is complete")
        return found


def is_trace(first: Any) -> bool:
    """Return whether the first object of a file is a trace."""
    return isinstance(first, dict) and "calls" in first


def read_traces(records: list[Record], name: str) -> ImportedTraces:
    """Return the traces of a file.

    Raises:
        InputError: naming the line and the field at fault.
    """
    return ImportedTraces.of(name, (_trace(record) for record in records))


def trace_schema() -> str:
    """Return the JSON Schema of a trace, the content of `SCHEMA`."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Trace.model_json_schema()
    return json.dumps(schema, indent=1) + "\n"


def checked_trace(values: dict[str, Any], item: str | None) -> Trace:
    """Return a trace from plain data. Raises `InputError` naming the field at fault."""
    try:
        return Trace.model_validate(values)
    except ValidationError as error:
        raise _located(error, values, item) from None


def _trace(record: Record) -> Trace:
    values = record.json()  # first, as pydantic's own parser would accept a repeated key
    try:
        return Trace.model_validate_json(record.data)
    except ValidationError as error:
        raise _located(error, values, record.item) from None


def _located(error: ValidationError, values: Any, item: str | None) -> InputError:
    fault = from_pydantic(error, values, "")
    where = ", ".join(part for part in (item, fault.item) if part)
    return InputError(fault.fault, item=where or None, field=fault.field, remedy=fault.remedy)
