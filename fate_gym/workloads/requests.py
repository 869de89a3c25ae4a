"""Requests of a real hour of chats: their arrivals, their lengths, and what they repeat.

The trace is Mooncake's conversation trace. Its clock ticks about every three seconds; here the
requests of a tick are spread evenly over the time until the next one. The splits are parts of the
hour.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby, pairwise
from typing import NamedTuple

from fate_gym import catalog
from fate_gym.errors import InputError
from fate_gym.problem import Workflow
from fate_gym.workloads.agent_traces import TraceSplit, keep_calls, sessions
from fate_gym.workloads.agents import of_seed
from fate_gym.workloads.roles import seeded
from fate_gym.workloads.sessions import SessionRules, Trace, session_workflows

SOURCE = "mooncake_conversation"
PARTS: dict[TraceSplit, tuple[float, float]] = {
    "train": (0.0, 1800.0),
    "validation": (1800.0, 2700.0),
    "test": (2700.0, 3600.0),
    "all": (0.0, 3600.0),
}
"""The seconds of the hour that belong to each split."""
BLOCK_TOKENS = 512
"""Size of the blocks in which the trace records what was seen before."""


class Request(NamedTuple):
    """A request: its time, its chat, and its number in the chat, in trace order."""

    at: float
    chat: int
    number: int


class RequestDraw(NamedTuple):
    """What to draw from the trace."""

    models: Sequence[str]
    requests: int
    seconds: float


@cache
def requests() -> tuple[Request, ...]:
    """Return every request by time, with the ticks of the trace's clock spread out."""
    found = [
        Request(round(row["arrival_s"] + call["start_s"], 3), chat, call["id"])
        for chat, row in enumerate(sessions(SOURCE))
        for call in row["calls"]
    ]
    ticks = [list(tick) for _, tick in groupby(sorted(found), key=lambda request: request.at)]
    times = [tick[0].at for tick in ticks]
    # The last tick is assumed to be as long as the previous one.
    lengths = [late - early for early, late in pairwise(times)]
    lengths.append(lengths[-1])
    return tuple(
        request._replace(at=request.at + length * place / len(tick))
        for tick, length in zip(ticks, lengths, strict=True)
        for place, request in enumerate(tick)
    )


def part(split: TraceSplit) -> Sequence[Request]:
    """Return the requests of a split, by time."""
    every = requests()
    first, end = (bisect_left(every, (at,)) for at in PARTS[split])
    return every[first:end]


def session_starts(split: TraceSplit, count: int, seed: int, name: str) -> list[float]:
    """Return times at which ``count`` chats of a split begin, drawn by (seed, name), ascending.

    A random subset: it keeps the rises and falls of the hour, with random gaps in between.

    Raises:
        InputError: if the split has fewer chats.
    """
    starts = [request.at for request in part(split) if request.number == 0]
    if count > len(starts):
        raise InputError(
            f"{count} sessions, of which split {split!r} of {SOURCE} has {len(starts)} beginnings",
            field="counts",
            remedy="ask for fewer, or use another process of arrivals",
        )
    chosen = seeded(seed, name, "/starts").choice(len(starts), size=count, replace=False)
    return sorted(starts[place] for place in chosen.tolist())


def draw_requests(draw: RequestDraw, split: TraceSplit, seed: int) -> list[Workflow]:
    """Draw the requests of some chats in a window of a split, one single-stage workflow each.

    The seed chooses where the window begins, which chats are taken, and the model of each. Chats
    are taken whole, as far as they lie in the window, so that there is as much to reuse as in the
    trace. A request follows the one that it continues, if the window has it, and arrives at its
    recorded time or when that one has ended, whichever is later. Chats with requests that are too
    long for their model are left out. The workflows are in order of arrival.

    Raises:
        InputError: for an unknown model, or if the window has fewer requests than requested.
    """
    generator = seeded(seed, split, "/requests")
    first, end = PARTS[split]
    start = first + generator.random() * max(0.0, end - first - draw.seconds)
    chats: dict[int, list[Request]] = {}
    for request in part(split):
        if start <= request.at < start + draw.seconds:
            chats.setdefault(request.chat, []).append(request)
    found: list[Workflow] = []
    for chat in generator.permutation(sorted(chats)).tolist():
        model = _model_of(chat, draw.models, seed)
        if all(_context(request) <= _limit(model) for request in chats[chat]):
            found += _chat(chats[chat], model, start)
        if len(found) >= draw.requests:
            break
    if len(found) < draw.requests:
        raise InputError(
            f"{draw.requests} requests, of which the window in split {split!r} has {len(found)}",
            field="requests",
            remedy="ask for fewer, make seconds longer, or widen the split",
        )
    # The last chat may be cut off: its later requests are left out.
    found = sorted(found[: draw.requests], key=lambda workflow: workflow.arrival)
    return [of_seed(workflow, seed) for workflow in found]


def _chat(of_chat: Iterable[Request], model: str, origin: float) -> list[Workflow]:
    """Return the requests of one chat; a request may continue any earlier one."""
    ordered = sorted(of_chat, key=lambda request: request.number)
    row = keep_calls(sessions(SOURCE)[ordered[0].chat], [request.number for request in ordered])
    for turn, call in enumerate(row["calls"]):
        call["turn"] = turn
        if call["seen_tokens"] >= BLOCK_TOKENS and "shared_with" not in call:
            call |= {"prefix_group": SOURCE, "prefix_tokens": BLOCK_TOKENS}
    trace = Trace.model_validate({**row, "source": SOURCE})
    turns = session_workflows(trace, SessionRules(lambda *_: model))
    return [
        turn.model_copy(
            update={
                "arrival": request.at - origin,
                "follows": turns[call.parents[-1]].id if call.parents else None,
            }
        )
        for turn, call, request in zip(turns, trace.calls, ordered, strict=True)
    ]


def _model_of(chat: int, models: Sequence[str], seed: int) -> str:
    name: str = sessions(SOURCE)[chat]["id"]
    return models[int(seeded(seed, name, "/model").integers(len(models)))]


def _context(request: Request) -> int:
    call = sessions(SOURCE)[request.chat]["calls"][request.number]
    return int(call["prompt_tokens"] + call["output_tokens"])


def _limit(model: str) -> float:
    return catalog.model(model).max_context or math.inf
