"""Sessions of Claude Code as kv-cache-tester records them (``traces/trace_*.json``).

https://github.com/callanjfox/kv-cache-tester, ``docs/trace_replay_tester.md``: a session has
``block_size``, ``tool_tokens``, ``system_tokens`` and ``requests``; a request has ``t`` (seconds),
``model``, ``in``, ``out``, ``hash_ids`` (one for each full block), ``input_types``, and in newer
files ``api_time`` and ``think_time``. An entry of type ``subagent`` has requests of its own.

A sub-agent runs between the request before its entry and the next one of the conversation. Files
differ in whether its ``t`` is its launch or its end, so the gap after sub-agents is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fate_gym.catalog.limits import MOST_SECONDS, MOST_TOKENS
from fate_gym.errors import InputError
from fate_gym.workloads.formats.agent_traces import ImportedTraces, checked_trace
from fate_gym.workloads.formats.fields import Fields, wrong
from fate_gym.workloads.formats.records import Record
from fate_gym.workloads.traces import Trace


def is_weka(first: Any) -> bool:
    """Return whether the first object of a file is such a session."""
    return isinstance(first, dict) and {"block_size", "requests"} <= first.keys()


def read_weka(records: Sequence[Record], name: str) -> ImportedTraces:
    """Return the sessions of a file, or of each line of it.

    Raises:
        InputError: naming the request and the field at fault.
    """
    return ImportedTraces.of(name, (_trace(record) for record in records))


def _trace(record: Record) -> Trace:
    top = Fields.of(record.json(), record.item, "the file")
    top = Fields(top.values, record.item)
    block = top.tokens("block_size")
    if not block:
        raise wrong(block, record.item, "block_size", "a whole number of tokens, 1 at least")
    session = _Session(record.item, block, top.values.get("hash_id_scope") in ("local", "global"))
    session.conversation(top.entries("requests"), "requests", None, None)
    if not session.calls:
        raise InputError("has no requests", item=record.item, field="requests", remedy="add some")
    system = (top.tokens("tool_tokens") or 0) + (top.tokens("system_tokens") or 0)
    values = {
        "id": top.text("id"),
        "source": "weka",
        "family": "claude_code",
        "prefix_tokens": min(system, MOST_TOKENS),
        "calls": tuple(session.calls),
    }
    return checked_trace(values, record.item)


@dataclass
class _Session:
    """The calls of a session, as its requests are read."""

    item: str | None
    block: int
    one_scope: bool
    """Whether equal ids mean equal blocks in sub-agents too."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    agents: int = 0
    turn: int = 0
    nodes: dict[tuple[Any, int], int] = field(default_factory=dict)
    """The children of the nodes in the tree of blocks; roots are (model, scope)."""
    latest: dict[int, int] = field(default_factory=dict)
    """The last call whose prompt goes through a node."""

    def conversation(
        self, entries: Sequence[Any], path: str, launch: int | None, agent: tuple[int, str] | None
    ) -> list[int]:
        """Read requests in sequence; return the calls that must end before others go on."""
        before = [] if launch is None else [launch]
        joins: list[int] = []
        last_end = None
        for place, value in enumerate(entries):
            row = Fields.of(value, self.item, f"{path}.{place}")
            if row.values.get("type") == "subagent":
                joins += self._sub_agent(row, before[-1] if before else None)
                continue
            start = row.number("t", MOST_SECONDS)
            gap = 0.0 if last_end is None or joins else max(start - last_end, 0.0)
            if row.values.get("think_time") is not None and not joins:
                gap = row.number("think_time", MOST_SECONDS)
            last_end = start + row.number("api_time", MOST_SECONDS)
            before = [self._add(row, sorted({*before, *joins}), gap, agent)]
            joins = []
        return sorted({*before, *joins})

    def _sub_agent(self, row: Fields, launch: int | None) -> list[int]:
        kind = row.values.get("subagent_type")
        agent = (self.agents, "sub" if kind is None else f"sub:{row.text('subagent_type')}"[:100])
        self.agents += 1
        inside = row.entries("requests")
        last = self.conversation(inside, row.at("requests"), launch, agent)
        return [call for call in last if call != launch]

    def _add(
        self, row: Fields, parents: list[int], gap: float, agent: tuple[int, str] | None
    ) -> int:
        number = len(self.calls)
        types = row.entries("input_types", [])
        asked = agent is None and number > 0 and "text" in types and "tool_result" not in types
        self.turn += asked
        prompt = row.tokens("in")
        if not prompt:
            raise wrong(prompt, self.item, row.at("in"), "a whole number of tokens, 1 at least")
        model = None if row.values.get("model") in (None, "") else row.text("model")
        self.calls.append(
            {
                "id": number,
                "parents": tuple(parents),
                "role": "main" if agent is None else agent[1],
                "agent": None if agent is None else agent[0],
                "turn": self.turn,
                "model": model,
                "prompt_tokens": prompt,
                "output_tokens": row.tokens("out") or 0,
                "shared_with": self._shared(row, number, (model, agent)),
                "think_seconds" if asked else "tool_seconds": gap,
            }
        )
        return number

    def _shared(
        self, row: Fields, number: int, scope: tuple[str | None, tuple[int, str] | None]
    ) -> tuple[int, int] | None:
        """Return the last call with the longest common prefix, block by block."""
        node: Any = (scope[0], None if self.one_scope else scope[1])
        found = None
        for depth, block in enumerate(row.entries("hash_ids", []), start=1):
            if type(block) is not int:
                raise wrong(block, self.item, row.at("hash_ids"), "a list of whole numbers")
            node = self.nodes.setdefault((node, block), len(self.nodes))
            if node in self.latest:
                found = (self.latest[node], depth * self.block)
            self.latest[node] = number
        if found is None:
            return None
        prompts = (self.calls[found[0]]["prompt_tokens"], row.tokens("in") or 0)
        return found[0], min(found[1], *prompts)
