"""The lists in which a batching device keeps its waves.

An admitted wave is in one of three lists: until its inputs are there (by admission), while its
prompt is computed (by join), or while it decodes (by its stop). `Slot.next` links the lists, as it
links the queue.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.pace import stop_of
from fate_gym.kernel.numbers import next_in_queue, slot_number, slot_of
from fate_gym.kernel.schema import (
    ADMITTED,
    DECODING,
    ENDED,
    JOINED,
    QUEUED,
    Lane,
    ProblemArrays,
    Stage,
    StateArrays,
)


@inlined
def rests(st: StateArrays, d: int) -> bool:
    """Return whether device ``d`` computes nothing: no wave has joined."""
    return st.batches[d].prompt < 0 and st.batches[d].decoder < 0


@inlined
def runs_nothing(st: StateArrays, d: int) -> bool:
    """Return whether no wave is admitted on device ``d``."""
    return st.batches[d].sequences == 0


@inlined
def context_of(stage: Stage, lane: Lane) -> int:
    """Return a query's tokens once its prompt is computed, including those made before."""
    return stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens + lane.made


@inlined
def wave_bytes(p: ProblemArrays, st: StateArrays, s: int, k: int, wave: int) -> float:
    """Return the KV bytes that a wave of ``wave`` queries of the shard in a slot reserves."""
    stage = p.stages[s]
    if stage.model < 0:
        return 0.0
    tokens = stage.prompt_tokens + stage.inherited_tokens + st.lanes[s, k].granted
    return wave * tokens * p.models[stage.model].kv


@inlined
def reserved_bytes(p: ProblemArrays, st: StateArrays, s: int, k: int) -> float:
    """Return the KV bytes that the wave in a slot has reserved."""
    return wave_bytes(p, st, s, k, st.lanes[s, k].wave)


@inlined
def queue_first(p: ProblemArrays, st: StateArrays, d: int, number: int) -> None:
    """Put a shard at the head of the queue of device ``d``."""
    s, k = slot_of(p, number)
    dev = st.devices[d]
    st.slots[s, k].next = dev.queue_head
    if dev.queue_head < 0:
        dev.queue_tail = number
    dev.queue_head = number
    st.lanes[s, k].state = QUEUED


@inlined
def take_head(p: ProblemArrays, st: StateArrays, d: int) -> int:
    """Remove the head of the queue of device ``d``; return its slot number."""
    dev = st.devices[d]
    number = dev.queue_head
    dev.queue_head = next_in_queue(p, st, number)
    if dev.queue_head < 0:
        dev.queue_tail = -1
    return number


@inlined
def _behind(p: ProblemArrays, st: StateArrays, first: int, number: int) -> int:
    """Append ``number`` to the list that begins with ``first``; return its new first."""
    s, k = slot_of(p, number)
    st.slots[s, k].next = -1
    if first < 0:
        return number
    last = first
    while next_in_queue(p, st, last) >= 0:
        last = next_in_queue(p, st, last)
    s, k = slot_of(p, last)
    st.slots[s, k].next = number
    return first


@inlined
def _without(p: ProblemArrays, st: StateArrays, first: int, number: int) -> int:
    """Remove ``number`` from the list that begins with ``first``; return its new first."""
    behind = next_in_queue(p, st, number)
    if first == number:
        return behind
    before = first
    while before >= 0 and next_in_queue(p, st, before) != number:
        before = next_in_queue(p, st, before)
    if before >= 0:
        s, k = slot_of(p, before)
        st.slots[s, k].next = behind
    return first


@kernel
def enter(p: ProblemArrays, st: StateArrays, d: int, number: int, state: int) -> None:
    """Put an admitted wave into the list of a state: ADMITTED, JOINED or DECODING."""
    batch = st.batches[d]
    s, k = slot_of(p, number)
    st.lanes[s, k].state = state
    if state == ADMITTED:
        batch.admitted = _behind(p, st, batch.admitted, number)
    elif state == JOINED:
        batch.prompt = _behind(p, st, batch.prompt, number)
    else:
        _enter_decoding(p, st, d, number)


@inlined
def _enter_decoding(p: ProblemArrays, st: StateArrays, d: int, number: int) -> None:
    batch = st.batches[d]
    s, k = slot_of(p, number)
    stop, began = stop_of(st, s, k), st.lanes[s, k].began
    before, behind = -1, batch.decoder
    while behind >= 0:
        other, i = slot_of(p, behind)
        at = stop_of(st, other, i)
        if at > stop or (at == stop and st.lanes[other, i].began > began):
            break
        before, behind = behind, st.slots[other, i].next
    st.slots[s, k].next = behind
    if before < 0:
        batch.decoder = number
    else:
        s, k = slot_of(p, before)
        st.slots[s, k].next = number


@kernel
def leave(p: ProblemArrays, st: StateArrays, d: int, number: int) -> None:
    """Remove an admitted wave from its list."""
    batch = st.batches[d]
    s, k = slot_of(p, number)
    state = st.lanes[s, k].state
    if state == ADMITTED:
        batch.admitted = _without(p, st, batch.admitted, number)
    elif state == JOINED:
        batch.prompt = _without(p, st, batch.prompt, number)
    elif state == DECODING:
        batch.decoder = _without(p, st, batch.decoder, number)
    st.slots[s, k].next = -1


@inlined
def begin_decoding(p: ProblemArrays, st: StateArrays, d: int, s: int, k: int) -> None:
    """Let the wave in a slot decode from the next iteration on; it must not be in any list."""
    batch, lane = st.batches[d], st.lanes[s, k]
    lane.since = batch.steps
    lane.began = batch.begun
    batch.begun += 1
    batch.decoding += lane.wave
    batch.context += lane.wave * context_of(p.stages[s], lane)
    batch.noise += lane.wave * lane.noise
    enter(p, st, d, slot_number(p, s, k), DECODING)


@inlined
def stop_decoding(p: ProblemArrays, st: StateArrays, d: int, s: int, k: int) -> None:
    """Remove a decoding wave from the batch; `Lane.made` records its tokens so far."""
    batch, lane = st.batches[d], st.lanes[s, k]
    leave(p, st, d, slot_number(p, s, k))
    lane.made += batch.steps - lane.since
    lane.since = batch.steps
    batch.decoding -= lane.wave
    batch.context -= lane.wave * context_of(p.stages[s], lane)
    batch.noise -= lane.wave * lane.noise
    if batch.decoding == 0:
        batch.noise = 0.0  # remove rounding errors


@kernel
def youngest(p: ProblemArrays, st: StateArrays, d: int) -> int:
    """Return the slot number of the wave admitted last on device ``d``, -1 if there is none."""
    found, number = -1, -1
    for first in (st.batches[d].admitted, st.batches[d].prompt, st.batches[d].decoder):
        i = first
        while i >= 0:
            s, k = slot_of(p, i)
            if st.lanes[s, k].number > number:
                found, number = i, st.lanes[s, k].number
            i = st.slots[s, k].next
    return found


@inlined
def all_ended(st: StateArrays, s: int) -> bool:
    """Return whether all shards of stage ``s`` have ended or are lost."""
    for k in range(st.stages[s].shards):
        if st.slots[s, k].device >= 0 and st.lanes[s, k].state != ENDED:
            return False
    return True


@kernel
def empty_batch(p: ProblemArrays, st: StateArrays, d: int) -> None:
    """Put all admitted shards of a failing device back into its queue and clear its batch."""
    while True:
        number = youngest(p, st, d)
        if number < 0:
            break
        leave(p, st, d, number)
        queue_first(p, st, d, number)
    clear_batch(st, d)


@inlined
def clear_batch(st: StateArrays, d: int) -> None:
    """Reset the batch of a device that starts or is down."""
    batch = st.batches[d]
    batch.time = st.now
    batch.changes_at = batch.loaded_at = np.inf
    batch.ahead = batch.decoding = batch.context = batch.sequences = 0
    batch.noise = batch.reserved = batch.pinned = 0.0
    batch.unfinished = 0
    batch.serving = batch.admitted = batch.prompt = batch.decoder = -1
