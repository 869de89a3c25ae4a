"""Dispatch: which stages of a plan start at an instant."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.estimate import drain_estimate
from fate_gym.kernel.openings import is_open, starts_now
from fate_gym.kernel.schema import SAMPLED, ProblemArrays, StateArrays
from policies.fate.plans.choice import choose, hosts
from policies.fate.plans.joining import find_turns
from policies.fate.plans.schema import Context, Plan, Style, Workspace

FEW = 64
"""Up to this many stages are sorted by insertion."""


@kernel
def dispatch(c: Context, style: Style) -> int:
    """Place what ``c.played`` starts now; list the stages in ``started``, return their number."""
    p, st, plan, ws = c.problem, c.state, c.played, c.work
    free = _find_free(p, st, ws)
    noted = 0
    # The plan's times are expected times; in a drawn future events come at other times.
    drawn = st.origin == SAMPLED
    if free == 0 or (drawn and st.now < ws.wait_until):
        return noted
    effort = (p.devices.size + 7) // 8
    ready = renew_order(p, st, plan, ws)
    timed = False
    for i in range(ready):
        if free == 0:
            break
        s = ws.order[i]
        row = plan.stages[s]
        beyond = style.horizon >= 0 and ws.stages[s].depth > style.horizon
        if beyond or (row.not_before > st.now and not drawn):
            continue
        if drawn and _is_down(st, plan, s):
            row.width = 0
        if row.width == 0:
            if not timed:
                _find_turns(p, st, ws)
                timed = True
            end = choose(c, style, s)
            ws.work += effort
            if end == np.inf:
                continue
            if not _may_start(c, s):
                free -= _reserve(c, s, end)
                continue
            _write_choice(c, s)
        elif not _can_start(p, st, plan, ws, s):
            if p.batching:
                free -= _hold(plan, ws, s)
            continue
        free -= _start(c, s, timed)
        ws.started[noted] = s
        ws.order[i] = -1
        noted += 1
    if noted > 0:
        _close_gaps(ws, ready)
    return noted


@inlined
def _find_free(p: ProblemArrays, st: StateArrays, ws: Workspace) -> int:
    """Find which devices are free now; return their number."""
    free = 0
    for d in range(p.devices.size):
        device = ws.devices[d]
        device.brings = -1
        device.free = is_open(p, st, d)
        free += device.free
    return free


@kernel
def _find_turns(p: ProblemArrays, st: StateArrays, ws: Workspace) -> None:
    """Find when every device is next free (its turn), for stages that choose their device."""
    for d in range(p.devices.size):
        _renew_turn(p, st, ws, d)


@inlined
def _renew_turn(p: ProblemArrays, st: StateArrays, ws: Workspace, d: int) -> None:
    if p.batching:
        find_turns(p, st, ws, d)
    else:
        # Even in a drawn future it is not yet known when a running shard will end.
        ws.devices[d].turn = drain_estimate(p, st, d)


@inlined
def _is_down(st: StateArrays, plan: Plan, s: int) -> bool:
    """Whether a device planned for ``s`` has failed."""
    down = 0
    for k in range(plan.stages[s].width):
        down += st.devices[plan.devices[s, k]].drains_at == np.inf
    return down > 0


@inlined
def _can_start(p: ProblemArrays, st: StateArrays, plan: Plan, ws: Workspace, s: int) -> bool:
    """Whether all planned devices can run ``s``, and it starts now on at least one."""
    starting = 0
    for k in range(plan.stages[s].width):
        d = plan.devices[s, k]
        if st.devices[d].drains_at == np.inf or not hosts(p, s, d):
            return False
        free = ws.devices[d].free > 0
        starting += free and starts_now(p, st, s, d, plan.counts[s, k])
    return starting > 0


@inlined
def _may_start(c: Context, s: int) -> bool:
    """Whether ``s`` would start now on all chosen devices."""
    for k in range(c.choice.rows[0].width):
        d = c.choice.devices[0, k]
        if c.work.devices[d].free == 0:
            return False
        if not starts_now(c.problem, c.state, s, d, c.choice.counts[0, k]):
            return False
    return True


@inlined
def _reserve(c: Context, s: int, end: float) -> int:
    """Reserve the chosen devices for ``s``; return how many are no longer free."""
    taken = 0
    for k in range(c.choice.rows[0].width):
        device = c.work.devices[c.choice.devices[0, k]]
        taken += device.free
        device.free = 0
        device.turn = end
        device.brings = c.problem.stages[s].model
    return taken


@inlined
def _hold(plan: Plan, ws: Workspace, s: int) -> int:
    """Block the batches that ``s`` waits for until it joins; return how many devices that takes."""
    taken = 0
    for k in range(plan.stages[s].width):
        device = ws.devices[plan.devices[s, k]]
        taken += device.free
        device.free = 0
    return taken


@inlined
def _write_choice(c: Context, s: int) -> None:
    """Write the choice of ``s`` into the plan."""
    plan, choice = c.played, c.choice
    row = plan.stages[s]
    row.width = choice.rows[0].width
    row.not_before = c.state.now
    row.key = float(c.work.placed)
    for k in range(row.width):
        plan.devices[s, k] = choice.devices[0, k]
        plan.counts[s, k] = choice.counts[0, k]


@inlined
def _start(c: Context, s: int, timed: bool) -> int:
    """Place ``s`` as planned; return how many devices are no longer free.

    ``timed``: whether the turns of devices are known, and have to stay up to date.
    """
    p, st, plan, ws = c.problem, c.state, c.played, c.work
    width = plan.stages[s].width
    end = commit(p, st, c.log, s, plan.devices[s], plan.counts[s], width, NOBODY)
    ws.placed += 1
    taken = 0
    for k in range(width):
        d = plan.devices[s, k]
        device = ws.devices[d]
        if device.free and not is_open(p, st, d):
            device.free = 0
            taken += 1
        if timed:
            _renew_turn(p, st, ws, d)
        ws.version += 1
        device.version = ws.version
    bound = end + ws.stages[s].tail
    ws.second += bound
    workflow = ws.workflows[p.stages[s].workflow]
    workflow.end = max(workflow.end, bound)
    return taken


@kernel
def renew_order(p: ProblemArrays, st: StateArrays, plan: Plan, ws: Workspace) -> int:
    """Bring ``order`` up to date since the last dispatch of the same play; return its length.

    The same as `order_ready`, but only stages that have become ready since are sorted in. Where
    devices fail, stages also cease to be ready, and all are sorted anew.
    """
    count = st.ready_count
    if p.failing:
        return order_ready(st, plan, ws)
    if ws.ordered < 0:
        order_ready(st, plan, ws)
        for i in range(count):
            ws.listed[st.ready[i]] = ws.plays
    else:
        # Those that became ready last are at the end of the list.
        i = count - 1
        while ws.ordered < count:
            s = st.ready[i]
            if ws.listed[s] != ws.plays:
                ws.listed[s] = ws.plays
                _sort_in(st, plan, ws, s)
            i -= 1
    ws.ordered = count
    return count


@inlined
def _sort_in(st: StateArrays, plan: Plan, ws: Workspace, s: int) -> None:
    """Insert ``s`` into ``order``."""
    i = ws.ordered
    while i > 0 and _goes_before(st, plan, s, ws.order[i - 1]):
        ws.order[i] = ws.order[i - 1]
        i -= 1
    ws.order[i] = s
    ws.ordered += 1


@inlined
def _goes_before(st: StateArrays, plan: Plan, s: int, other: int) -> bool:
    """Whether ``s`` goes before another ready stage: by key, time ready and number."""
    key, than = plan.stages[s].key, plan.stages[other].key
    if key != than:
        return bool(key < than)
    since, than = st.stages[s].ready_at, st.stages[other].ready_at
    return bool(since < than or (since == than and s < other))


@inlined
def _close_gaps(ws: Workspace, count: int) -> None:
    """Remove the stages that have been placed (-1) from ``order``."""
    kept = 0
    for i in range(count):
        if ws.order[i] >= 0:
            ws.order[kept] = ws.order[i]
            kept += 1
    ws.ordered = kept


@kernel
def order_ready(st: StateArrays, plan: Plan, ws: Workspace) -> int:
    """Fill ``order`` with the ready stages, by key, then by time ready; return their number."""
    count = st.ready_count
    if count > FEW:
        _sort_many(st, plan, ws)
        return count
    for n in range(count):
        s = st.ready[n]
        key = plan.stages[s].key
        i = n
        while i > 0 and plan.stages[ws.order[i - 1]].key > key:
            ws.order[i] = ws.order[i - 1]
            i -= 1
        ws.order[i] = s
    return count


@kernel
def _sort_many(st: StateArrays, plan: Plan, ws: Workspace) -> None:
    keys = np.empty(st.ready_count)
    for i in range(keys.size):
        keys[i] = plan.stages[st.ready[i]].key
    places = np.argsort(keys, kind="mergesort")
    for i in range(keys.size):
        ws.order[i] = st.ready[places[i]]
