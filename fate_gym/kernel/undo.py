"""Undoing placements: copies what a `fate_gym.kernel.commit.reserve` changes between two states.

A placement changes only its stage and its devices, so planners that try many of them need not copy
the whole state for each.
"""

from __future__ import annotations

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.numbers import (
    context_entry,
    first_context_entry,
    prefix_entry,
    slot_of,
)
from fate_gym.kernel.schema import ProblemArrays, StateArrays


@kernel
def take_back(
    p: ProblemArrays, st: StateArrays, scratch: StateArrays, s: int, devices: Ints, k: int
) -> None:
    """Undo a ``reserve`` of ``s`` on ``devices[:k]``: make ``scratch`` equal to ``st`` again.

    Exact to the last bit, if the two were equal before. Nothing else may have been reserved in
    between.
    """
    copy_counters(p, st, scratch)
    copy_shards(p, st, scratch, s, k)
    for i in range(k):
        # Entries that are in no list.
        _relink(st, scratch, context_entry(p, s, i))
        q = p.stages[s].written
        while q >= 0:
            _relink(st, scratch, prefix_entry(p, devices[i], q))
            q = p.prefixes[q].parent
        copy_device(p, st, scratch, devices[i])


@inlined
def copy_counters(p: ProblemArrays, st: StateArrays, out: StateArrays) -> None:
    """Copy from ``st`` to ``out`` what every `reserve` changes."""
    out.clock = st.clock
    out.shard_rows = st.shard_rows
    out.eviction_rows = st.eviction_rows
    if p.batching:
        out.next_border = st.next_border


@inlined
def copy_shards(p: ProblemArrays, st: StateArrays, out: StateArrays, s: int, k: int) -> None:
    """Copy what a `reserve` of stage ``s`` on ``k`` devices changes of the stage."""
    out.stages[s] = st.stages[s]
    for i in range(k):
        out.slots[s, i] = st.slots[s, i]
        if p.batching:
            out.lanes[s, i] = st.lanes[s, i]
        if p.contention:
            out.fetches[s, i] = st.fetches[s, i]


@kernel
def copy_device(p: ProblemArrays, st: StateArrays, out: StateArrays, d: int) -> None:
    """Copy what a `reserve` changes of its device ``d``, and of the shards there."""
    out.devices[d] = st.devices[d]
    if st.devices[d].queue_tail >= 0:
        before, j = slot_of(p, st.devices[d].queue_tail)
        out.slots[before, j].next = -1
    for m in range(p.models.size):
        out.resident[d, m] = st.resident[d, m]
    for q in range(p.prefixes.size):
        out.prefix_tokens[d, q] = st.prefix_tokens[d, q]
        out.prefix_there[d, q] = st.prefix_there[d, q]
        out.branches[d, q] = st.branches[d, q]
    first = first_context_entry(p)
    entry = st.devices[d].oldest
    while entry >= 0:
        _relink(st, out, entry)
        if entry >= first:
            owner, j = slot_of(p, entry - first)
            out.slots[owner, j].kept = st.slots[owner, j].kept
        entry = st.newer[entry]
    if p.batching:
        _copy_batch(p, st, out, d)


@inlined
def _copy_batch(p: ProblemArrays, st: StateArrays, out: StateArrays, d: int) -> None:
    batch = st.batches[d]
    out.batches[d] = st.batches[d]
    for q in range(p.prefixes.size):
        out.pins[d, q] = st.pins[d, q]
        out.computed[d, q] = st.computed[d, q]
    for head in (batch.admitted, batch.prompt, batch.decoder, st.devices[d].queue_head):
        number = head
        while number >= 0:
            other, j = slot_of(p, number)
            out.slots[other, j].next = st.slots[other, j].next
            out.lanes[other, j] = st.lanes[other, j]
            number = st.slots[other, j].next


@inlined
def _relink(st: StateArrays, out: StateArrays, entry: int) -> None:
    out.older[entry] = st.older[entry]
    out.newer[entry] = st.newer[entry]
