"""The workflows of a trace: one per turn of a session, with the prefix tree of its prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fate_gym.problem import Edge, Stage, Workflow
from fate_gym.workloads.prefix_tree import PrefixTree, prefix_tree, with_inferred_sharing
from fate_gym.workloads.traces import Call, Trace

__all__ = ["Call", "SessionRules", "Trace", "session_workflows", "with_inferred_sharing"]

TOOL_CAP_S = 60.0
"""Longer gaps are mostly people who left, or were asked for permission."""
_BYTES_PER_TOKEN = 4


class SessionRules(NamedTuple):
    """How traces become workflows."""

    models: Callable[[str | None, str], str]
    """Maps the source's name of a model (None: not named) and a role to the catalogue's model."""
    tool_cap_s: float = TOOL_CAP_S
    """The longest tool, and the longest gap for tools."""
    cut_turns: bool = True
    """One workflow per turn; else one for the whole session, in which thinking is a gap."""
    infer_prefixes: bool | None = None
    """Whether to use `with_inferred_sharing` if no call says what it shares.

    None: only for traces that report cached tokens.
    """


def session_workflows(trace: Trace, rules: SessionRules) -> list[Workflow]:
    """Return the turns of a trace as workflows, in order; each follows the one before.

    A call becomes a stage; a tool, or a gap for tools, becomes a tool stage. Prefix and prompt
    tokens of a stage add up to the prompt of its call. Outputs move as text, four bytes per token.

    Raises:
        InputError: if ``rules.models`` raises it.
    """
    if _is_inferred(trace, rules.infer_prefixes):
        trace = with_inferred_sharing(trace)
    turns = _turns(trace) if rules.cut_turns else [0] * len(trace.calls)
    tree = prefix_tree(trace, turns)
    numbers = sorted(set(turns))
    calls: dict[int, list[Call]] = {turn: [] for turn in numbers}
    for call, turn in zip(trace.calls, turns, strict=True):
        calls[turn].append(call)
    names = [trace.id]
    if len(numbers) > 1:
        names = [f"{trace.id}/turn-{number}" for number in range(len(numbers))]
    return [
        _Turn(trace, rules, tree, calls[turn], names[: place + 1]).workflow()
        for place, turn in enumerate(numbers)
    ]


class _Turn(NamedTuple):
    """One turn of a trace about to become a workflow."""

    trace: Trace
    rules: SessionRules
    tree: PrefixTree
    calls: Sequence[Call]
    names: Sequence[str]
    """Names of the session's workflows, up to this one."""

    def workflow(self) -> Workflow:
        inside = {call.id for call in self.calls}
        stages: list[Stage] = []
        edges: list[Edge] = []
        for call in self.calls:
            parents = [self.trace.calls[parent] for parent in call.parents if parent in inside]
            stage, gap = self._stage(call), self._gap(call)
            if gap is not None:
                stages.append(gap)
                edges += [_edge(parent, gap) for parent in parents]
                edges.append(Edge(parent=gap.id, child=stage.id))
            else:
                edges += [_edge(parent, stage) for parent in parents]
            stages.append(stage)
        groups = dict.fromkeys(s.prefix_group for s in stages if s.prefix_group is not None)
        paths = {prefix.group: prefix for group in groups for prefix in self.tree.path(group)}
        follows = self.names[-2] if len(self.names) > 1 else None
        return Workflow(
            id=self.names[-1],
            stages=tuple(stages),
            edges=tuple(edges),
            prefixes=tuple(paths.values()),
            arrival=self.trace.arrival_s or 0.0,
            follows=follows,
            think_seconds=(self.calls[0].think_seconds or 0.0) if follows else 0.0,
            session=self.trace.id,
            family=self.trace.family or self.trace.source or "",
        )

    def _stage(self, call: Call) -> Stage:
        label = call.role or call.tool or call.kind
        if not call.is_llm:
            seconds = call.duration_s if call.tool_seconds is None else call.tool_seconds
            return Stage(id=_name(call), label=label, tool_seconds=self._capped(seconds))
        place = self.tree.places[call.id]
        return Stage(
            id=_name(call),
            label=label,
            model=self.rules.models(call.model, call.role or ""),
            queries=call.queries,
            prefix_group=place.group,
            prefix_tokens=place.prefix_tokens,
            prompt_tokens=call.prompt - place.prefix_tokens,
            output_tokens=call.output,
            extends_prefix=place.extends,
        )

    def _gap(self, call: Call) -> Stage | None:
        """Return a stage for tools, without calls of their own, that ran before a call."""
        if not call.is_llm or not call.parents:
            return None
        # Thinking between turns belongs to neither of them.
        thinks = call is not self.calls[0] or len(self.names) == 1
        seconds = (call.tool_seconds or 0.0) + (call.think_seconds or 0.0) * thinks
        if seconds == 0.0:
            return None
        return Stage(id=f"gap-{call.id}", label="tools", tool_seconds=self._capped(seconds))

    def _capped(self, seconds: float | None) -> float:
        return min(seconds or 0.0, self.rules.tool_cap_s)


def _is_inferred(trace: Trace, wanted: bool | None) -> bool:
    if wanted is False or any(call.shared_with is not None for call in trace.calls):
        return False
    return wanted or any(call.cached_prefix_tokens is not None for call in trace.calls)


def _name(call: Call) -> str:
    return f"call-{call.id}" if call.is_llm else f"tool-{call.id}"


def _edge(parent: Call, child: Stage) -> Edge:
    moved = float(_BYTES_PER_TOKEN * parent.output * parent.queries) if parent.is_llm else 0.0
    return Edge(parent=_name(parent), child=child.id, bytes=moved)


def _turns(trace: Trace) -> list[int]:
    """Return the turn of each call: its own, but not before those of its parents."""
    turns: list[int] = []
    for call in trace.calls:
        turns.append(max((turns[parent] for parent in call.parents), default=0))
        turns[-1] = max(turns[-1], call.turn or 0)
    return turns
