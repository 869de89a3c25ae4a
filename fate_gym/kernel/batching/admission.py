"""Admission of waves, and its effect on a device's memory."""

from __future__ import annotations

from typing import NamedTuple

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.paths import pin_path
from fate_gym.kernel.batching.waves import (
    enter,
    reserved_bytes,
    runs_nothing,
    take_head,
    wave_bytes,
)
from fate_gym.kernel.cost import context_hit_tokens, vanished_tokens
from fate_gym.kernel.memory import (
    make_room,
    touch_contexts,
    touch_path,
)
from fate_gym.kernel.numbers import slot_number, slot_of
from fate_gym.kernel.prefixes import computed_hit, path_there, unpinned_bytes
from fate_gym.kernel.schema import (
    ADMITTED,
    FIXED_STAGE,
    GRAZE,
    LogArrays,
    ProblemArrays,
    StateArrays,
)
from fate_gym.kernel.transfer import (
    add_link_seconds,
    clear_links,
    over_link,
    prefix_and_parents_seconds,
    shared_fetch,
    transfer_seconds,
)


class Inflow(NamedTuple):
    """Inputs that are sent to a device for a shard.

    Attributes:
        seconds: time until all of them are there.
        moved: bytes.
        copied: prefix tokens that another device sends.
    """

    seconds: float
    moved: float
    copied: int


@inlined
def wave_of(p: ProblemArrays, s: int, d: int, queries: int) -> int:
    """Return how many of ``queries`` queries of stage ``s`` are admitted together on ``d``."""
    if p.stages[s].kind == FIXED_STAGE:
        return queries
    return min(queries, p.batch[s, d])


@inlined
def waves_of(p: ProblemArrays, s: int, d: int, queries: int) -> int:
    """Return the number of waves that ``queries`` queries of stage ``s`` take on ``d``."""
    wave = wave_of(p, s, d, queries)
    return (queries + wave - 1) // wave


@inlined
def may_join(p: ProblemArrays, st: StateArrays, s: int, d: int, wave: int, reserved: float) -> bool:
    """Return whether a wave of stage ``s`` at the head of the queue of ``d`` may be admitted.

    Args:
        p: the problem.
        st: the state, at a border of ``d``.
        s: the stage.
        d: the device.
        wave: queries of the wave.
        reserved: bytes of KV that it would reserve.
    """
    batch = st.batches[d]
    if runs_nothing(st, d):
        return True
    stage = p.stages[s]
    if batch.unfinished or stage.model < 0 or stage.model != batch.serving:
        return False
    if batch.sequences + wave > p.max_batch:
        return False
    need = reserved + unpinned_bytes(p, st, s, d)
    weights = p.models[stage.model].weight_bytes
    return bool(weights + batch.pinned + batch.reserved + need <= p.devices[d].memory)


@kernel
def head_may_join(p: ProblemArrays, st: StateArrays, d: int) -> bool:
    """Return whether the head of the queue of ``d`` will be admitted at the next border."""
    number = st.devices[d].queue_head
    if number < 0:
        return False
    s, k = slot_of(p, number)
    wave = wave_of(p, s, d, st.lanes[s, k].waiting)
    return may_join(p, st, s, d, wave, wave_bytes(p, st, s, k, wave))


@inlined
def admit_from_queue(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> int:
    """Admit waves from the head of the queue of ``d`` while they may; return how many."""
    count = 0
    while head_may_join(p, st, d):
        s, k = slot_of(p, take_head(p, st, d))
        lane = st.lanes[s, k]
        lane.wave = wave_of(p, s, d, lane.waiting)
        _admit(p, st, log, s, k)
        count += 1
    return count


@kernel
def _admit(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    """Admit the wave in a slot now; it must not be in any list."""
    slot, lane = st.slots[s, k], st.lanes[s, k]
    d, stage = slot.device, p.stages[s]
    batch = st.batches[d]
    again = lane.number >= 0
    load = 0.0
    if stage.model >= 0:
        if not (st.resident[d, stage.model] or lane.blind):
            load = p.load_seconds[stage.model, d]
        if runs_nothing(st, d):
            batch.loaded_at = st.now + load * lane.noise
    else:
        batch.loaded_at = st.now
    inflow = Inflow(0.0, 0.0, 0)
    if not again:
        inflow = inflow_of(p, st, s, d, slot.queries, lane.source)
        slot.start = st.now
        if p.contention:
            _book(p, st, s, k, inflow.copied)
        if inflow.copied > 0:
            touch_path(p, st, lane.source, stage.prefix)
    launch = 0.0 if stage.model < 0 else p.devices[d].launch_s
    lane.admitted_at = st.now
    lane.prefix_hit = 0
    if inflow.copied > 0:
        known = computed_hit(p, st, d, stage.prefix, stage.prefix_tokens)
        lane.prefix_hit = inflow.copied + known
    lane.there = max(batch.loaded_at, st.now + inflow.seconds * lane.noise) + launch * lane.noise
    seen = stage.model >= 0 and not lane.blind
    lane.context_hit = context_hit_tokens(p, st, s, d) if seen else 0.0
    _log_admission(p, st, log, s, k, load, inflow, again)
    batch.serving = stage.model
    lane.waiting -= lane.wave
    batch.unfinished = 1 if lane.waiting > 0 else 0
    batch.sequences += lane.wave
    lane.number = batch.admissions
    batch.admissions += 1
    if stage.model >= 0:
        _occupy(p, st, log, s, k)
    enter(p, st, d, slot_number(p, s, k), ADMITTED)


@inlined
def _log_admission(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    s: int,
    k: int,
    load: float,
    inflow: Inflow,
    again: bool,
) -> None:
    lane, stage = st.lanes[s, k], p.stages[s]
    if lane.row >= log.shards.size:
        return
    row = log.shards[lane.row]
    if not again:
        row.start = st.now
        row.load_s = load
        row.transfer_s = inflow.seconds
        row.bytes_moved = inflow.moved
        row.copied = inflow.copied
        row.source = lane.source if inflow.copied > 0 else -1
    if stage.model >= 0:
        row.context_new += lane.wave * (stage.inherited_tokens - lane.context_hit)
        row.context_hit += lane.wave * (lane.context_hit - vanished_tokens(p, st, s))


@kernel
def inflow_of(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, source: int) -> Inflow:
    """Return the inflow to ``d`` for ``n`` queries of stage ``s`` that are admitted now.

    Device ``source`` sends what it has computed of the prefix; -1: no device does.
    """
    share = n / p.stages[s].queries
    copied = copied_tokens(p, st, s, d, source)
    if copied <= 0:
        seconds, moved = transfer_seconds(p, st, s, d, share, st.now)
        return Inflow(seconds, moved, 0)
    size = copied * p.models[p.stages[s].model].kv
    there = over_link(p, source, d, size)
    if p.eager:
        seconds, moved = transfer_seconds(p, st, s, d, share, st.now)
        return Inflow(max(seconds, there), moved + size, copied)
    seconds, moved = prefix_and_parents_seconds(p, st, s, d, share, source, there, st.now)
    return Inflow(seconds, moved + size, copied)


@inlined
def copied_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int, source: int) -> int:
    """Return the prefix tokens of stage ``s`` that ``source`` has computed and ``d`` lacks."""
    stage = p.stages[s]
    if source < 0 or source == d or stage.prefix < 0 or stage.model < 0:
        return 0
    if path_there(p, st, source, stage.prefix) > st.now + GRAZE:
        return 0
    theirs = computed_hit(p, st, source, stage.prefix, stage.prefix_tokens)
    return max(0, theirs - computed_hit(p, st, d, stage.prefix, stage.prefix_tokens))


@kernel
def _book(p: ProblemArrays, st: StateArrays, s: int, k: int, copied: int) -> None:
    """Book the network from now on for a shard's inputs; the shard must not be in any list."""
    slot, lane = st.slots[s, k], st.lanes[s, k]
    d = slot.device
    if copied > 0:
        size = copied * p.models[p.stages[s].model].kv
        st.link_seconds[p.link[lane.source, d]] = over_link(p, lane.source, d, size)
    add_link_seconds(p, st, s, d, slot.queries / p.stages[s].queries)
    fetch = st.fetches[s, k]
    _, fetch.start, fetch.end, fetch.senders = shared_fetch(p, st, d, st.now)
    clear_links(st)


@inlined
def _occupy(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    """Update memory for an admitted wave, in the order of docs/execution-model.md."""
    stage, lane = p.stages[s], st.lanes[s, k]
    d = st.slots[s, k].device
    dev, batch = st.devices[d], st.batches[d]
    reserved = reserved_bytes(p, st, s, k)
    touch_contexts(p, st, s, d)
    own_prefix = pin_path(p, st, s, k)
    missing = 0.0 if st.resident[d, stage.model] else p.models[stage.model].weight_bytes
    if dev.weight_bytes + dev.kv_bytes + missing + reserved > p.devices[d].memory:
        make_room(p, st, log, s, d, own_prefix, missing + reserved, lane.row)
    dev.weight_bytes += missing
    dev.kv_bytes += reserved
    batch.reserved += reserved
    st.clock += 1
    st.resident[d, stage.model] = st.clock
