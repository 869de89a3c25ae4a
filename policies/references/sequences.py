"""Schedules as sequences: the devices of each stage, and the order of stages on each device.

A device takes its stages strictly in that order, and idles until the next one is ready. So every
semi-active schedule of the execution model has a sequence, even one in which a device waits for a
stage that is not ready yet. (Plans in `policies.fate.plans` are priority lists instead: the first
ready stage starts, even if a better one becomes ready a moment later.) The value of a sequence is
found by playing it with the simulator's own kernel (`play`).

Shapes: S stages, D devices, K = ``max_shards``, N members of a population.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Block, copy_block, inlined, kernel, scalar, table
from fate_gym.kernel.advance import advance
from fate_gym.kernel.advance import start as begin_run
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.estimate import end_estimates
from fate_gym.kernel.openings import is_open
from fate_gym.kernel.schema import (
    NO_LOG,
    PLACED,
    READY,
    TOOL_STAGE,
    LogArrays,
    ProblemArrays,
    StateArrays,
    new_state,
)
from fate_gym.sim import Trace

FIRST_RANDOM = 0x2545F4914F6CDD1D


class Sequence(Block):
    """One schedule, with the outcome of its last play."""

    value: float = scalar("f8", "the last end", "s")
    second: float = scalar("f8", "sum of the ends of stages; decides between equals", "s")
    criticals: int = scalar("i8", "length of `critical`")

    key: Any = table("f8", "S", text="place in the order, within [0, 1)")
    order: Any = table("i8", "S", text="stages by key, parents first")
    width: Any = table("i8", "S", text="devices that share the stage; 0: none, or it is to choose")
    devices: Any = table("i8", "S", "K", text="device numbers")
    critical: Any = table("i8", "S", text="stages that decide the end")


class SearchTables(Block):
    """Tables used by plays and by the search."""

    work: int = scalar("i8", "of all plays: 1 a stage placed")
    random: Any = scalar("u8", "state of the random numbers")
    placed: int = scalar("i8", "stages in `started`")
    free_count: int = scalar("i8", "length of `free`")

    tail: Any = table("f8", "S", text="at least that long from a stage's end to the end", unit="s")
    free: Any = table("i8", "S", text="stages that are to be scheduled")
    started: Any = table("i8", "S", text="what was placed at the last instant")
    taken: Any = table("i8", "S", text="1: its turn has come already")
    counts: Any = table("i8", "K", text="scratch: queries of each device")
    loose: int = scalar("i8", "stages left that choose their device when they are ready")
    turns: int = scalar("i8", "stages placed so far")
    turn: Any = table("i8", "S", text="the how-manieth each stage was placed")
    ends: Any = table("f8", "D", text="scratch: ends of a stage on each device", unit="s")
    promised: Any = table("f8", "D", text="until when a stage that waits has a device", unit="s")
    taste: Any = table("f8", "D", text="what a stage that chooses multiplies its seconds with")
    queue: Any = table("i8", "D", "S", text="stages of each device, in order")
    length: Any = table("i8", "D", text="length of each queue")
    front: Any = table("i8", "D", text="first of each queue whose turn has not come")
    before: Any = table("i8", "S", "K", text="the stage ahead in each device's queue, -1 without")
    members: Any = table("i8", "N", text="addresses of the population")


class Search(NamedTuple):
    """The data plays and searches work on. All but ``problem`` and ``log`` is written to.

    Attributes:
        problem: the compiled problem.
        start: the state in which plays begin: the run at its first decision.
        state: state of the running play.
        log: a log without rows.
        child: the sequence being tried.
        best: the best sequence so far.
        tables: all other tables.
    """

    problem: ProblemArrays
    start: StateArrays
    state: StateArrays
    log: LogArrays
    child: Sequence
    best: Sequence
    tables: SearchTables


def new_search(p: ProblemArrays, members: int, seed: int) -> tuple[Search, list[Sequence]]:
    """Allocate a search for the run with this seed, and a population of ``members`` sequences."""
    size = {"S": p.stages.size, "K": p.max_shards}
    population = [Sequence.allocate(**size) for _ in range(members)]
    child, best = Sequence.allocate(**size), Sequence.allocate(**size)
    tables = SearchTables.allocate(**size, D=p.devices.size, N=members)
    tables.random = FIRST_RANDOM
    tables.members[:] = [member.address for member in population]
    free = np.flatnonzero(p.stages["kind"] != TOOL_STAGE)
    tables.free_count = free.size
    tables.free[: free.size] = free
    c = Search(p, new_state(p), new_state(p), NO_LOG, child, best, tables)
    begin_run(p, c.start, NO_LOG, seed)
    return c, population


def write_trace(p: ProblemArrays, trace: Trace, out: Sequence) -> None:
    """Write the sequence of a run to ``out``: stages in the order of their last placements.

    Stages that were never placed, because they vanished, get no device. With the same seed they
    vanish in every schedule.
    """
    rows = trace.shards[trace.shards["device"] >= 0]
    out.width[:] = 0
    # Tools and vanished stages have no place of their own: `lay_out` puts them right after their
    # parents. They are in no device's queue.
    place = np.full(p.stages.size, -1.0)
    for number, row in enumerate(rows):
        stage, slot = int(row["stage"]), int(row["slot"])
        out.devices[stage, slot] = row["device"]
        out.width[stage] = slot + 1
        place[stage] = number
    place[p.stages["kind"] == TOOL_STAGE] = -1.0
    _write_order(p, place, out)


def leave_out_vanished(search: Search, one: Sequence) -> None:
    """Restrict a search to the stages that have devices in the sequence of a run.

    A stage that vanishes must not be in a device's queue: it would hold up those behind it until
    it is known that it vanishes.
    """
    placed = np.flatnonzero(one.width > 0)
    search.tables.free_count = placed.size
    search.tables.free[: placed.size] = placed


def write_placements(
    p: ProblemArrays, order: Listing[int], devices: Listing[Listing[int]], out: Sequence
) -> None:
    """Write a stored sequence to ``out``.

    Args:
        p: the problem.
        order: the placed stages, first to last.
        devices: (len(order), 1..K) the devices of each.
        out: the sequence to fill.
    """
    place = np.full(p.stages.size, -1.0)
    out.width[:] = 0
    for number, (stage, hosts) in enumerate(zip(order, devices, strict=True)):
        place[stage] = number
        out.width[stage] = len(hosts)
        out.devices[stage, : len(hosts)] = hosts
    _write_order(p, place, out)


def placements(sequence: Sequence) -> tuple[list[int], list[list[int]]]:
    """Return the order and devices of a sequence, in the form that `write_placements` takes."""
    order = [int(stage) for stage in sequence.order if sequence.width[stage] > 0]
    return order, [sequence.devices[s, : sequence.width[s]].tolist() for s in order]


def _write_order(p: ProblemArrays, place: NDArray[np.float64], out: Sequence) -> None:
    out.key[:] = (place + 1.0) / (p.stages.size + 2.0)
    out.order[:] = p.topological


@kernel
def lay_out(p: ProblemArrays, one: Sequence, tables: SearchTables) -> None:
    """Sort a sequence, parents first, and fill the devices' queues.

    Keys are replaced by positions in the order, so that they compare across sequences.
    ``one.order`` already has parents first; a stable sort by keys that never fall along an edge
    keeps that.
    """
    stages = one.key.size
    for i in range(stages):
        s = p.topological[i]
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            one.key[s] = max(one.key[s], one.key[p.edges[e].parent])
    for i in range(1, stages):
        s = one.order[i]
        key = one.key[s]
        j = i
        while j > 0 and one.key[one.order[j - 1]] > key:
            one.order[j] = one.order[j - 1]
            j -= 1
        one.order[j] = s
    for d in range(p.devices.size):
        tables.length[d] = 0
    for i in range(stages):
        s = one.order[i]
        one.key[s] = i / stages
        for k in range(one.width[s]):
            d = one.devices[s, k]
            n = tables.length[d]
            tables.before[s, k] = tables.queue[d, n - 1] if n > 0 else -1
            tables.queue[d, n] = s
            tables.length[d] = n + 1


@kernel
def begin(one: Sequence, tables: SearchTables) -> None:
    """Reset the tables for a play: no stage has been placed."""
    tables.turns = 0
    tables.loose = 0
    for i in range(tables.free_count):
        tables.loose += one.width[tables.free[i]] == 0
    for d in range(tables.front.size):
        tables.front[d] = 0
    for s in range(tables.taken.size):
        tables.taken[s] = 0


@kernel
def place_due(c: Search, st: StateArrays, one: Sequence) -> float:
    """Place in ``st`` the ready stages whose turn it is, and list them in ``started``.

    Stages that were lost when a device failed go first once their devices are up.
    Returns a lower bound on the last end, from the stages placed, seconds.
    """
    tables = c.tables
    tables.placed = 0
    bound = _place_lost(c, st, one) if c.problem.failing else 0.0
    again = True
    while again:
        again = False
        i = 0
        while i < st.ready_count:
            s = st.ready[i]
            if one.width[s] == 0 or not _is_due(st, one, tables, s):
                i += 1
                continue
            bound = max(bound, _place(c, st, one, s))
            again = True
    return max(bound, _place_loose(c, st, one)) if tables.loose > 0 else bound


@kernel
def _place_lost(c: Search, st: StateArrays, one: Sequence) -> float:
    """Place lost stages again if their devices are up, in the order of their first placements."""
    tables = c.tables
    bound = 0.0
    while True:
        first = -1
        for i in range(st.ready_count):
            s = st.ready[i]
            if tables.taken[s] > 0 and _are_up(st, one, s):
                first = s if first < 0 or tables.turn[s] < tables.turn[first] else first
        if first < 0:
            return bound
        bound = max(bound, _place(c, st, one, first))


@inlined
def _place(c: Search, st: StateArrays, one: Sequence, s: int) -> float:
    p, tables = c.problem, c.tables
    width = one.width[s]
    split_queries(p, s, one.devices[s], width, tables.counts)
    end = commit(p, st, c.log, s, one.devices[s], tables.counts, width, NOBODY)
    if tables.taken[s] == 0:
        # A stage that was lost comes back before its turn: only its first place counts.
        tables.taken[s] = 1
        tables.turn[s] = tables.turns
        tables.turns += 1
    tables.started[tables.placed] = s
    tables.placed += 1
    return end + tables.tail[s]


@kernel
def _place_loose(c: Search, st: StateArrays, one: Sequence) -> float:
    """Let ready stages without a device choose by earliest end, in order; place those that start.

    A stage whose device is busy waits, and keeps the device from later stages.
    """
    p, tables = c.problem, c.tables
    bound = 0.0
    for d in range(p.devices.size):
        tables.promised[d] = st.now
    for i in range(one.order.size):
        s = one.order[i]
        if one.width[s] > 0 or st.stages[s].status != READY:
            continue
        end_estimates(p, st, s, tables.ends)
        tables.work += (p.devices.size + 7) // 8
        best, least = -1, np.inf
        for d in range(p.devices.size):
            seconds = tables.ends[d] - st.now + (tables.promised[d] - st.now)
            if seconds < np.inf and seconds * tables.taste[d] < least:
                best, least = d, seconds * tables.taste[d]
        if best < 0:
            continue
        if tables.promised[best] > st.now or not is_open(p, st, best):
            tables.promised[best] = max(tables.promised[best], tables.ends[best])
            continue
        one.width[s] = 1
        one.devices[s, 0] = best
        tables.loose -= 1
        bound = max(bound, _place(c, st, one, s))
    return bound


@kernel
def keep_order(p: ProblemArrays, one: Sequence, tables: SearchTables) -> None:
    """Reorder a sequence to the order in which its last play placed the stages.

    Tools and vanished stages were not placed: they come as early as their parents allow.
    """
    for s in range(one.key.size):
        one.key[s] = tables.turn[s] / one.key.size if tables.taken[s] > 0 else 0.0
    lay_out(p, one, tables)


@inlined
def _is_due(st: StateArrays, one: Sequence, tables: SearchTables, s: int) -> bool:
    """Whether all devices of ``s`` are up and have placed every stage ahead of it."""
    if tables.taken[s] > 0 or not _are_up(st, one, s):
        return False
    for k in range(one.width[s]):
        d = one.devices[s, k]
        n = tables.front[d]
        while n < tables.length[d] and tables.taken[tables.queue[d, n]] > 0:
            n += 1
        tables.front[d] = n
        if tables.queue[d, n] != s:
            return False
    return True


@inlined
def _are_up(st: StateArrays, one: Sequence, s: int) -> bool:
    down = 0
    for k in range(one.width[s]):
        down += st.devices[one.devices[s, k]].drains_at == np.inf
    return down == 0


@kernel
def play(c: Search, one: Sequence, bound: float) -> float:
    """Play a sequence from ``c.start``; return its value, the last end.

    inf: the last end would be after ``bound``, or a device waits forever.
    """
    p, st, tables = c.problem, c.state, c.tables
    one.value = np.inf
    copy_block(st, c.start)
    lay_out(p, one, tables)
    begin(one, tables)
    while True:
        least = 0.0
        if st.ready_count > 0:
            least = place_due(c, st, one)
            tables.work += tables.placed
        if least > bound or st.now > bound:
            return np.inf
        if not advance(p, st, c.log):
            break
    one.second = 0.0
    for s in range(one.key.size):
        if st.stages[s].status <= PLACED:
            return np.inf
        one.second += st.stages[s].end
    if st.last_end <= bound:
        one.value = st.last_end
    return one.value


@kernel
def mark_critical(c: Search, one: Sequence) -> None:
    """List the stages that decide the end of the last play, walking back from the last stage.

    A stage is held up by the stage ahead of it on a device or by a parent, whichever ended last.
    """
    p, st, tables = c.problem, c.state, c.tables
    s = 0
    for other in range(one.key.size):
        if st.stages[other].end > st.stages[s].end:
            s = other
    one.criticals = 0
    while s >= 0 and one.criticals < one.key.size:
        if one.width[s] > 0:
            one.critical[one.criticals] = s
            one.criticals += 1
        last, end = -1, -1.0
        for k in range(one.width[s]):
            other = tables.before[s, k]
            if other >= 0 and st.stages[other].end > end:
                last, end = other, st.stages[other].end
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            parent = p.edges[e].parent
            if st.stages[parent].end > end:
                last, end = parent, st.stages[parent].end
        s = last
