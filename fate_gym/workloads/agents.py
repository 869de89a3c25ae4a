"""Sessions of real agents for a suite: which sessions, which of their turns, which models.

A draw takes some sessions of each source and a window of consecutive turns of each. What lies
outside the window has not happened: the window's first call finds nothing cached and computes its
whole context, like a session that resumes after its cache was evicted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.problem import Workflow
from fate_gym.problem.workflow import Frozen, Name
from fate_gym.workloads.agent_traces import Row, TraceSplit, keep_calls, split_sessions
from fate_gym.workloads.roles import seeded
from fate_gym.workloads.sessions import SessionRules, Trace, session_workflows

AgentSource = Literal[
    "weka_claude_code", "coding_sessions", "tau_bench", "mini_swe", "tree_of_thoughts"
]
AGENT_SOURCES: tuple[AgentSource, ...] = get_args(AgentSource)
WHOLE = "tree_of_thoughts"
"""The source whose workflows are not sessions: they are taken whole."""


class SizeClasses(Frozen):
    """The catalogue's models that stand for those of the sources."""

    large: Name = Field(description="for Opus, Sonnet, GPT, and where no model is named")
    small: Name = Field(description="for Haiku, and for the customers of tau_bench")
    long: Name = Field(
        description="instead of one of them, where a session has contexts that it was not made for"
    )


class WindowRules(NamedTuple):
    """The models, and limits, of a session's window."""

    models: SizeClasses
    turns: int
    calls: int
    think_cap_s: float
    tool_cap_s: float


class Window(NamedTuple):
    """Calls of consecutive turns of a session, and the models that serve them."""

    calls: tuple[int, ...]
    large: str
    small: str


def draw_sessions(
    rules: WindowRules, counts: Mapping[AgentSource, int], split: TraceSplit, seed: int
) -> list[list[Workflow]]:
    """Draw sessions of each source; return a list of workflows for each session.

    Which sessions are drawn, and where their windows begin, depends on (seed, source, split).

    Raises:
        InputError: for an unknown source or model, or if a split has fewer sessions than requested.
    """
    found = []
    for source, count in counts.items():
        generator = seeded(seed, source, split, "/sessions")
        rows = split_sessions(source, split)
        drawn: list[list[Workflow]] = []
        for place in generator.permutation(len(rows)).tolist():
            at = generator.random()
            if len(drawn) == count:
                break
            row = with_turns(rows[place])
            starts = windows(rules, row, whole=source == WHOLE)
            if starts:
                window = starts[int(at * len(starts))]
                drawn.append(window_workflows(rules, row, window, source, seed))
        if len(drawn) < count:
            raise InputError(
                f"{count} sessions of {source!r}, of which split {split!r} has {len(drawn)}",
                field=f"counts.{source}",
                remedy="ask for fewer, or widen the split",
            )
        found += drawn
    return found


def with_turns(row: Row) -> Row:
    """Return a session in which every call has its turn.

    Where a model plays the customer (tau_bench), each of its messages begins a turn. A tool belongs
    to the turn of its caller; a source without turns has one turn.
    """
    turns: list[int] = []
    customers = 0
    for call in row["calls"]:
        customers += call.get("role") == "customer"
        own = call.get("turn", customers - 1 if customers else 0)
        turns.append(max(own, *(turns[parent] for parent in call["parents"]), 0))
    calls = [{**call, "turn": turn} for call, turn in zip(row["calls"], turns, strict=True)]
    return {**row, "calls": calls}


def windows(rules: WindowRules, row: Row, *, whole: bool = False) -> list[Window]:
    """Return the possible windows, one for each turn that a window may begin with.

    A window has at most ``rules.turns`` turns, and only whole ones as long as it has at most
    ``rules.calls`` model calls; a first turn that has more is cut off there. It ends before a
    context that no model supports; a turn that begins with such a context begins no window.

    Args:
        rules: limits, and models.
        row: a session `with_turns`.
        whole: return a single window with all calls.
    """
    calls = row["calls"]
    if whole:
        return [_served(rules, calls)]
    turns = [list(turn) for _, turn in groupby(calls, key=lambda call: call["turn"])]
    limit = _limit(rules.models.long)
    fits = [all(_context(call) <= limit for call in turn) for turn in turns]
    found = []
    for start in range(max(1, len(turns) - rules.turns + 1)):
        first = chosen = turns[start]
        if not fits[start] or _llm_calls(first) > rules.calls:
            chosen = _cut_off(first, rules.calls, limit)
        else:
            for place in range(start + 1, min(start + rules.turns, len(turns))):
                if not fits[place] or _llm_calls(chosen) + _llm_calls(turns[place]) > rules.calls:
                    break
                chosen = chosen + turns[place]
        if chosen:
            found.append(_served(rules, chosen))
    return found


def window_workflows(
    rules: WindowRules, row: Row, window: Window, source: str, seed: int
) -> list[Workflow]:
    """Return the turns of a window as workflows, named ``<session>/turn-<number>/s<seed>``."""
    cut = keep_calls(row, window.calls)
    for call in cut["calls"]:
        if "think_seconds" in call:
            call["think_seconds"] = min(call["think_seconds"], rules.think_cap_s)

    def model(name: str | None, role: str) -> str:
        return window.small if _is_small(name, role) else window.large

    trace = Trace.model_validate({**cut, "source": source, "arrival_s": None})
    workflows = session_workflows(trace, SessionRules(model, tool_cap_s=rules.tool_cap_s))
    return [of_seed(workflow, seed) for workflow in workflows]


def of_seed(workflow: Workflow, seed: int) -> Workflow:
    """Return a workflow renamed to include the seed of its draw."""
    follows = None if workflow.follows is None else f"{workflow.follows}/s{seed}"
    return workflow.model_copy(update={"id": f"{workflow.id}/s{seed}", "follows": follows})


def _cut_off(turn: Sequence[Row], most: int, limit: float) -> list[Row]:
    """Return the beginning of a turn, up to its last model call within the limits."""
    kept, end = 0, 0
    for place, call in enumerate(turn):
        if call["kind"] != "llm":
            continue
        if kept == most or _context(call) > limit:
            break
        kept, end = kept + 1, place + 1
    return list(turn[:end])


def _served(rules: WindowRules, calls: Sequence[Row]) -> Window:
    """Return a window of these calls: the usual models, or the long one if contexts require it."""
    needs = {True: 0, False: 0}
    for call in calls:
        small = _is_small(call.get("model"), call.get("role", ""))
        needs[small] = max(needs[small], _context(call))
    names = rules.models
    return Window(
        calls=tuple(call["id"] for call in calls),
        large=names.large if needs[False] <= _limit(names.large) else names.long,
        small=names.small if needs[True] <= _limit(names.small) else names.long,
    )


def _is_small(model: str | None, role: str) -> bool:
    return "haiku" in (model or "") or role == "customer"


def _limit(model: str) -> float:
    return catalog.model(model).max_context or math.inf


def _context(call: Mapping[str, Any]) -> int:
    """Return the tokens of a model call at its full length; 0 for a tool."""
    return int(call.get("prompt_tokens", 0) + call.get("output_tokens", 0))


def _llm_calls(calls: Sequence[Row]) -> int:
    return sum(call["kind"] == "llm" for call in calls)
