"""Failures and repairs of devices."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.border import schedule
from fate_gym.kernel.batching.waves import all_ended, empty_batch
from fate_gym.kernel.draws import change_after
from fate_gym.kernel.events import push
from fate_gym.kernel.log import log_loss
from fate_gym.kernel.memory import forget, release_context
from fate_gym.kernel.numbers import arriving, event_of, slot_of
from fate_gym.kernel.ready import (
    awaits_nothing,
    become_ready,
    enlist,
    has_host,
    take_from_ready,
)
from fate_gym.kernel.schema import (
    LIVE,
    LOSING,
    SAMPLED,
    WAITING,
    LogArrays,
    ProblemArrays,
    StateArrays,
)


@kernel
def change_devices(p: ProblemArrays, st: StateArrays, log: LogArrays) -> None:
    """Apply the failures and repairs of this instant."""
    for d in range(p.devices.size):
        dev = st.devices[d]
        while dev.changes_at <= st.now:
            dev.changes += 1
            if dev.changes % 2 == 1:
                _fail(p, st, log, d)
            else:
                _repair(p, st, d)
            foreseen = st.origin == LIVE or (st.origin == SAMPLED and p.outages.size == 0)
            if dev.changes % 2 == 0 and not foreseen:
                dev.changes_at = np.inf
            else:
                dev.changes_at = change_after(p, st, d, dev.changes, dev.changes_at)
    st.next_change = np.inf
    for d in range(p.devices.size):
        st.next_change = min(st.next_change, st.devices[d].changes_at)


@inlined
def _repair(p: ProblemArrays, st: StateArrays, d: int) -> None:
    """Bring the device up, empty. Stages that had no host become ready."""
    st.devices[d].drains_at = st.now
    for s in range(p.stages.size):
        if p.clean_seconds[s, d] < np.inf and awaits_nothing(p, st, s):
            enlist(st, s)


@kernel
def _fail(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> None:
    """Take the device down: it loses its weights, its caches and its queue.

    Outputs that it produced remain on its host. A stage that loses a shard is ready again once its
    other shards have ended.
    """
    dev = st.devices[d]
    if p.batching:
        empty_batch(p, st, d)
    number = dev.queue_head
    while number >= 0:
        s, k = slot_of(p, number)
        # Marks the events of this shard as void.
        st.slots[s, k].device = -1
        st.slots[s, k].kept = 0
        st.stages[s].note = LOSING
        if p.batching:
            _throw_away(p, st, s)
        log_loss(st, log, s, k)
        number = st.slots[s, k].next
    for s in range(p.stages.size):
        for k in range(st.stages[s].shards):
            if st.slots[s, k].device == d:
                st.slots[s, k].kept = 0
                st.slots[s, k].on_host = 1
    forget(p, st, d)
    _drop_void_events(p, st)
    number = dev.queue_head
    while number >= 0:
        s, k = slot_of(p, number)
        number = st.slots[s, k].next
        # A stage has at most one shard per device, so each stage comes up once.
        end_of_survivor(p, st, log, s)
    dev.queue_head = -1
    dev.queue_tail = -1
    dev.backlog = 0.0
    dev.drains_at = np.inf
    if p.batching:
        schedule(p, st, d)
    i = 0
    while i < st.ready_count:
        s = st.ready[i]
        if has_host(p, st, s):
            i += 1
        else:
            take_from_ready(st, s)
            st.stages[s].status = WAITING


@inlined
def _throw_away(p: ProblemArrays, st: StateArrays, s: int) -> None:
    """Drop the contexts left by the shards of a stage that has to run again."""
    for k in range(st.stages[s].shards):
        if st.slots[s, k].kept > 0:
            release_context(p, st, s, k)
        st.slots[s, k].kept = 0


@inlined
def _drop_void_events(p: ProblemArrays, st: StateArrays) -> None:
    """Remove the end events of lost shards, and of the stages that they belong to."""
    count = st.event_count
    st.event_count = 0
    for i in range(count):
        time, event = st.events[i].time, st.events[i].id
        if arriving(p, event) >= 0 or not _is_void(p, st, event):
            push(st, time, event)


@inlined
def _is_void(p: ProblemArrays, st: StateArrays, event: int) -> bool:
    """Return whether the event is the end of a lost shard, or of a stage that lost one."""
    s, k = event_of(p, event)
    return st.slots[s, k].device < 0 if k < p.max_shards else st.stages[s].note == LOSING


@kernel
def end_of_survivor(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int) -> None:
    """Make a stage that has lost a shard ready again, unless other shards are under way."""
    for i in range(st.event_count):
        owner, _ = event_of(p, st.events[i].id)
        if owner == s:
            return
    if p.batching and not all_ended(st, s):
        return
    _throw_away(p, st, s)
    for k in range(st.stages[s].shards):
        st.slots[s, k].on_host = 0
    st.stages[s].shards = 0
    st.stages[s].note = 0
    st.stages[s].status = WAITING
    become_ready(p, st, log, s)
