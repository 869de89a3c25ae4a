"""Traces of real agents and chats, packed as package data: calls, their order, and tokens.

``scripts/pack_agent_traces.py`` makes the files; ``data/agent_traces/record.json`` states each
source's origin, licence and contents. docs/workloads.md describes what was measured and how
faithful it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

from fate_gym.errors import check_known
from fate_gym.workloads.packed import pack_json, unpack_json

FORMAT = 1
SOURCES = (
    "weka_claude_code",
    "coding_sessions",
    "tau_bench",
    "mini_swe",
    "tree_of_thoughts",
    "mooncake_conversation",
)
RECORD_FILE = "record.json"

TraceSplit = Literal["train", "validation", "test", "all"]
_SHARES: tuple[tuple[TraceSplit, float], ...] = (
    ("train", 0.5),
    ("validation", 0.75),
    ("test", 1.0),
)
"""Where each split ends, as a share of a source's groups ordered by hash."""

Row = dict[str, Any]


def data_file(source: str) -> str:
    """Return the name of the file that holds a source."""
    return f"{source}.json.xz"


@cache
def record() -> Mapping[str, Mapping[str, Any]]:
    """Return origin, licence and counts of every source, by source."""
    found: dict[str, dict[str, Any]] = json.loads(_data(RECORD_FILE).read_text(encoding="utf-8"))
    return found


@cache
def sessions(source: str) -> tuple[Row, ...]:
    """Return every workflow of a source in the trace format; do not modify them.

    Raises:
        InputError: for an unknown source, with near matches.
    """
    check_known("unknown source of traces", source, SOURCES)
    return tuple(unpack(_data(data_file(source)).read_bytes(), name=data_file(source)))


def split_sessions(source: str, split: TraceSplit) -> list[Row]:
    """Return the workflows of a split; groups are split by the rank of their hash."""
    rows = sessions(source)
    if split == "all":
        return list(rows)
    splits = _splits(source)
    return [row for row in rows if splits[group_of(row)] == split]


def group_of(row: Row) -> str:
    """Return the group that is kept in one split: runs of one task; else the workflow alone."""
    return str(row.get("group") or row["id"])


@cache
def _splits(source: str) -> dict[str, TraceSplit]:
    """Return the split of every group, by rank: few groups could leave a split empty."""
    groups = sorted({group_of(row) for row in sessions(source)}, key=_hash)
    return {
        group: next(split for split, end in _SHARES if place < end * len(groups))
        for place, group in enumerate(groups)
    }


def _hash(group: str) -> str:
    return hashlib.blake2b(group.encode(), digest_size=6).hexdigest()


def _data(name: str) -> Traversable:
    return files("fate_gym.workloads").joinpath("data", "agent_traces", name)


def keep_calls(row: Row, numbers: Sequence[int]) -> Row:
    """Return a workflow of these calls alone, given in ascending order and renumbered.

    Parents that are left out are dropped. A call that shared its prefix with a call that is left
    out shares with a kept call instead, as far as possible, so that the tree of prompts stays as it
    was.
    """
    new = {number: place for place, number in enumerate(numbers)}
    calls = []
    for number in numbers:
        call = {**row["calls"][number], "id": new[number]}
        call["parents"] = tuple(new[parent] for parent in call["parents"] if parent in new)
        shared = call.pop("shared_with", None)
        if shared is not None and shared[0] not in new:
            shared = _shared_otherwise(row["calls"], number, numbers)
        if shared is not None:
            call["shared_with"] = (new[shared[0]], shared[1])
        calls.append(call)
    return {**row, "calls": tuple(calls)}


def _shared_otherwise(
    calls: Sequence[Row], number: int, kept: Sequence[int]
) -> tuple[int, int] | None:
    """Return the kept earlier call that shares most with a call, and how much; ties: the last."""
    own = _common(calls, number)
    best: tuple[int, int] | None = None
    for other in kept:
        if other >= number:
            break
        for node, tokens in _common(calls, other).items():
            if node in own:
                common = min(tokens, own[node])
                if common and (best is None or common >= best[1]):
                    best = other, common
                break
    return best


def _common(calls: Sequence[Row], number: int) -> dict[int, int]:
    """Return the tokens that a call shares with itself and each of its prefix-tree ancestors."""
    tokens, found = calls[number].get("prompt_tokens", 0), {}
    found[number] = tokens
    while (shared := calls[number].get("shared_with")) is not None:
        number, tokens = shared[0], min(tokens, shared[1])
        found[number] = tokens
    return found


def pack(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return workflows as xz-compressed JSON, one column per field; deterministic.

    Calls are numbered in order, so their ids are left out. Parents are stored as distances, and
    shared prefixes as the distance to the call and the number of new tokens: small numbers.
    """
    calls = [call for row in rows for call in row["calls"]]
    content = {
        "format": FORMAT,
        "workflows": _columns(rows, leave={"calls"}),
        "lengths": [len(row["calls"]) for row in rows],
        "calls": _columns([_distances(call) for call in calls], leave={"id"}),
    }
    return pack_json(content)


def unpack(data: bytes, *, name: str) -> Iterator[Row]:
    """Yield the workflows packed by `pack`; ``name`` is the file's, for messages."""
    content = unpack_json(data, FORMAT, source=name, script="scripts/pack_agent_traces.py")
    calls = _rows(content["calls"])
    for row, length in zip(_rows(content["workflows"]), content["lengths"], strict=True):
        row["calls"] = [_numbered(number, next(calls)) for number in range(length)]
        yield row


def _columns(rows: Sequence[Mapping[str, Any]], *, leave: set[str]) -> dict[str, list[Any]]:
    """Return one list per field, with None where a row does not have it."""
    fields = dict.fromkeys(field for row in rows for field in row if field not in leave)
    return {field: [row.get(field) for row in rows] for field in fields}


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterator[Row]:
    """Yield the rows of `_columns`."""
    for values in zip(*columns.values(), strict=True):
        yield {
            field: value for field, value in zip(columns, values, strict=True) if value is not None
        }


def _distances(call: Mapping[str, Any]) -> Row:
    row = dict(call)
    row["parents"] = [call["id"] - parent for parent in call["parents"]]
    if "shared_with" in row:
        earlier, tokens = row.pop("shared_with")
        row["shared_call"] = call["id"] - earlier
        row["new_tokens"] = call["prompt_tokens"] - tokens
    return row


def _numbered(number: int, row: Row) -> Row:
    """Return the call that `_distances` encoded."""
    call = {"id": number, **row}
    call["parents"] = [number - distance for distance in row["parents"]]
    if "shared_call" in call:
        earlier, new = number - call.pop("shared_call"), call.pop("new_tokens")
        call["shared_with"] = [earlier, call["prompt_tokens"] - new]
    return call
