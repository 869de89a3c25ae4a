"""Committing placements: shards join queues, take memory, and are logged."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.batching.admission import admit_from_queue, waves_of
from fate_gym.kernel.batching.border import come
from fate_gym.kernel.cost import (
    Cost,
    context_hit_tokens,
    cost_of,
    prefix_hit_tokens,
    vanished_tokens,
)
from fate_gym.kernel.draws import actual_tokens, length_factor, noise_factor
from fate_gym.kernel.estimate import (
    drain_estimate,
    migrated_cost,
    prefix_estimate,
    shard_cost,
    shard_end,
)
from fate_gym.kernel.events import push
from fate_gym.kernel.log import log_shard
from fate_gym.kernel.memory import (
    context_bytes,
    grow_path,
    keep_context,
    make_room,
    touch_contexts,
    touch_path,
)
from fate_gym.kernel.numbers import (
    prefix_entry,
    shard_end_event,
    slot_number,
    slot_of,
    stage_end_event,
)
from fate_gym.kernel.prefixes import extends_prefix, has_prefix
from fate_gym.kernel.ready import take_from_ready
from fate_gym.kernel.schema import (
    FIXED_STAGE,
    PLACED,
    QUEUED,
    LogArrays,
    ProblemArrays,
    StateArrays,
)
from fate_gym.kernel.transfer import add_link_seconds, clear_links, over_link, shared_fetch

NOBODY = -1
"""Takes the place of a device where no device sends a prefix."""
NOTHING = Cost(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


@kernel
def commit(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    s: int,
    devices: Ints,
    counts: Ints,
    k: int,
    source: int,
) -> float:
    """Place ready stage ``s`` on ``devices[:k]`` with ``counts[:k]`` queries.

    Device ``source`` first sends what it caches of the stage's prefix; `NOBODY`: none does. The
    caller has checked that the placement is legal. Returns the stage's actual end, or on batching
    devices the time now: there the end depends on shards still to come.
    """
    take_from_ready(st, s)
    st.stages[s].status = PLACED
    st.stages[s].shards = k
    end = 0.0
    if p.batching:
        for i in range(k):
            submit(p, st, log, s, i, devices[i], counts[i], source)
            come(p, st, log, devices[i])
        return st.now
    for i in range(k):
        shard_end = _commit_shard(p, st, log, s, i, devices[i], counts[i], source)
        end = max(end, shard_end)
        push(st, shard_end, shard_end_event(p, s, i))
    if k > 1:
        end += (k - 1) * p.gather_s
        push(st, end, stage_end_event(p, s))
    return end


@kernel
def reserve(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    s: int,
    devices: Ints,
    counts: Ints,
    k: int,
    blind: int,
) -> float:
    """Occupy the devices as `commit` does, but leave the ready list and events alone.

    For scratch states in which a planner plans one instant and that never advance. With ``blind``,
    batching devices treat the stage as if nothing were loaded or cached for it. Returns the stage's
    end.
    """
    end = 0.0
    for i in range(k):
        if p.batching:
            end = max(end, _reserve_in_batch(p, st, log, s, i, devices[i], counts[i], blind))
        else:
            end = max(end, _commit_shard(p, st, log, s, i, devices[i], counts[i], NOBODY))
    end += (k - 1) * p.gather_s
    # Determines what its children would have to fetch, and when.
    st.stages[s].shards = k
    st.stages[s].end = end
    return end


@inlined
def _reserve_in_batch(
    p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int, d: int, n: int, blind: int
) -> float:
    """Reserve a shard on a batching device, admitted at once if the next border would admit it.

    Returns its expected end.
    """
    end = shard_end(p, st, s, d, n)
    submit(p, st, log, s, k, d, n, NOBODY)
    st.lanes[s, k].blind = blind
    come(p, st, log, d)
    admit_from_queue(p, st, log, d)
    return end


@inlined
def set_drain(st: StateArrays, d: int, time: float) -> None:
    """Set the time at which the queue of exclusive device ``d`` drains, as a planner assumes it.

    For scratch states that plan one instant; the shards in the queue are not changed.
    """
    st.devices[d].drains_at = time


@kernel
def submit(
    p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int, d: int, n: int, source: int
) -> None:
    """Put a shard into the queue of a batching device, without trying to admit it."""
    slot, lane = st.slots[s, k], st.lanes[s, k]
    slot.device = d
    slot.queries = n
    slot.kept = 0
    slot.on_host = 0
    slot.next = -1
    slot.start = np.inf
    slot.busy = 0.0
    lane.state = QUEUED
    lane.wave = 0
    lane.waiting = n
    lane.prompt = lane.made = lane.grows = 0
    lane.granted = p.stages[s].output_tokens
    lane.output = actual_tokens(p, st, s)
    lane.source = source
    lane.blind = 0
    lane.number = -1
    lane.noise = noise_factor(p, st, s, k, d)
    lane.row = st.shard_rows
    row = log_shard(st, log, s, k, d, NOTHING)
    if row >= 0:
        one = log.shards[row]
        one.queries = n
        one.waves = waves_of(p, s, d, n)
        one.noise = lane.noise
        one.length = length_factor(p, st, s)
        one.start = one.first = one.end = np.inf
        # Unknown until the wave joins.
        one.prefix_new = 0.0 if p.stages[s].kind == FIXED_STAGE else -1.0
    _enqueue(p, st, s, k)


@kernel
def _commit_shard(
    p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int, d: int, n: int, source: int
) -> float:
    dev = st.devices[d]
    turn = max(st.now, dev.drains_at)
    # Book the network for the expected turn: bookings must not reveal noise still to come.
    planned = drain_estimate(p, st, d) if p.contention else turn
    cost = shard_cost(p, st, s, d, n, planned)
    cost = cost_of(turn, cost.load, cost.transfer, cost.prefill, cost.decode, cost.moved, 0.0)
    if source >= 0:
        cost = migrated_cost(p, st, s, d, n, cost, source)
        if cost.copied > 0.0:
            touch_path(p, st, source, p.stages[s].prefix)
    busy = cost.busy
    noise = noise_factor(p, st, s, k, d)
    length = length_factor(p, st, s)
    end = cost.turn + (busy + (length - 1.0) * cost.decode) * noise
    slot = st.slots[s, k]
    slot.device = d
    slot.queries = n
    slot.kept = 0
    slot.on_host = 0
    slot.next = -1
    slot.start = cost.turn
    slot.busy = busy
    row = log_shard(st, log, s, k, d, cost)
    if row >= 0:
        log.shards[row].queries = n
        log.shards[row].noise = noise
        log.shards[row].length = length
        log.shards[row].first = cost.turn + (busy - cost.decode) * noise
        log.shards[row].end = end
        if cost.copied > 0.0:
            log.shards[row].source = source
        _log_hits(p, st, log, row)
    if p.contention:
        _book(p, st, s, k, planned, cost.copied, source)
    if p.stages[s].kind != FIXED_STAGE:
        _occupy(p, st, log, s, k, end)
    dev.drains_at = end
    dev.backlog += busy
    _enqueue(p, st, s, k)
    return end


@inlined
def _log_hits(p: ProblemArrays, st: StateArrays, log: LogArrays, number: int) -> None:
    """Log what a shard finds in its device's caches, and in how many waves it runs."""
    row = log.shards[number]
    s, d, n = row.stage, row.device, row.queries
    stage = p.stages[s]
    if stage.kind == FIXED_STAGE:
        return
    batch = min(n, p.batch[s, d])
    row.waves = (n + batch - 1) // batch
    context_hit = context_hit_tokens(p, st, s, d)
    row.prefix_hit = prefix_hit_tokens(p, st, s, d) + row.copied
    row.prefix_new = stage.prefix_tokens - row.prefix_hit
    row.context_new = n * (stage.inherited_tokens - context_hit)
    row.context_hit = n * (context_hit - vanished_tokens(p, st, s))


@inlined
def _enqueue(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    dev = st.devices[st.slots[s, k].device]
    number = slot_number(p, s, k)
    if dev.queue_tail < 0:
        dev.queue_head = number
    else:
        before, i = slot_of(p, dev.queue_tail)
        st.slots[before, i].next = number
    dev.queue_tail = number


@kernel
def _book(
    p: ProblemArrays, st: StateArrays, s: int, k: int, planned: float, copied: float, source: int
) -> None:
    """Book the network for the shard in slot ``k`` of stage ``s``, at its planned turn or later.

    The shard must not be in its device's queue yet. ``copied`` tokens come from ``source``.
    """
    slot = st.slots[s, k]
    d = slot.device
    if copied > 0.0:
        size = copied * p.models[p.stages[s].model].kv
        st.link_seconds[p.link[source, d]] = over_link(p, source, d, size)
        planned = max(planned, prefix_estimate(p, st, s, source))
    add_link_seconds(p, st, s, d, slot.queries / p.stages[s].queries)
    fetch = st.fetches[s, k]
    _, fetch.start, fetch.end, fetch.senders = shared_fetch(p, st, d, planned)
    clear_links(st)


@inlined
def _occupy(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int, end: float) -> None:
    """Update the device's memory for a shard, in the order of docs/execution-model.md."""
    stage = p.stages[s]
    slot = st.slots[s, k]
    d = slot.device
    dev = st.devices[d]
    batch = min(slot.queries, p.batch[s, d])
    touch_contexts(p, st, s, d)
    own_prefix = -1
    if has_prefix(p, stage):
        own_prefix = prefix_entry(p, d, stage.prefix)
        grow_path(p, st, d, stage.prefix, stage.prefix_tokens, end)
    working = batch * context_bytes(p, s)
    missing = 0.0 if st.resident[d, stage.model] else p.models[stage.model].weight_bytes
    if dev.weight_bytes + dev.kv_bytes + missing + working > p.devices[d].memory:
        # The shard's own row has been written already.
        make_room(p, st, log, s, d, own_prefix, missing + working, st.shard_rows - 1)
    dev.weight_bytes += missing
    if stage.keeps_context and p.models[stage.model].kv > 0.0:
        slot.kept = batch
        keep_context(p, st, s, k)
    if extends_prefix(p, stage):
        # What was working KV is cached from now on.
        grow_path(p, st, d, stage.written, stage.written_tokens, end)
    st.clock += 1
    st.resident[d, stage.model] = st.clock
