"""The prefix tree of a session: which parts of its prompts can be found in a cache.

For each call a trace names the earlier call with which it shares the longest prefix, and the length
of that prefix. These pairs determine the tree of all prompts: what a call has in common with
another is the minimum of the lengths on the way between them. This module cuts the tree into the
prefix groups of docs/execution-model.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fate_gym.problem.workflow import Prefix
from fate_gym.workloads.traces import Call, Trace

BLOCK_TOKENS = 128
"""Block size of the common prefixes in traces.

A common prefix that is shorter than a prompt by at most this much counts as the whole prompt,
unless the prompt itself is that short.
"""
_MOST_ALIKE = 64
"""Most (model, agent) pairs for which the latest call is remembered."""


class Place(NamedTuple):
    """The place of a call's prompt in the tree of prefix groups."""

    group: str | None
    prefix_tokens: int
    extends: bool


class PrefixTree(NamedTuple):
    """The places of the model calls, by number, and where groups branch off."""

    places: dict[int, Place]
    branches: dict[str, Prefix]

    def path(self, group: str) -> Iterator[Prefix]:
        """Yield the declarations of a group and its ancestors, without the root."""
        while group in self.branches:
            yield self.branches[group]
            group = self.branches[group].parent


def prefix_tree(trace: Trace, turns: Sequence[int]) -> PrefixTree:
    """Return the prefix groups of a trace.

    A call that repeats (almost) a whole earlier prompt, and comes after that call's end, continues
    its group behind its output; other calls branch off where they differ. What a call adds is in
    the tree as far as another call can find it: all of it if the call continues another or is
    continued, and all of its prompt if it has several samples.

    Args:
        trace: the calls.
        turns: the turn of each call; every call comes after those of earlier turns.
    """
    anchors = _anchors(trace, turns)
    ends = _ends(trace, anchors)
    groups = _Groups(trace.id)
    for number, anchor in anchors.items():
        groups.add(number, anchor, ends[number])
    return PrefixTree(
        {
            number: Place(
                groups.of[number],
                ends[number].prefix_tokens,
                ends[number].extends,
            )
            for number in anchors
        },
        groups.branches,
    )


def with_inferred_sharing(trace: Trace) -> Trace:
    """Return a trace with inferred sharing, for sources that record no prefixes.

    An assumption: a call whose prompt is at least as long as the prompt and output of the nearest
    earlier call of the same agent and model continues that call. If it is shorter, and the provider
    reported cached tokens, the two share those.
    """
    calls: list[Call] = []
    latest: list[dict[_Kind, int]] = []
    for call in trace.calls:
        known = _merged([latest[parent] for parent in call.parents])
        if not call.is_llm:
            calls.append(call)
            latest.append(known)
            continue
        kind = (call.model, call.agent)
        latest.append(_newest(known | {kind: call.id}))
        shared = None
        if kind in known:
            found = trace.calls[known[kind]]
            whole = call.prompt >= found.prompt + found.output
            tokens = found.prompt if whole else min(call.cached_prefix_tokens or 0, found.prompt)
            tokens = min(tokens, call.prompt)
            shared = (found.id, tokens) if tokens else None
        calls.append(call.model_copy(update={"shared_with": shared}))
    return trace.model_copy(update={"calls": tuple(calls)})


_Kind = tuple[str | None, int | None]
"""Model and agent."""


def _merged(known: Sequence[dict[_Kind, int]]) -> dict[_Kind, int]:
    """Return the latest call of each kind before a call, from those of its parents."""
    if len(known) == 1:
        return known[0]
    merged: dict[_Kind, int] = {}
    for calls in known:
        for kind, call in calls.items():
            merged[kind] = max(call, merged.get(kind, call))
    return _newest(merged)


def _newest(known: dict[_Kind, int]) -> dict[_Kind, int]:
    if len(known) <= _MOST_ALIKE:
        return known
    return dict(sorted(known.items(), key=lambda entry: entry[1])[-_MOST_ALIKE:])


class _Anchor(NamedTuple):
    """What a call shares: a number of tokens with an earlier call or with a system prompt."""

    call: int | None
    system: str | None
    tokens: int
    behind: bool
    """Whether the output of the earlier call is among the tokens."""


class _End(NamedTuple):
    """How much of a call's prompt others may find, and how far the call is in the tree."""

    prefix_tokens: int
    tokens: int
    extends: bool


@dataclass
class _Groups:
    """The tree as it grows, call by call."""

    name: str
    of: dict[int, str | None] = field(default_factory=dict)
    branches: dict[str, Prefix] = field(default_factory=dict)
    reach: dict[str, int] = field(default_factory=dict)
    tips: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def add(self, number: int, anchor: _Anchor, end: _End) -> None:
        """Give a call its group: an existing one, or a new branch for what it adds."""
        old = self._covering(anchor)
        if end.tokens <= anchor.tokens:
            self.of[number] = old
            return
        last = None if anchor.call is None else self.of[anchor.call]
        # No tail is overwritten: a call continues a group only where the group ends.
        goes_on = last is not None and self._ends_with(last, anchor, end)
        if last is None or not goes_on:
            last = f"session/{self.name}/{self.count}"
            self.count += 1
            if old is not None:
                self.branches[last] = Prefix(group=last, parent=old, shared_tokens=anchor.tokens)
        self.of[number] = last
        self.tips[last] = number
        self.reach[last] = max(self.reach.get(last, 0), end.tokens)

    def _ends_with(self, group: str, anchor: _Anchor, end: _End) -> bool:
        if anchor.behind and end.extends:
            return self.tips.get(group) == anchor.call
        return self.reach.get(group) == anchor.tokens

    def _covering(self, anchor: _Anchor) -> str | None:
        """Return the group in which the last shared token lies."""
        if anchor.call is None:
            return anchor.system
        group = self.of[anchor.call]
        while group in self.branches and self.branches[group].shared_tokens >= anchor.tokens:
            group = self.branches[group].parent
        return group


def _anchors(trace: Trace, turns: Sequence[int]) -> dict[int, _Anchor]:
    continued: set[int] = set()
    anchors = {}
    parents = [sorted(call.parents, reverse=True) for call in trace.calls]
    for call in trace.calls:
        if not call.is_llm:
            continue
        anchor = _system(trace, call)
        if call.shared_with is not None and call.shared_with[1] >= max(anchor.tokens, 1):
            other, common = call.shared_with
            earlier = trace.calls[other]
            anchor = _Anchor(other, None, common, False)
            if (
                earlier.queries == 1
                and earlier.prompt - common <= min(BLOCK_TOKENS, earlier.prompt / 4)
                and call.prompt >= common + earlier.output
                and other not in continued
                and (turns[other] < turns[call.id] or _comes_after(parents, other, call.id))
            ):
                continued.add(other)
                anchor = _Anchor(other, None, common + earlier.output, True)
        anchors[call.id] = anchor
    return anchors


def _system(trace: Trace, call: Call) -> _Anchor:
    """Return what a call shares with other sessions at its beginning."""
    group, tokens = call.prefix_group, call.prefix_tokens or 0
    if group is None and call.shared_with is None and call.agent is None:
        # According to the traces' README, tools and system prompts of equal length are the same.
        tokens = trace.prefix_tokens or 0
        group = f"{trace.source or trace.family or trace.id}/{tokens}"
        tokens = tokens if tokens <= call.prompt else 0
    tokens = min(tokens, call.prompt)
    return _Anchor(None, f"system/{group}" if tokens else None, tokens, False)


def _ends(trace: Trace, anchors: dict[int, _Anchor]) -> dict[int, _End]:
    needed = {number: anchor.tokens for number, anchor in anchors.items()}
    continued = set()
    for anchor in anchors.values():
        if anchor.call is not None and anchor.behind:
            continued.add(anchor.call)
        elif anchor.call is not None:
            needed[anchor.call] = max(needed[anchor.call], anchor.tokens)
    return {
        number: _end(trace, number, anchor, needed[number], number in continued)
        for number, anchor in anchors.items()
    }


def _end(trace: Trace, number: int, anchor: _Anchor, needed: int, continued: bool) -> _End:
    """Return how far a call lies in the tree.

    Args:
        trace: the calls.
        number: number of the call.
        anchor: what it shares with earlier calls.
        needed: the most that it shares with any other, without outputs.
        continued: whether another call begins with its prompt and output.
    """
    call = trace.calls[number]
    if call.queries > 1:
        return _End(call.prompt, call.prompt, False)
    if not anchor.behind and not continued:
        return _End(needed, needed, False)
    if anchor.behind and anchor.call is not None:
        # In the block that the trace rounded away, the group holds what the earlier call wrote.
        earlier = trace.calls[anchor.call]
        if anchor.tokens < earlier.prompt + earlier.output:
            needed = anchor.tokens
    return _End(needed, call.prompt + call.output, True)


def _comes_after(parents: Sequence[Sequence[int]], earlier: int, later: int) -> bool:
    """Return whether a call has to end before another starts; parents must be descending."""
    seen = {later}
    waiting = [later]
    while waiting:
        for parent in parents[waiting.pop()]:
            if parent <= earlier:
                if parent == earlier:
                    return True
                break
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return False
