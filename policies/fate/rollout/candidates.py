"""Candidates: placements of the frontier that start now, each valued by playing on from it."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Ints, copy_block, inlined, kernel
from fate_gym.kernel.advance import next_event_time
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.estimate import end_estimate
from fate_gym.kernel.openings import starts_now
from fate_gym.kernel.placements import Placements, sort_devices
from fate_gym.kernel.schema import ProblemArrays, StateArrays
from policies.fate.kinds import interchangeable
from policies.fate.plans.choice import hosts
from policies.fate.plans.dispatch import order_ready
from policies.fate.plans.edit import put_first
from policies.fate.plans.objective import EQUAL
from policies.fate.plans.play import value_of
from policies.fate.plans.schema import Context, Plan, Style


@kernel
def list_candidates(c: Context, kinds: int, places: int, shards: int, found: Placements) -> None:
    """List candidates of the first ``kinds`` kinds of ready stages, by the keys of ``c.base``.

    Each kind gets up to ``places`` candidates on single devices, and one on the first k devices to
    end for each k from 2 to ``shards``. The last row, without a stage, means waiting: nothing in
    the frontier starts before the next event. If there is no next event, that row is left out.
    """
    p, st, ws = c.problem, c.start, c.work
    ready = order_ready(st, c.base, ws)
    taken = 0
    found.count = 0
    for i in range(ready):
        if taken == kinds:
            break
        s = ws.order[i]
        new = True
        for j in range(taken):
            new = new and not interchangeable(p, ws.firsts[j], s)
        if new:
            ws.firsts[taken] = s
            taken += 1
            for d in range(p.devices.size):
                found.ends[d] = np.inf
                if hosts(p, s, d) and starts_now(p, st, s, d, p.stages[s].queries):
                    found.ends[d] = end_estimate(p, st, s, d)
            able = sort_devices(found.ends, found.order)
            _add_single(p, st, s, able, places, found)
            for k in range(2, min(shards, p.stages[s].queries, able) + 1):
                _add(p, s, found.order, k, found)
    if next_event_time(p, st) < np.inf:
        found.rows[found.count].stage = -1
        found.rows[found.count].width = 0
        found.count += 1


@inlined
def _add_single(
    p: ProblemArrays, st: StateArrays, s: int, able: int, places: int, found: Placements
) -> None:
    """Add single devices; of those alike (end, clean seconds and memory contents) only one."""
    first = found.count
    for i in range(able):
        d = found.order[i]
        alike = False
        for row in range(first, found.count):
            alike = alike or _alike(p, st, s, found.devices[row, 0], d, found)
        if not alike and found.count - first < places:
            _add(p, s, found.order[i:], 1, found)


@inlined
def _alike(p: ProblemArrays, st: StateArrays, s: int, a: int, b: int, found: Placements) -> bool:
    if found.ends[a] != found.ends[b] or p.clean_seconds[s, a] != p.clean_seconds[s, b]:
        return False
    # Other contents count too: the stage may evict what other stages need.
    for model in range(st.resident.shape[1]):
        if (st.resident[a, model] > 0) != (st.resident[b, model] > 0):
            return False
    return st.devices[a].kv_bytes == st.devices[b].kv_bytes


@inlined
def _add(p: ProblemArrays, s: int, team: Ints, k: int, found: Placements) -> None:
    row = found.count
    found.count += 1
    found.rows[row].stage = s
    found.rows[row].width = k
    for i in range(k):
        found.devices[row, i] = team[i]
    split_queries(p, s, team, k, found.counts[row])


@kernel
def value_candidates(
    c: Context, style: Style, found: Placements, bound: float, most_work: int
) -> int:
    """Value the candidates: each is placed first, then the list schedule ``c.base`` follows.

    Each row gets the value of its plan; inf: not better than ``bound``, or not tried because
    ``most_work`` was used up. Returns the row of the best, whose plan is in ``c.found``; -1: none
    is better than ``bound``.
    """
    ws = c.work
    start = ws.work
    chosen = -1
    value = bound * (1.0 - EQUAL)
    for row in range(found.count):
        found.rows[row].value = np.inf
        if ws.work - start > most_work:
            continue
        copy_block(c.draft, c.base)
        put_candidate(c.problem, c.start, c.draft, found, row, row)
        found.rows[row].value = value_of(c, c.draft, style, bound)
        if found.rows[row].value < value:
            value = found.rows[row].value
            copy_block(c.found, c.played)
            chosen = row
    return chosen


@kernel
def put_candidate(
    p: ProblemArrays, st: StateArrays, plan: Plan, found: Placements, row: int, turn: int
) -> None:
    """Put a candidate at the front of a plan, after those of smaller ``turn``.

    A candidate without a stage makes all ready stages wait for the next event.
    """
    if found.rows[row].width > 0:
        put_first(plan, found, row, turn)
        return
    time = next_event_time(p, st)
    for i in range(st.ready_count):
        plan.stages[st.ready[i]].not_before = time
