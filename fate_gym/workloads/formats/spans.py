"""Turn the spans of agents into a trace of calls, in the order that their times imply.

Siblings are ordered by time: a span comes after those that had ended when it started, except those
that others of these came after. What is inside a span begins after what precedes the span, and what
follows the span waits for the last spans inside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

from fate_gym.catalog.limits import MOST_SECONDS
from fate_gym.errors import InputError
from fate_gym.workloads.formats.agent_traces import checked_trace
from fate_gym.workloads.formats.fields import checked_number
from fate_gym.workloads.traces import Trace

GAP_S = 1.0
"""Shorter gaps before a call are the agent's own code, and are ignored."""
_MOST_PARENTS = 8
"""Most parents of a call; more are joined first, to keep the number of edges small."""
_DEEPEST = 300
_NS = 1e9

_Front = deque[tuple[int, int]]
"""The calls that the next one has to wait for, each with the time since when, ascending."""


class Span(NamedTuple):
    """A span, times in nanoseconds, with the data of its model or tool call, if it is one."""

    id: str
    trace: str
    parent: str | None
    item: str
    start: int
    end: int
    agent: str | None
    conversation: str | None
    tool: str | None = None
    operation: str | None = None
    model: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    samples: int = 1

    @property
    def is_call(self) -> bool:
        return self.tool is not None or self.operation is not None


def trace_of(name: str, turns: Sequence[Sequence[Span]], first: int) -> Trace:
    """Return the trace of a conversation: a turn for each group of spans, in order.

    Args:
        name: name of the trace.
        turns: the spans of each turn, with at least one call.
        first: the nanosecond from which arrivals count.

    Raises:
        InputError: naming a span that is its own ancestor, or nested too deeply.
    """
    session = _Session()
    for number, spans in enumerate(turns):
        session.add_turn(number, spans)
    start = min(span.start for span in turns[0])
    item = f"trace {name!a}"
    arrival = checked_number((start - first) / _NS, item, "startTimeUnixNano", MOST_SECONDS)
    values = {"id": name, "source": "otlp", "arrival_s": arrival, "calls": tuple(session.calls)}
    return checked_trace(values, item)


class _Tree(NamedTuple):
    """The spans of a turn that are or contain calls, by their parents; None: those without one."""

    children: dict[str | None, list[Span]]
    agents: dict[str, str | None]

    @classmethod
    def of(cls, spans: Sequence[Span]) -> _Tree:
        """Build the tree. Raises `InputError` for spans in a cycle, or nested too deeply."""
        known = {span.id for span in spans}
        below: dict[str | None, list[Span]] = {}
        for span in spans:
            below.setdefault(span.parent if span.parent in known else None, []).append(span)
        order: list[Span] = []
        agents: dict[str, str | None] = {}
        level: list[tuple[Span, str | None]] = [(span, None) for span in below.get(None, [])]
        for depth in count():
            if not level:
                break
            if depth > _DEEPEST:
                raise _wrong_parent(level[0][0], f"is nested more than {_DEEPEST} deep")
            order += [span for span, _ in level]
            agents.update((span.id, span.agent or agent) for span, agent in level)
            level = [(s, agents[span.id]) for span, _ in level for s in below.get(span.id, ())]
        if len(order) < len(spans):
            lost = next(span for span in spans if span.id not in agents)
            raise _wrong_parent(lost, "is its own ancestor, or inside one that is")
        children: dict[str | None, list[Span]] = {}
        for span in reversed(order):
            if span.is_call or span.id in children:
                parent = span.parent if span.parent in known else None
                children.setdefault(parent, []).append(span)
        for inside in children.values():
            inside.sort(key=lambda span: (span.start, span.end))
        return cls(children, agents)


def _wrong_parent(span: Span, fault: str) -> InputError:
    return InputError(fault, item=span.item, field="parentSpanId", remedy="correct the parents")


class _Session:
    """The calls of a conversation, as its turns are added."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self._ends: list[int] = []
        self._last: list[int] = []
        self._agents: dict[str, int] = {}
        self._tree = _Tree({}, {})
        self._turn = 0
        self._start = 0

    def add_turn(self, number: int, spans: Sequence[Span]) -> None:
        self._tree = _Tree.of(spans)
        self._turn = number
        self._start = min(span.start for span in spans if span.is_call)
        first = len(self.calls)
        ended = max((self._ends[call] for call in self._last), default=self._start)
        self._last = self._siblings(self._tree.children[None], self._last)
        if number:
            thought = max(self._start - ended, 0) / _NS
            self.calls[first]["think_seconds"] = min(thought, MOST_SECONDS)

    def _siblings(self, spans: Sequence[Span], before: Sequence[int]) -> list[int]:
        """Add the spans of one parent; return the calls that must end before what follows it."""
        front: _Front = deque((-1, call) for call in before)
        running: list[tuple[int, int, int, list[int]]] = []
        for place, span in enumerate(spans):
            while running and running[0][0] <= span.start:
                _end(front, heappop(running))
            parents = self._parents(front)
            if span.id in self._tree.children:
                last = self._siblings(self._tree.children[span.id], parents)
            else:
                last = [self._call(span, parents)]
            heappush(running, (span.end, place, span.start, last))
        while running:
            _end(front, heappop(running))
        return [call for _, call in front]

    def _parents(self, front: _Front) -> list[int]:
        parents = [call for _, call in front]
        if len(parents) <= _MOST_PARENTS:
            return parents
        join = self._add({"kind": "tool", "tool": "join", "tool_seconds": 0.0}, parents)
        self._ends.append(max(self._ends[call] for call in parents))
        time = front[-1][0]
        front.clear()
        front.append((time, join))
        return [join]

    def _call(self, span: Span, parents: list[int]) -> int:
        ready = max([self._start, *(self._ends[call] for call in parents)])
        gap = (span.start - ready) / _NS
        gap = gap if GAP_S < gap <= MOST_SECONDS else 0.0
        self._ends.append(span.end)
        if span.tool is not None:
            seconds = min((span.end - span.start) / _NS + gap, MOST_SECONDS)
            tool = {"kind": "tool", "tool": span.tool, "tool_seconds": seconds}
            return self._add(tool, parents)
        agent = self._tree.agents[span.id]
        number = None if agent is None else self._agents.setdefault(agent, len(self._agents))
        return self._add(
            {
                "role": agent or span.operation,
                "agent": number,
                "model": span.model,
                "prompt_tokens": span.prompt_tokens,
                "output_tokens": span.output_tokens,
                "samples": span.samples,
                "cached_prefix_tokens": span.cached_tokens,
                "tool_seconds": gap,
            },
            parents,
        )

    def _add(self, call: dict[str, Any], parents: list[int]) -> int:
        number = len(self.calls)
        self.calls.append(
            {"id": number, "turn": self._turn, "parents": tuple(sorted(parents))} | call
        )
        return number


def _end(front: _Front, ended: tuple[int, int, int, list[int]]) -> None:
    """End a span: the next span waits for it, and no longer for what it came after."""
    time, _, start, last = ended
    while front and front[0][0] <= start:
        front.popleft()
    front.extend((time, call) for call in last)
