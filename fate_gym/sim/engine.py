"""What happens: events, readiness, commits. Compiled; the only code that changes a state.

Functions that are called take buffers and cut their views themselves; functions that are merged
into their callers take views. A call that passed the views would pass their forty arrays, and
would lose the compiler's knowledge that they own nothing (`fate_gym.sim.tables`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.contention import shared_fetch
from fate_gym.sim.cost import (
    add_link_seconds,
    batch_limit,
    context_hit_tokens,
    decode_seconds,
    drain_estimate,
    migrated_cost,
    prefix_estimate,
    prefix_hit_tokens,
    shard_cost,
    tool_transfer_seconds,
    vanished_tokens,
)
from fate_gym.sim.layout import (
    DONE,
    EXPECTED,
    FIXED_STAGE,
    HOST,
    LIVE,
    LOSING,
    MODEL_STAGE,
    ON_HOST,
    PLACED,
    READY,
    SAMPLED,
    TOOL_STAGE,
    VANISHED,
    WAITING,
    Array,
    Buffer,
    Log,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)
from fate_gym.sim.memory import (
    context_bytes,
    forget,
    grow_prefix,
    keep_context,
    make_room,
    release_context,
    touch_contexts,
    touch_prefix,
)


@compiled
def reset(p: ProblemView, st: StateView, seed: int) -> None:
    """The state before time 0; call `advance` to reach the first decision. Buffer must be zero."""
    head = st.head[0]
    head.seed = seed
    noisy = p.head[0].uncertainty > 0.0 or p.head[0].length_uncertainty > 0.0
    head.noisy = 1 if noisy else 0
    head.next_change = np.inf
    for d in range(p.devices.size):
        st.devices[d].oldest = -1
        st.devices[d].newest = -1
        st.devices[d].queue_head = -1
        st.devices[d].queue_tail = -1
        if p.head[0].failing:
            st.devices[d].changes_at = _change_after(p, st, d, 0, 0.0)
            head.next_change = min(head.next_change, st.devices[d].changes_at)
    for s in range(p.stages.size):
        # The arrival of the workflow counts as one more parent.
        st.stages[s].missing = p.stages[s].parents_to - p.stages[s].parents_from + 1


@inlined
def _earlier(a_time: float, a_id: int, b_time: float, b_id: int) -> bool:
    return a_time < b_time or (a_time == b_time and a_id < b_id)


@inlined
def _push(st: StateView, time: float, event: int) -> None:
    heap = st.events
    i = st.head[0].events
    st.head[0].events += 1
    while i > 0:
        above = (i - 1) // 2
        if not _earlier(time, event, heap[above].time, heap[above].id):
            break
        heap[i].time = heap[above].time
        heap[i].id = heap[above].id
        i = above
    heap[i].time = time
    heap[i].id = event


@inlined
def _pop(st: StateView) -> int:
    heap = st.events
    event = heap[0].id
    n = st.head[0].events - 1
    st.head[0].events = n
    time, last = heap[n].time, heap[n].id
    i = 0
    while True:
        below = 2 * i + 1
        if below >= n:
            break
        if below + 1 < n and _earlier(
            heap[below + 1].time, heap[below + 1].id, heap[below].time, heap[below].id
        ):
            below += 1
        if not _earlier(heap[below].time, heap[below].id, time, last):
            break
        heap[i].time = heap[below].time
        heap[i].id = heap[below].id
        i = below
    heap[i].time = time
    heap[i].id = last
    return event


@inlined
def noise_factor(p: ProblemView, st: StateView, s: int, d: int) -> float:
    """exp(sigma z - sigma^2/2), z standard normal from (seed, stage, device) alone (SplitMix64).

    In a sampled fork from (seed, stage): plans that differ in devices then meet the same luck, and
    comparing them takes far fewer samples.
    """
    if not st.head[0].noisy:
        return 1.0
    if st.head[0].origin == SAMPLED:
        d = HOST
    x = np.uint64(st.head[0].seed) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(s + 1) * np.uint64(0xD1B54A32D192ED03)
    x += np.uint64(d + 2) * np.uint64(0x8CB92BA72F3D8DD7)
    return _lognormal(x, p.head[0].uncertainty)


@inlined
def length_factor(p: ProblemView, st: StateView, s: int) -> float:
    """Actual / estimated output tokens of stage ``s``: like noise, from (seed, stage) alone."""
    sigma = p.head[0].length_uncertainty
    if not st.head[0].noisy or sigma == 0.0 or p.stages[s].kind != MODEL_STAGE:
        return 1.0
    return _lognormal(_key(st, s, 0x2545F4914F6CDD1D), sigma)


@inlined
def choice_draw(p: ProblemView, st: StateView, s: int) -> float:
    """The draw in [0, 1) of chooser ``s``, from (seed, stage) alone; a forecast: the likely one."""
    if st.head[0].origin == EXPECTED:
        return p.stages[s].likely
    return _uniform(_key(st, s, 0x9FB21C651E98DF25))


@inlined
def _key(st: StateView, number: int, purpose: int) -> Any:
    x = np.uint64(st.head[0].seed) * np.uint64(0x9E3779B97F4A7C15)
    x += np.uint64(number + 1) * np.uint64(0xD1B54A32D192ED03)
    return x ^ np.uint64(purpose)


@inlined
def _lognormal(x: Any, sigma: float) -> float:
    """With mean 1."""
    z = np.sqrt(-2.0 * np.log(_uniform(x))) * np.cos(
        2.0 * np.pi * _uniform(x ^ np.uint64(0x5851F42D4C957F2D))
    )
    return np.exp(sigma * z - 0.5 * sigma * sigma)


@inlined
def _uniform(x: Any) -> float:
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (np.float64(x >> np.uint64(11)) + 0.5) / 9007199254740992.0


@inlined
def _become_ready(p: ProblemView, st: StateView, log: Log, s: int) -> None:
    head = st.head[0]
    stage = st.stages[s]
    stage.ready_at = head.now
    if p.stages[s].kind == TOOL_STAGE:
        _start_tool(p, st, log, s)
    elif not p.head[0].failing or _has_host(p, st, s):
        _enlist(st, s)


@inlined
def _has_host(p: ProblemView, st: StateView, s: int) -> bool:
    """Whether a device that can run stage ``s`` is up."""
    for d in range(p.devices.size):
        if p.clean_seconds[s, d] < np.inf and st.devices[d].drains_at < np.inf:
            return True
    return False


@inlined
def _enlist(st: StateView, s: int) -> None:
    """Put a stage into the ready list, which is ordered by (time it became ready, number)."""
    head = st.head[0]
    st.stages[s].status = READY
    since = st.stages[s].ready_at
    i = head.ready
    while i > 0:
        other = st.ready[i - 1]
        before = st.stages[other].ready_at
        if before < since or (before == since and other < s):
            break
        st.ready[i] = other
        i -= 1
    st.ready[i] = s
    head.ready += 1


@compiled
def _start_tool(p: ProblemView, st: StateView, log: Log, s: int) -> None:
    head = st.head[0]
    transfer, moved = tool_transfer_seconds(p, st, s)
    seconds = p.stages[s].tool_seconds
    noise = noise_factor(p, st, s, HOST)
    end = head.now + transfer + seconds * noise
    st.stages[s].status = PLACED
    if head.shard_rows < log.shards.size:
        row = log.shards[head.shard_rows]
        row.stage = s
        row.slot = 0
        row.device = HOST
        row.queries = p.stages[s].queries
        row.waves = 1
        row.lost = 0
        row.source = -1
        row.committed = head.now
        row.start = head.now
        row.load_s = 0.0
        row.transfer_s = transfer
        row.prefill_s = 0.0
        row.decode_s = seconds
        row.noise = noise
        row.length = 1.0
        row.end = end
        row.prefix_hit = 0.0
        row.prefix_new = 0.0
        row.context_hit = 0.0
        row.context_new = 0.0
        row.copied = 0.0
        row.bytes_moved = moved
    head.shard_rows += 1
    shards = p.head[0].max_shards
    _push(st, end, s * (shards + 1) + shards)


@inlined
def _finish(p: ProblemView, st: StateView, log: Log, s: int) -> None:
    head = st.head[0]
    stage = st.stages[s]
    stage.status = DONE
    stage.end = head.now
    head.last_end = head.now
    head.known_left -= 1
    if p.stages[s].chooses:
        _choose(p.buffer, st.buffer, log, s)
    _release_children(p, st, log, s)


@inlined
def _release_children(p: ProblemView, st: StateView, log: Log, s: int) -> None:
    for i in range(p.stages[s].children_from, p.stages[s].children_to):
        child = p.edges[p.out_edges[i]].child
        st.stages[child].missing -= 1
        if _awaits_nothing(p, st, child):
            _become_ready(p, st, log, child)


@inlined
def _awaits_nothing(p: ProblemView, st: StateView, s: int) -> bool:
    """Whether stage ``s`` lives, its parents are done, and so is what decides on it.

    All parents may have vanished before its own chooser has run. One that has vanished is done.
    """
    stage = st.stages[s]
    chooser = p.stages[s].chooser
    decided = chooser < 0 or st.stages[chooser].status == DONE
    return stage.missing == 0 and stage.status == WAITING and decided


@compiled
def _choose(problem: Buffer, state: Buffer, log: Log, s: int) -> None:
    """Draw which of the stages that depend on chooser ``s`` live; the others vanish.

    With a chooser that vanishes vanish those that depend on it.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    head = st.head[0]
    draw = choice_draw(p, st, s)
    workflow = p.workflows[p.stages[s].workflow]
    gone = np.empty(workflow.stages_to - workflow.stages_from, np.int64)
    count = 0
    for i in range(workflow.stages_from, workflow.stages_to):
        # Parents first: whoever depends on a chooser comes behind it.
        v = p.topological[i]
        stage = p.stages[v]
        if stage.chooser < 0:
            continue
        drawn = stage.chooser == s and not stage.lives_from <= draw < stage.lives_to
        if drawn or st.stages[stage.chooser].note == VANISHED:
            if st.stages[v].note == VANISHED:
                continue
            st.stages[v].note = VANISHED
            st.stages[v].status = DONE
            st.stages[v].ready_at = head.now
            st.stages[v].end = head.now
            head.known_left -= 1
            gone[count] = v
            count += 1
        elif stage.chooser == s and _awaits_nothing(p, st, v):
            _become_ready(p, st, log, v)
    for i in range(count):
        _release_children(p, st, log, gone[i])


@inlined
def _arrive(p: ProblemView, st: StateView, log: Log, w: int) -> None:
    workflow = p.workflows[w]
    st.head[0].known_left += workflow.stages_to - workflow.stages_from
    for s in range(workflow.stages_from, workflow.stages_to):
        st.stages[s].missing -= 1
        if st.stages[s].missing == 0:
            _become_ready(p, st, log, s)


@inlined
def _shard_end(p: ProblemView, st: StateView, log: Log, s: int, k: int) -> None:
    slot = st.slots[s, k]
    dev = st.devices[slot.device]
    dev.backlog -= slot.busy
    shards = p.head[0].max_shards
    number = s * shards + k
    ahead = dev.queue_head
    if ahead == number or ahead < 0:  # no queue: a state with parts blotted out
        dev.queue_head = slot.next
    else:
        # One that takes no time can be over before those ahead of it, of the same moment.
        while ahead >= 0 and st.slots[ahead // shards, ahead % shards].next != number:
            ahead = st.slots[ahead // shards, ahead % shards].next
        if ahead >= 0:
            st.slots[ahead // shards, ahead % shards].next = slot.next
        if dev.queue_tail == number:
            dev.queue_tail = ahead
    if dev.queue_head < 0:
        dev.queue_tail = -1
        dev.backlog = 0.0
    if st.stages[s].note == LOSING:
        _end_of_survivor(p.buffer, st.buffer, log, s)
    elif st.stages[s].shards == 1:
        _finish(p, st, log, s)


@inlined
def next_event_time(p: ProblemView, st: StateView) -> float:
    """The time of the next event, inf without one. Nobody may foresee a failure: `can_wait`."""
    head = st.head[0]
    time = head.next_change
    if head.events > 0:
        time = min(time, st.events[0].time)
    if head.next_arrival < p.arrivals.size:
        time = min(time, p.workflows[p.arrivals[head.next_arrival]].arrival)
    return time


@inlined
def can_wait(p: ProblemView, st: StateView) -> bool:
    """Whether an event lies ahead that is worth waiting for: failures are not."""
    head = st.head[0]
    if head.events > 0 or head.next_arrival < p.arrivals.size:
        return True
    return bool(p.head[0].failing) and head.known_left > 0 and _any_down(p, st)


@inlined
def _any_down(p: ProblemView, st: StateView) -> bool:
    down = 0
    for d in range(p.devices.size):
        down += st.devices[d].drains_at == np.inf
    return down > 0


@compiled
def advance(problem: Buffer, state: Buffer, log: Log) -> bool:
    """Go to the next instant with an event, apply all its events. False: none lies ahead."""
    p = problem_view(problem)
    st = state_view(state, p)
    head = st.head[0]
    if not can_wait(p, st):
        return False
    time = next_event_time(p, st)
    head.now = time
    head.instants += 1
    shards = p.head[0].max_shards
    while next_event_time(p, st) <= time:
        while head.next_arrival < p.arrivals.size:
            w = p.arrivals[head.next_arrival]
            if p.workflows[w].arrival > time:
                break
            head.next_arrival += 1
            _arrive(p, st, log, w)
        while head.events > 0 and st.events[0].time <= time:
            event = _pop(st)
            s, k = event // (shards + 1), event % (shards + 1)
            if k == shards:
                _finish(p, st, log, s)
            else:
                _shard_end(p, st, log, s, k)
        if head.next_change <= time:
            _change_devices(problem, state, log)
    return True


@inlined
def _change_after(p: ProblemView, st: StateView, d: int, changes: int, time: float) -> float:
    """When device ``d`` fails or is repaired next, after ``changes`` changes, at ``time``."""
    down = changes % 2 == 1
    if p.head[0].outages > 0:
        number = p.devices[d].outages_from + changes // 2
        if number >= p.devices[d].outages_to:
            return np.inf
        return p.outages[number].end if down else p.outages[number].start
    if changes >= 2 * p.head[0].most_failures:
        return np.inf
    x = _key(st, d, 0xD6E8FEB86659FD93) + np.uint64(changes) * np.uint64(0xA0761D6478BD642F)
    mean = p.head[0].mttr_s if down else p.head[0].mtbf_s
    return time - mean * np.log(_uniform(x))


@inlined
def outage(p: ProblemView, st: StateView, d: int, number: int, out: Array) -> None:
    """When device ``d`` goes down for the ``number``-th time (from 0), and when it is up again."""
    out[0], out[1] = 0.0, 0.0
    for changes in range(2 * number + 2):
        out[0], out[1] = out[1], _change_after(p, st, d, changes, out[1])


@compiled
def _change_devices(problem: Buffer, state: Buffer, log: Log) -> None:
    """Failures and repairs of this instant."""
    p = problem_view(problem)
    st = state_view(state, p)
    head = st.head[0]
    for d in range(p.devices.size):
        dev = st.devices[d]
        while dev.changes_at <= head.now:
            dev.changes += 1
            if dev.changes % 2 == 1:
                _fail(problem, state, log, d)
            else:
                _repair(p, st, d)
            if dev.changes % 2 == 0 and head.origin != LIVE:
                dev.changes_at = np.inf
            else:
                dev.changes_at = _change_after(p, st, d, dev.changes, dev.changes_at)
    head.next_change = np.inf
    for d in range(p.devices.size):
        head.next_change = min(head.next_change, st.devices[d].changes_at)


@inlined
def _repair(p: ProblemView, st: StateView, d: int) -> None:
    """The device is up, and empty. Stages that had no host are ready."""
    st.devices[d].drains_at = st.head[0].now
    for s in range(p.stages.size):
        if p.clean_seconds[s, d] < np.inf and _awaits_nothing(p, st, s):
            _enlist(st, s)


@compiled
def _fail(problem: Buffer, state: Buffer, log: Log, d: int) -> None:
    """The device loses weights, caches and its queue.

    What it has put out stays on its host. A stage that loses a shard is ready again once its
    other shards have ended.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    head = st.head[0]
    dev = st.devices[d]
    shards = p.head[0].max_shards
    number = dev.queue_head
    while number >= 0:
        s, k = number // shards, number % shards
        # A mark that the events of this shard are void.
        st.slots[s, k].device = -1
        st.slots[s, k].kept = 0
        st.stages[s].note = LOSING
        _lose_row(st, log, s, k)
        number = st.slots[s, k].next
    for s in range(p.stages.size):
        for k in range(st.stages[s].shards):
            if st.slots[s, k].device == d:
                st.slots[s, k].kept = ON_HOST
    forget(p, st, d)
    count = head.events
    head.events = 0
    for i in range(count):
        time, event = st.events[i].time, st.events[i].id
        s, k = event // (shards + 1), event % (shards + 1)
        void = st.slots[s, k].device < 0 if k < shards else st.stages[s].note == LOSING
        if not void:
            _push(st, time, event)
    number = dev.queue_head
    while number >= 0:
        s = number // shards
        number = st.slots[s, number % shards].next
        # A stage has one shard on a device: nobody is asked twice.
        _end_of_survivor(problem, state, log, s)
    dev.queue_head = -1
    dev.queue_tail = -1
    dev.backlog = 0.0
    dev.drains_at = np.inf
    i = 0
    while i < head.ready:
        s = st.ready[i]
        if _has_host(p, st, s):
            i += 1
        else:
            _take_from_ready(st, s)
            st.stages[s].status = WAITING


@inlined
def _lose_row(st: StateView, log: Log, s: int, k: int) -> None:
    """Note in the log that the shard in slot ``k`` of stage ``s`` was lost now."""
    now = st.head[0].now
    for i in range(min(st.head[0].shard_rows, log.shards.size) - 1, -1, -1):
        row = log.shards[i]
        if row.stage == s and row.slot == k:
            row.lost = 1
            row.start = min(row.start, now)
            row.end = now
            return


@compiled
def _end_of_survivor(problem: Buffer, state: Buffer, log: Log, s: int) -> None:
    """A stage that has lost a shard is ready again if none of its other shards is under way."""
    p = problem_view(problem)
    st = state_view(state, p)
    shards = p.head[0].max_shards
    for i in range(st.head[0].events):
        event = st.events[i].id
        if event // (shards + 1) == s:
            return
    for k in range(st.stages[s].shards):
        if st.slots[s, k].kept > 0:
            release_context(p, st, s, k)
        st.slots[s, k].kept = 0
    st.stages[s].shards = 0
    st.stages[s].note = 0
    st.stages[s].status = WAITING
    _become_ready(p, st, log, s)


@inlined
def to_decision(p: ProblemView, st: StateView, log: Log) -> bool:
    """Advance until a stage is ready. False: everything known is done or under way for good."""
    while st.head[0].ready == 0:
        if not advance(p.buffer, st.buffer, log):
            return False
    return True


@inlined
def _take_from_ready(st: StateView, s: int) -> None:
    head = st.head[0]
    last = head.ready - 1
    i = 0
    while st.ready[i] != s:
        i += 1
    while i < last:
        st.ready[i] = st.ready[i + 1]
        i += 1
    head.ready = last


@compiled
def commit(
    problem: Buffer, state: Buffer, log: Log, s: int, devices: Array, counts: Array, k: int
) -> float:
    """Place ready stage ``s`` on ``devices[:k]`` with ``counts[:k]`` queries.

    The caller has checked that the placement is legal. Returns the stage's actual end.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    _take_from_ready(st, s)
    stage = st.stages[s]
    stage.status = PLACED
    stage.shards = k
    end = 0.0
    shards = p.head[0].max_shards
    for i in range(k):
        shard_end = _commit_shard(p, st, log, s, i, devices[i], counts[i])
        end = max(end, shard_end)
        _push(st, shard_end, s * (shards + 1) + i)
    if k > 1:
        end += (k - 1) * p.head[0].gather_s
        _push(st, end, s * (shards + 1) + shards)
    return end


@compiled
def commit_from(
    problem: Buffer,
    state: Buffer,
    log: Log,
    s: int,
    devices: Array,
    counts: Array,
    k: int,
    source: int,
) -> float:
    """Like `commit`; device ``source`` sends what it caches of the prefix (-1: none does)."""
    # By way of the state, so that the many calls of `commit` need not pass it on.
    head = state_view(state, problem_view(problem)).head[0]
    head.sender = source + 1
    end = commit(problem, state, log, s, devices, counts, k)
    head.sender = 0
    return end


@compiled
def reserve(
    problem: Buffer, state: Buffer, log: Log, s: int, devices: Array, counts: Array, k: int
) -> float:
    """Occupy the devices as `commit` does, but leave ready list and events alone.

    For scratch states that plan one instant and never advance. Returns the stage's end.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    end = 0.0
    for i in range(k):
        end = max(end, _commit_shard(p, st, log, s, i, devices[i], counts[i]))
    end += (k - 1) * p.head[0].gather_s
    # For what its children would have to fetch, and when.
    st.stages[s].shards = k
    st.stages[s].end = end
    return end


@inlined
def _commit_shard(p: ProblemView, st: StateView, log: Log, s: int, k: int, d: int, n: int) -> float:
    head = st.head[0]
    stage = p.stages[s]
    dev = st.devices[d]
    turn = max(head.now, dev.drains_at)
    # The network is booked for when a turn is expected: bookings must not tell of noise to come.
    planned = drain_estimate(p, st, d) if p.head[0].contention else turn
    load, transfer, prefill, decode, moved = shard_cost(p, st, s, d, n, planned)
    copied = 0.0
    source = head.sender - 1
    if source >= 0:
        copied, later, fetch, rest, size = migrated_cost(
            p.buffer, st.buffer, s, d, n, turn, source, False
        )
        if copied > 0.0:
            turn, transfer, prefill, moved = later, fetch, rest, size
            touch_prefix(p, st, s, source)
    busy = max(load, transfer) + prefill + decode
    noise = noise_factor(p, st, s, d)
    length = length_factor(p, st, s)
    end = turn + (busy + (length - 1.0) * decode) * noise
    prefix_hit, prefix_new = 0.0, 0.0
    context_hit, context_new = 0.0, 0.0
    batch, waves = n, 1
    if stage.kind != FIXED_STAGE:
        prefix_hit = prefix_hit_tokens(p, st, s, d) + copied
        context_hit = context_hit_tokens(p, st, s, d)
        prefix_new = stage.prefix_tokens - prefix_hit
        context_new = n * (stage.inherited_tokens - context_hit)
        context_hit -= vanished_tokens(p, st, s)
        batch = min(n, batch_limit(p, s, d))
        waves = (n + batch - 1) // batch
    slot = st.slots[s, k]
    slot.device = d
    slot.queries = n
    slot.kept = 0
    slot.next = -1
    slot.start = turn
    slot.busy = busy
    if p.head[0].contention:
        _book(p.buffer, st.buffer, s, k, planned, copied)
    if stage.kind != FIXED_STAGE:
        _occupy(p, st, log, s, k, d, batch, end)
    if head.shard_rows < log.shards.size:
        row = log.shards[head.shard_rows]
        row.stage = s
        row.slot = k
        row.device = d
        row.queries = n
        row.waves = waves
        row.lost = 0
        row.source = source if copied > 0.0 else -1
        row.committed = head.now
        row.start = turn
        row.load_s = load
        row.transfer_s = transfer
        row.prefill_s = prefill
        row.decode_s = decode
        row.noise = noise
        row.length = length
        row.end = end
        row.prefix_hit = prefix_hit
        row.prefix_new = prefix_new
        row.context_hit = n * context_hit
        row.context_new = context_new
        row.copied = copied
        row.bytes_moved = moved
    head.shard_rows += 1
    dev.drains_at = end
    dev.backlog += busy
    number = s * p.head[0].max_shards + k
    if dev.queue_tail < 0:
        dev.queue_head = number
    else:
        shards = p.head[0].max_shards
        st.slots[dev.queue_tail // shards, dev.queue_tail % shards].next = number
    dev.queue_tail = number
    return end


@compiled
def _book(problem: Buffer, state: Buffer, s: int, k: int, planned: float, copied: float) -> None:
    """Book the network for the shard in slot ``k`` of stage ``s``, at its planned turn or later.

    The shard is not in its device's queue yet. ``copied`` tokens come from the head's sender.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    slot = st.slots[s, k]
    d = int(slot.device)
    if copied > 0.0:
        source = st.head[0].sender - 1
        size = copied * p.models[p.stages[s].model].kv
        st.link_seconds[p.link[source, d]] = (
            p.link_latency[source, d] + size / p.link_bandwidth[source, d]
        )
        planned = max(planned, prefix_estimate(p, st, s, source))
    add_link_seconds(p, st, s, d, slot.queries / p.stages[s].queries)
    fetch = st.fetches[s, k]
    _, fetch.start, fetch.end, fetch.senders = shared_fetch(problem, state, d, planned)
    st.link_seconds[:] = 0.0


@inlined
def _occupy(
    p: ProblemView, st: StateView, log: Log, s: int, k: int, d: int, batch: int, end: float
) -> None:
    """What the shard does to the device's memory, in the order of docs/execution-model.md."""
    head = st.head[0]
    stage = p.stages[s]
    dev = st.devices[d]
    touch_contexts(p, st, s, d)
    own_prefix = grow_prefix(p, st, s, d, end)
    working = batch * context_bytes(p, s)
    missing = 0.0 if st.resident[d, stage.model] else p.models[stage.model].weight_bytes
    if dev.weight_bytes + dev.kv_bytes + missing + working > p.devices[d].memory:
        make_room(p, st, log, s, d, own_prefix, missing + working)
    dev.weight_bytes += missing
    if stage.keeps_context and p.models[stage.model].kv > 0.0:
        st.slots[s, k].kept = batch
        keep_context(p, st, s, k)
    head.clock += 1
    st.resident[d, stage.model] = head.clock


@compiled
def fork(p: ProblemView, src: StateView, out: StateView) -> None:
    """Make ``out`` the state that a planner may play forward from ``src``.

    Workflows that have not arrived stay unknown, and durations are the estimates: what noise
    will do to running shards is replaced by what is expected of them. Choices that are not made
    yet take their likely outcome, no device fails, and one that is down is repaired after the
    mean time from now. Both are views.
    """
    if not p.head[0].failing and not out.head[0].noisy:
        out.head[0].next_arrival = p.arrivals.size
        out.head[0].origin = EXPECTED
        return
    _fork(p.buffer, src.buffer, out.buffer, -1)


@compiled
def fork_sampled(problem: Buffer, state: Buffer, out: Buffer, seed: int) -> None:
    """Like `fork`, but noise, lengths and choices that are not known yet are drawn by ``seed``.

    A running shard that should have ended by its draw ends at once.
    """
    _fork(problem, state, out, seed)


@compiled
def _fork(problem: Buffer, state: Buffer, forked: Buffer, seed: int) -> None:
    p = problem_view(problem)
    src, out = state_view(state, p), state_view(forked, p)
    head = out.head[0]
    head.next_arrival = p.arrivals.size
    head.origin = EXPECTED if seed < 0 else SAMPLED
    if p.head[0].failing:
        head.next_change = np.inf
        for d in range(p.devices.size):
            down = out.devices[d].drains_at == np.inf
            out.devices[d].changes_at = head.now + p.head[0].mttr_s if down else np.inf
            head.next_change = min(head.next_change, out.devices[d].changes_at)
    if seed >= 0:
        head.seed = seed
    if not head.noisy:
        return
    shards = p.head[0].max_shards
    now = head.now
    for d in range(p.devices.size):
        time = now
        if out.devices[d].drains_at == np.inf:
            continue
        number = out.devices[d].queue_head
        first = True
        while number >= 0:
            slot = out.slots[number // shards, number % shards]
            busy = slot.busy
            if seed >= 0:
                busy = _drawn_seconds(p, out, number // shards, number % shards)
            time = max(now, slot.start + busy) if first else time + busy
            slot.start = time - slot.busy
            first = False
            number = slot.next
        out.devices[d].drains_at = time
    count = head.events
    head.events = 0
    for i in range(count):
        _expect(p, src, out, src.events[i].time, src.events[i].id)
    if seed < 0:
        head.noisy = 0


@inlined
def _drawn_seconds(p: ProblemView, st: StateView, s: int, k: int) -> float:
    """What the shard in slot ``k`` of stage ``s`` takes by the state's seed."""
    slot = st.slots[s, k]
    seconds = slot.busy
    if p.stages[s].kind == MODEL_STAGE:
        decode = decode_seconds(p, s, int(slot.device), int(slot.queries))
        seconds += (length_factor(p, st, s) - 1.0) * decode
    return seconds * noise_factor(p, st, s, int(slot.device))


@compiled
def _expect(p: ProblemView, src: StateView, out: StateView, time: float, event: int) -> None:
    shards = p.head[0].max_shards
    s, k = event // (shards + 1), event % (shards + 1)
    now = out.head[0].now
    if k < shards:
        slot = out.slots[s, k]
        q = p.stages[s].prefix
        expected = slot.start + slot.busy
        # The noise of a running shard also shows in when its prefix can be copied.
        if q >= 0 and src.prefix_there[slot.device, q] == time:
            out.prefix_there[slot.device, q] = expected
        time = expected
    elif p.stages[s].kind == TOOL_STAGE:
        seconds = p.stages[s].tool_seconds
        if out.head[0].origin == SAMPLED:
            seconds *= noise_factor(p, out, s, HOST)
        time = max(now, src.stages[s].ready_at + seconds)
    else:
        time = now
        for i in range(src.stages[s].shards):
            time = max(time, out.slots[s, i].start + out.slots[s, i].busy)
        time += (src.stages[s].shards - 1) * p.head[0].gather_s
    _push(out, time, event)


__all__ = [
    "advance",
    "can_wait",
    "choice_draw",
    "commit",
    "commit_from",
    "fork",
    "fork_sampled",
    "length_factor",
    "next_event_time",
    "noise_factor",
    "outage",
    "reserve",
    "reset",
    "to_decision",
]
