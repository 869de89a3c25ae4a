"""Prefix paths that the waves of a batching device pin, compute and leave cached."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.memory import compute_path, cut_prefix, drop_prefix, grow_path
from fate_gym.kernel.numbers import prefix_entry, slot_of
from fate_gym.kernel.prefixes import computed_hit, extends_prefix, has_prefix, need_of
from fate_gym.kernel.schema import ProblemArrays, StateArrays


@inlined
def _held_bytes(p: ProblemArrays, st: StateArrays, d: int, q: int) -> float:
    """Return the bytes of the entry of key ``q``, which must be on the device."""
    tokens = st.prefix_tokens[d, q] - p.prefixes[q].start
    return tokens * p.models[p.prefixes[q].model].kv


@kernel
def _grow(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> None:
    """Grow a path as `grow_path` does, and keep count of the pinned bytes."""
    batch, key = st.batches[d], q
    while key >= 0:
        if st.pins[d, key] > 0:
            batch.pinned -= _held_bytes(p, st, d, key)
        key = p.prefixes[key].parent
    grow_path(p, st, d, q, tokens, np.inf)
    while q >= 0:
        if st.pins[d, q] > 0:
            batch.pinned += _held_bytes(p, st, d, q)
        q = p.prefixes[q].parent


@inlined
def pin_path(p: ProblemArrays, st: StateArrays, s: int, k: int) -> int:
    """Grow and pin the prefix path of an admitted wave; return its last entry, -1 if none."""
    stage, lane = p.stages[s], st.lanes[s, k]
    lane.grows = 0
    if not has_prefix(p, stage):
        return -1
    d, q, need = st.slots[s, k].device, stage.prefix, stage.prefix_tokens
    lane.known = computed_hit(p, st, d, q, need)
    _grow(p, st, d, q, need)
    while q >= 0:
        if st.pins[d, q] == 0:
            st.batches[d].pinned += _held_bytes(p, st, d, q)
        st.pins[d, q] += 1
        if need > lane.known:
            lane.grows = 1
            st.prefix_there[d, q] = np.inf
        need = p.prefixes[q].start
        q = p.prefixes[q].parent
    return prefix_entry(p, d, stage.prefix)


@inlined
def unpin_path(p: ProblemArrays, st: StateArrays, s: int, d: int) -> None:
    """Unpin the prefix path of a wave of stage ``s``."""
    if not has_prefix(p, p.stages[s]):
        return
    q = p.stages[s].prefix
    while q >= 0:
        st.pins[d, q] -= 1
        if st.pins[d, q] == 0:
            st.batches[d].pinned -= _held_bytes(p, st, d, q)
        q = p.prefixes[q].parent


@inlined
def path_is_there(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    """Note that a wave adds no more tokens to its prefix; it must not be in any list."""
    lane, d = st.lanes[s, k], st.slots[s, k].device
    if lane.grows:
        lane.grows = 0
        _settle(p, st, d, p.stages[s].prefix)


@kernel
def _settle(p: ProblemArrays, st: StateArrays, d: int, q: int) -> None:
    """Mark the entries on the path of key ``q`` that no wave still extends as there now."""
    while q >= 0:
        lacking = 0
        for first in (st.batches[d].admitted, st.batches[d].prompt):
            number = first
            while number >= 0:
                other, i = slot_of(p, number)
                lane = st.lanes[other, i]
                if lane.grows and need_of(p, p.stages[other], q) > lane.known:
                    lacking = 1
                number = st.slots[other, i].next
        if lacking == 0:
            st.prefix_there[d, q] = st.now
        q = p.prefixes[q].parent


@inlined
def leave_path(p: ProblemArrays, st: StateArrays, s: int, d: int) -> None:
    """Cache what a wave of stage ``s`` adds to its prefix, after it gave back its memory."""
    stage = p.stages[s]
    if extends_prefix(p, stage):
        _grow(p, st, d, stage.written, stage.written_tokens)
        compute_path(p, st, d, stage.written, stage.written_tokens)
        _settle(p, st, d, stage.written)


@inlined
def take_back_claim(
    p: ProblemArrays, st: StateArrays, s: int, d: int, cached: int, done: int
) -> None:
    """Reduce the computed prefix of stage ``s`` to what was really computed.

    The first of the ``done`` tokens that a wave has computed are its prefix's, from ``cached`` on.
    """
    q, reached = p.stages[s].prefix, cached + done
    if reached >= p.stages[s].prefix_tokens:
        return
    while q >= 0:
        if st.computed[d, q] > reached:
            st.computed[d, q] = reached if reached > p.prefixes[q].start else 0
        q = p.prefixes[q].parent


@inlined
def drop_uncomputed(p: ProblemArrays, st: StateArrays, s: int, d: int) -> None:
    """Cut the unpinned entries on a preempted wave's path to what is computed of them.

    An entry with a child on the device stays as it is: the child needs its parent there.
    """
    if not has_prefix(p, p.stages[s]):
        return
    q = p.stages[s].prefix
    while q >= 0:
        parent = p.prefixes[q].parent
        if st.pins[d, q] == 0 and st.branches[d, q] == 0:
            computed = st.computed[d, q]
            if computed <= p.prefixes[q].start:
                drop_prefix(p, st, d, q)
            elif computed < st.prefix_tokens[d, q]:
                cut_prefix(p, st, d, q, computed)
        q = parent
