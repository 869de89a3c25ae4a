"""Fill an excerpt's state."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.events import push
from fate_gym.kernel.excerpt.problem import number_in
from fate_gym.kernel.excerpt.selection import ABSENT, Numbers
from fate_gym.kernel.memory import append_entry
from fate_gym.kernel.numbers import (
    arriving,
    context_entry,
    event_of,
    first_context_entry,
    prefix_entry,
    rank_of_entry,
    rank_of_weights,
    slot_number,
    slot_of,
)
from fate_gym.kernel.schema import DONE, ProblemArrays, StateArrays

NO_ROW = 2**31 - 1
"""A row number beyond any log; what an excerpt itself places is logged from row 0 on."""


@kernel
def fill_state(
    p: ProblemArrays, st: StateArrays, numbers: Numbers, small: ProblemArrays, out: StateArrays
) -> None:
    """Make ``out`` the state of problem ``small`` that corresponds to ``st`` of ``p``.

    Of workflows that are left out only what lies in memory remains; of those that have not arrived,
    nothing.
    """
    _fill_scalars(st, out)
    for i in range(numbers.stages_count):
        _fill_stage(p, st, numbers, small, out, i)
    for i in range(numbers.stages_count, small.stages.size):
        out.stages[i].status = DONE
    _fill_workflows(p, st, numbers, out)
    for d in range(p.devices.size):
        _fill_memory(p, st, numbers, small, out, d)
        _fill_queue(p, st, numbers, small, out, d)
    _fill_lists(p, st, numbers, out)


@inlined
def _fill_scalars(st: StateArrays, out: StateArrays) -> None:
    out.now, out.last_end = st.now, st.last_end
    out.next_arrival = 0
    out.clock, out.instants = st.clock, st.instants
    out.shard_rows = out.eviction_rows = 0
    out.seed, out.origin, out.noisy = st.seed, st.origin, st.noisy
    out.retentions = st.retentions
    out.next_change, out.next_border = st.next_change, st.next_border


@inlined
def _slot_in(p: ProblemArrays, numbers: Numbers, small: ProblemArrays, number: int) -> int:
    """Return a slot number's counterpart in the excerpt, -1 if there is none."""
    if number < 0:
        return ABSENT
    s, k = slot_of(p, number)
    place = numbers.stage_at[s]
    return ABSENT if place == ABSENT else slot_number(small, place, k)


@inlined
def _fill_stage(
    p: ProblemArrays,
    st: StateArrays,
    numbers: Numbers,
    small: ProblemArrays,
    out: StateArrays,
    i: int,
) -> None:
    s = numbers.stages[i]
    out.stages[i] = st.stages[s]
    for k in range(p.max_shards):
        out.slots[i, k] = st.slots[s, k]
        out.slots[i, k].next = _slot_in(p, numbers, small, st.slots[s, k].next)
        if p.contention:
            out.fetches[i, k] = st.fetches[s, k]
        if p.batching:
            out.lanes[i, k] = st.lanes[s, k]
            out.lanes[i, k].row = NO_ROW
    if st.retentions > 0:
        entry = context_entry(small, i, 0)
        out.keep[rank_of_entry(small, entry)] = st.keep[rank_of_entry(p, context_entry(p, s, 0))]


@inlined
def _fill_workflows(p: ProblemArrays, st: StateArrays, numbers: Numbers, out: StateArrays) -> None:
    out.known_left = out.arrived_count = 0
    for i in range(out.workflows.size):
        out.workflows[i].arrived_at = np.inf
        out.workflows[i].left = 0
    for i in range(numbers.stages_count):
        s = numbers.stages[i]
        w = numbers.workflow_at[p.stages[s].workflow]
        out.workflows[w].arrived_at = st.workflows[p.stages[s].workflow].arrived_at
        left = st.stages[s].status < DONE
        out.workflows[w].left += left
        out.known_left += left
    for i in range(st.arrived_count):
        if numbers.workflow_at[st.arrived[i]] != ABSENT:
            out.arrived[out.arrived_count] = numbers.workflow_at[st.arrived[i]]
            out.arrived_count += 1


@inlined
def _fill_memory(
    p: ProblemArrays,
    st: StateArrays,
    numbers: Numbers,
    small: ProblemArrays,
    out: StateArrays,
    d: int,
) -> None:
    """Fill what lies in the memory of device ``d``, in the order of use."""
    out.devices[d] = st.devices[d]
    out.devices[d].oldest = out.devices[d].newest = ABSENT
    for m in range(p.models.size):
        out.resident[d, m] = st.resident[d, m]
        out.keep[rank_of_weights(small, d, m)] = st.keep[rank_of_weights(p, d, m)]
    for i in range(numbers.prefixes_count):
        q = numbers.prefixes[i]
        out.prefix_tokens[d, i] = st.prefix_tokens[d, q]
        out.branches[d, i] = st.branches[d, q]
        out.prefix_there[d, i] = st.prefix_there[d, q]
        out.keep_until[d, i] = st.keep_until[d, q]
        entry = prefix_entry(p, d, q)
        out.keep[rank_of_entry(small, prefix_entry(small, d, i))] = st.keep[rank_of_entry(p, entry)]
        if p.batching:
            out.pins[d, i], out.computed[d, i] = st.pins[d, q], st.computed[d, q]
    for i in range(numbers.prefixes_count, small.prefixes.size):
        out.prefix_tokens[d, i] = out.branches[d, i] = 0
    first = first_context_entry(p)
    entry = st.devices[d].oldest
    while entry >= 0:
        if entry < first:
            q = numbers.prefix_at[entry - prefix_entry(p, d, 0)]
            append_entry(out, d, prefix_entry(small, d, q))
        else:
            s, k = slot_of(p, entry - first)
            append_entry(out, d, context_entry(small, numbers.stage_at[s], k))
        entry = st.newer[entry]


@inlined
def _fill_queue(
    p: ProblemArrays,
    st: StateArrays,
    numbers: Numbers,
    small: ProblemArrays,
    out: StateArrays,
    d: int,
) -> None:
    device = out.devices[d]
    device.queue_head = _slot_in(p, numbers, small, device.queue_head)
    device.queue_tail = _slot_in(p, numbers, small, device.queue_tail)
    if p.batching:
        out.batches[d] = st.batches[d]
        batch = out.batches[d]
        batch.admitted = _slot_in(p, numbers, small, batch.admitted)
        batch.prompt = _slot_in(p, numbers, small, batch.prompt)
        batch.decoder = _slot_in(p, numbers, small, batch.decoder)


@inlined
def _fill_lists(p: ProblemArrays, st: StateArrays, numbers: Numbers, out: StateArrays) -> None:
    """Fill the ready list and the events."""
    out.ready_count = out.event_count = 0
    for i in range(st.ready_count):
        place = number_in(numbers.stage_at, st.ready[i])
        if place != ABSENT:
            out.ready[out.ready_count] = place
            out.ready_count += 1
    for i in range(st.event_count):
        event = st.events[i]
        if arriving(p, event.id) >= 0:
            continue
        s, k = event_of(p, event.id)
        push(out, event.time, numbers.stage_at[s] * (p.max_shards + 1) + k)
