"""Detect the format of a user's file, and read it.

A format is recognised by its content, not by the file name. To add one, add an entry to `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fate_gym.errors import InputError
from fate_gym.problem.io import parse_json, read_bytes
from fate_gym.workloads.config import parse_yaml
from fate_gym.workloads.formats import agent_traces, graph, hashed, otlp, pegasus, requests, weka
from fate_gym.workloads.formats.records import Record, is_json_lines, records_of
from fate_gym.workloads.formats.sidecar import Imported
from fate_gym.workloads.formats.wfformat import is_wfformat, parse_wfformat

_YAML_KEY = re.compile(
    r"^[\"']?(?:pegasus|x-pegasus|jobs|jobDependencies|types|default)[\"']?\s*:(?:\s|$)",
    re.MULTILINE,
)
"""Top-level keys of the YAML formats known here."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Content:
    """The content of a file, parsed on demand."""

    source: str | Path
    data: bytes

    @classmethod
    def of(cls, path: str | Path) -> Content:
        """Return the content of a file. Raises `InputError` if it cannot be read."""
        return cls(path, read_bytes(path).removeprefix(_BOM))

    @property
    def name(self) -> str:
        return Path(self.source).stem or "workflow"

    @cached_property
    def start(self) -> bytes:
        """The first non-blank character."""
        return self.data.lstrip()[:1]

    @cached_property
    def json(self) -> Any:
        """The parsed JSON; None if the file is not JSON, or is JSON Lines. Raises `InputError`."""
        if self.start not in (b"{", b"[") or is_json_lines(self.data):
            return None
        return parse_json(self.data, source=self.source)

    @cached_property
    def records(self) -> list[Record]:
        """The lines of JSON Lines, or a file's single object; empty for other files."""
        if self.start != b"{":
            return []
        if is_json_lines(self.data):
            return records_of(self.data)
        return [Record(None, self.data, self.json)]

    @cached_property
    def first(self) -> Any:
        """The object of the first line, or of the whole file. Raises `InputError`."""
        if not self.records or not is_json_lines(self.data):
            return self.json
        try:
            return self.records[0].json()
        except InputError as error:
            raise error.at(self.source) from None

    @cached_property
    def text(self) -> str:
        """The text of a file that is neither JSON nor XML, else empty. Raises `InputError`."""
        if self.start in (b"{", b"[", b"<"):
            return ""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"is not text in UTF-8 ({error.reason} at byte {error.start})",
                source=self.source,
                remedy="save it as UTF-8",
            ) from None

    @cached_property
    def yaml(self) -> Any:
        """The parsed YAML, if a known top-level key occurs; else None. Raises `InputError`."""
        if not _YAML_KEY.search(self.text):
            return None
        return parse_yaml(self.text.encode(), self.source)


@dataclass(frozen=True)
class Format:
    """A file format: its name, how it is recognised, and how it is read."""

    name: str
    holds: Callable[[Content], bool]
    read: Callable[[Content], Imported]


def _requests(name: str, columns: requests.Columns) -> Format:
    return Format(
        name,
        lambda content: requests.has_columns(content.text, columns),
        lambda content: requests.read_requests(content.text, content.name, columns),
    )


def _hashed(name: str, kind: hashed.Hashed) -> Format:
    return Format(
        name,
        lambda content: hashed.is_hashed(content.first, kind),
        lambda content: hashed.read_hashed(content.records, content.name, kind),
    )


FORMATS = (
    Format(
        "WfFormat",
        lambda content: is_wfformat(content.json),
        lambda content: parse_wfformat(content.json, source=content.source),
    ),
    Format(
        "networkx node-link",
        lambda content: graph.is_node_link(content.json),
        lambda content: graph.read_node_link(content.json, content.name),
    ),
    Format(
        "Pegasus DAX",
        lambda content: content.start == b"<" and pegasus.is_dax(content.data),
        lambda content: pegasus.read_dax(content.data, content.name),
    ),
    Format(
        "agent trace JSON Lines",
        lambda content: agent_traces.is_trace(content.first),
        lambda content: agent_traces.read_traces(content.records, content.name),
    ),
    Format(
        "OpenTelemetry GenAI spans",
        lambda content: otlp.is_otlp(content.first),
        lambda content: otlp.read_otlp(content.records, content.name),
    ),
    _hashed("Mooncake trace", hashed.MOONCAKE),
    _hashed("Qwen-Bailian trace", hashed.BAILIAN),
    Format(
        "kv-cache-tester trace",
        lambda content: weka.is_weka(content.first),
        lambda content: weka.read_weka(content.records, content.name),
    ),
    _requests("Azure LLM inference trace", requests.AZURE),
    _requests("BurstGPT trace", requests.BURSTGPT),
    Format(
        "Pegasus 5 YAML",
        lambda content: pegasus.is_pegasus_yaml(content.yaml),
        lambda content: pegasus.read_pegasus_yaml(content.yaml, content.name),
    ),
    Format(
        "adjacency list",
        lambda content: graph.is_adjacency_list(content.text),
        lambda content: graph.read_adjacency_list(content.text, content.name),
    ),
)
"""In order of precedence: the first that recognises a file is taken."""


def is_problem(content: Content) -> bool:
    """Return whether the file is a problem. Raises `InputError` for broken JSON."""
    return isinstance(content.json, dict) and "workflows" in content.json


def format_of(content: Content) -> Format:
    """Return the format of a workflow file or trace.

    Raises:
        InputError: for any other file, saying what it is and which command takes it.
    """
    if is_problem(content):
        verb = "plan" if "state" in content.json else "validate"
        raise InputError(
            f"is a {'snapshot' if verb == 'plan' else 'problem'}, which needs no import",
            source=content.source,
            remedy=f"use fate-gym {verb} FILE",
        )
    for entry in FORMATS:
        if entry.holds(content):
            return entry
    if isinstance(content.yaml, dict) and {"types", "default"} & content.yaml.keys():
        raise InputError(
            "is a sidecar with attributes by task type",
            source=content.source,
            remedy="give it with --roles, beside the file of a workflow",
        )
    raise InputError(
        "is in no format that can be imported",
        source=content.source,
        remedy=f"give a problem or one of {', '.join(entry.name for entry in FORMATS)}",
    )


def read_workload(content: Content) -> tuple[str, Imported]:
    """Return the name of the format, and the content of the file.

    Raises:
        InputError: naming the file, the element or line in it, and the field at fault.
    """
    found = format_of(content)
    try:
        return found.name, found.read(content)
    except InputError as error:
        raise error.at(content.source) from None
