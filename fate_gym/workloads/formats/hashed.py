"""Request traces with hashed blocks as JSON Lines: Mooncake and Qwen-Bailian.

Mooncake (https://github.com/kvcache-ai/Mooncake, ``FAST25-release``): ``timestamp`` in
milliseconds, ``input_length``, ``output_length`` and ``hash_ids``, one for each 512 tokens of the
prompt. Qwen-Bailian (https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon): ``timestamp``
in seconds, blocks of 16 tokens, and ``chat_id``, ``parent_chat_id`` (-1: none), ``type``, ``turn``.

Prompts that begin with the same ids begin with the same tokens: the ids form a tree, and what at
least two requests share becomes prefix groups. Outputs are not hashed, so none is found in a cache.
Arrivals are as recorded: a request does not wait for its predecessor in the chat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fate_gym.catalog.limits import MOST_SECONDS
from fate_gym.errors import InputError
from fate_gym.problem.workflow import Prefix
from fate_gym.workloads.formats.fields import Fields, checked_text, wrong
from fate_gym.workloads.formats.records import Record
from fate_gym.workloads.formats.requests import ImportedRequests, Prompt, Request
from fate_gym.workloads.formats.tasks import Call


@dataclass(frozen=True)
class Hashed:
    """Block size and time unit of a trace, and whether it has chat ids."""

    block_tokens: int
    per_second: float
    chats: bool


MOONCAKE = Hashed(512, 1000.0, chats=False)
BAILIAN = Hashed(16, 1.0, chats=True)


def is_hashed(first: Any, kind: Hashed) -> bool:
    """Return whether the first object of a file is a request of such a trace."""
    if not isinstance(first, dict) or not {"timestamp", "input_length"} <= first.keys():
        return False
    return ("chat_id" in first) == kind.chats


def read_hashed(records: Sequence[Record], name: str, kind: Hashed) -> ImportedRequests:
    """Return the requests of a trace.

    Raises:
        InputError: naming the line and the field at fault.
    """
    tree = _Tree(name, kind.block_tokens)
    chats = _Chats()
    rows: list[tuple[Fields, float, Call]] = []
    for record in records:
        row = Fields(Fields.of(record.json(), record.item, "line").values, record.item)
        now = row.number("timestamp", MOST_SECONDS * kind.per_second) / kind.per_second
        if rows and now < rows[-1][1]:
            raise InputError(
                f"the clock runs backwards, by {rows[-1][1] - now:g} s",
                item=record.item,
                field="timestamp",
                remedy="sort the lines by time",
            )
        rows.append((row, now, _call(row)))
        tree.add(_ids(row))
    sessions = [chats.session(row) if kind.chats else _session(row) for row, _, _ in rows]
    places = tree.places([call.prompt_tokens or 0 for _, _, call in rows])
    found = enumerate(zip(rows, sessions, places, strict=True), start=1)
    return ImportedRequests(
        name,
        tuple(
            Request(number, _type(row), now - rows[0][1], call, session, place)
            for number, ((row, now, call), session, place) in found
        ),
    )


def _call(row: Fields) -> Call:
    prompt, output = row.tokens("input_length"), row.tokens("output_length")
    if not prompt:
        raise wrong(prompt, row.item, "input_length", "a whole number of tokens, 1 at least")
    if output is None:
        raise wrong(output, row.item, "output_length", "a whole number of tokens")
    return Call(None, prompt, output)


def _ids(row: Fields) -> list[int]:
    ids = row.entries("hash_ids", [])
    if not {type(value) for value in ids} <= {int}:
        raise wrong(ids, row.item, "hash_ids", "a list of whole numbers")
    return ids


def _type(row: Fields) -> str:
    return "request" if row.values.get("type") is None else row.text("type")


def _session(row: Fields) -> str | None:
    """Return the session of a Mooncake request; some tools write ``session_id``."""
    return None if row.values.get("session_id") is None else _identity(row, "session_id")


def _identity(row: Fields, key: str) -> str:
    value = row.values.get(key)
    if type(value) is int and abs(value) < 10**18:
        return str(value)
    return checked_text(value, row.item, key)


@dataclass
class _Chats:
    """The first chat of each conversation, updated line by line."""

    first: dict[str, str] = field(default_factory=dict)

    def session(self, row: Fields) -> str:
        """Return a request's conversation; a parent before the trace counts as its first chat."""
        chat = _identity(row, "chat_id")
        if chat in self.first:
            raise InputError(
                f"chat {chat!a} occurs twice",
                item=row.item,
                field="chat_id",
                remedy="make ids unique",
            )
        parent = row.values.get("parent_chat_id")
        before = None if parent in (None, -1) else _identity(row, "parent_chat_id")
        self.first[chat] = chat if before is None else self.first.get(before, before)
        return self.first[chat]


@dataclass
class _Tree:
    """The tree of all prompts, block by block; nodes are numbered by first use, 0 is the root."""

    name: str
    block_tokens: int
    children: dict[tuple[int, int], int] = field(default_factory=dict)
    parent: list[int] = field(default_factory=lambda: [0])
    depth: list[int] = field(default_factory=lambda: [0])
    requests: list[int] = field(default_factory=lambda: [0])
    ends: list[int] = field(default_factory=list)
    """The last node of each prompt."""

    def add(self, ids: Sequence[int]) -> None:
        children, requests = self.children, self.requests
        node = 0
        for block in ids:
            new = len(requests)
            child = children.setdefault((node, block), new)
            if child == new:
                self.parent.append(node)
                self.depth.append(self.depth[node] + 1)
                requests.append(1)
            else:
                requests[child] += 1
            node = child
        self.ends.append(node)

    def places(self, prompts: Sequence[int]) -> Iterator[Prompt | None]:
        """Yield for each prompt the part that at least one other request shares."""
        groups, branches = self._groups()
        for node, prompt in zip(self.ends, prompts, strict=True):
            shared = node
            while shared and self.requests[shared] < 2:
                shared = self.parent[shared]
            if not shared:
                yield None
                continue
            path = []
            group = groups[shared]
            while group in branches:
                path.append(branches[group])
                group = branches[group].parent
            tokens = min(self.depth[shared] * self.block_tokens, prompt)
            yield Prompt(groups[shared], tokens, tuple(path))

    def _groups(self) -> tuple[dict[int, str], dict[str, Prefix]]:
        """Return the group of each shared node: the first child continues it, others branch off."""
        groups: dict[int, str] = {}
        branches: dict[str, Prefix] = {}
        continued = {0}
        for node, parent in enumerate(self.parent):
            if not node or self.requests[node] < 2:
                continue
            if parent not in continued:
                continued.add(parent)
                groups[node] = groups[parent]
                continue
            groups[node] = group = f"blocks/{self.name}/{node}"
            if parent:
                branches[group] = Prefix(
                    group=group,
                    parent=groups[parent],
                    shared_tokens=self.depth[parent] * self.block_tokens,
                )
        return groups, branches
