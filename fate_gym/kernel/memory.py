"""A device's memory: weights, cached prefixes, cached contexts, and what is evicted.

The KV entries of a device (`fate_gym.kernel.numbers`) form a list ordered by last use (``older``,
``newer``), so that touching and evicting take constant time.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import FloatMatrix, Floats, inlined, kernel
from fate_gym.kernel.numbers import (
    context_entry,
    first_context_entry,
    prefix_entry,
    rank_of_entry,
    rank_of_weights,
    slot_of,
)
from fate_gym.kernel.schema import (
    EVICT_CONTEXT,
    EVICT_PREFIX,
    EVICT_WEIGHTS,
    GRAZE,
    LogArrays,
    ProblemArrays,
    StateArrays,
)


@inlined
def _unlink(st: StateArrays, d: int, entry: int) -> None:
    older, newer = st.older[entry], st.newer[entry]
    if older >= 0:
        st.newer[older] = newer
    else:
        st.devices[d].oldest = newer
    if newer >= 0:
        st.older[newer] = older
    else:
        st.devices[d].newest = older


@inlined
def append_entry(st: StateArrays, d: int, entry: int) -> None:
    """Append a KV entry to the list of device ``d`` as the most recently used."""
    newest = st.devices[d].newest
    st.older[entry] = newest
    st.newer[entry] = -1
    if newest >= 0:
        st.newer[newest] = entry
    else:
        st.devices[d].oldest = entry
    st.devices[d].newest = entry


@inlined
def touch_contexts(p: ProblemArrays, st: StateArrays, s: int, d: int) -> None:
    """Mark the parents' contexts that stage ``s`` finds on device ``d`` as used."""
    stage = p.stages[s]
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        if not edge.same_model or edge.inherited_tokens == 0:
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if slot.device == d and slot.kept > 0:
                entry = context_entry(p, edge.parent, k)
                _unlink(st, d, entry)
                append_entry(st, d, entry)


@kernel
def grow_path(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int, end: float) -> None:
    """Grow the entries on ``d`` to cover ``tokens`` tokens of key ``q``; mark them as used.

    The root is touched last, so it is evicted last. ``end`` is when the shard that computes the
    missing tokens ends.
    """
    kv = p.models[p.prefixes[q].model].kv
    need = tokens
    while q >= 0:
        entry, cached = prefix_entry(p, d, q), st.prefix_tokens[d, q]
        start, parent = p.prefixes[q].start, p.prefixes[q].parent
        if cached > 0:
            _unlink(st, d, entry)
        elif parent >= 0:
            st.branches[d, parent] += 1
        append_entry(st, d, entry)
        if need > cached:
            st.devices[d].kv_bytes += (need - max(cached, start)) * kv
            st.prefix_tokens[d, q] = need
            st.prefix_there[d, q] = end
        need, q = start, parent


@kernel
def compute_path(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> None:
    """Note that ``tokens`` tokens of key ``q`` are computed, or about to be, on batching ``d``."""
    while q >= 0:
        st.computed[d, q] = max(st.computed[d, q], tokens)
        tokens = p.prefixes[q].start
        q = p.prefixes[q].parent


@kernel
def touch_path(p: ProblemArrays, st: StateArrays, d: int, q: int) -> None:
    """Mark what device ``d`` caches of the path of key ``q`` as used."""
    while q >= 0:
        if st.prefix_tokens[d, q] > 0:
            entry = prefix_entry(p, d, q)
            _unlink(st, d, entry)
            append_entry(st, d, entry)
        q = p.prefixes[q].parent


@inlined
def drop_prefix(p: ProblemArrays, st: StateArrays, d: int, q: int) -> float:
    """Remove the entry of key ``q`` from device ``d``; return its bytes."""
    parent = p.prefixes[q].parent
    size = (st.prefix_tokens[d, q] - p.prefixes[q].start) * p.models[p.prefixes[q].model].kv
    st.prefix_tokens[d, q] = 0
    if p.batching:
        st.computed[d, q] = 0
    if parent >= 0:
        st.branches[d, parent] -= 1
    _unlink(st, d, prefix_entry(p, d, q))
    st.devices[d].kv_bytes -= size
    return size


@inlined
def cut_prefix(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> float:
    """Cut the entry of key ``q`` to ``tokens``, beyond its start; return the bytes freed."""
    excess = (st.prefix_tokens[d, q] - tokens) * p.models[p.prefixes[q].model].kv
    st.devices[d].kv_bytes -= excess
    st.prefix_tokens[d, q] = tokens
    return excess


@inlined
def _record(
    st: StateArrays, log: LogArrays, shard: int, d: int, kind: int, key: int, size: float
) -> None:
    if st.eviction_rows < log.evictions.size:
        row = log.evictions[st.eviction_rows]
        row.shard = shard
        row.device = d
        row.kind = kind
        row.key = key
        row.bytes = size
    st.eviction_rows += 1


@kernel
def _drop(
    p: ProblemArrays, st: StateArrays, log: LogArrays, shard: int, d: int, entry: int
) -> None:
    first = first_context_entry(p)
    if entry < first:
        q = entry - prefix_entry(p, d, 0)
        size = drop_prefix(p, st, d, q)
        _record(st, log, shard, d, EVICT_PREFIX, q, size)
    else:
        s, k = slot_of(p, entry - first)
        slot = st.slots[s, k]
        size = slot.kept * context_bytes(p, s)
        slot.kept = 0
        _record(st, log, shard, d, EVICT_CONTEXT, s, size)
        _unlink(st, d, entry)
        st.devices[d].kv_bytes -= size


@inlined
def context_bytes(p: ProblemArrays, s: int) -> float:
    """Return the KV bytes of one query of stage ``s`` beyond its shared prefix."""
    stage = p.stages[s]
    tokens = stage.prompt_tokens + stage.inherited_tokens + stage.output_tokens
    return tokens * p.models[stage.model].kv


@inlined
def _stays(p: ProblemArrays, st: StateArrays, d: int, entry: int, own_prefix: int) -> bool:
    """Return whether a KV entry must stay: the shard's own prefix, or one that a wave pins.

    An entry with a child on the device must stay too: it is the middle of a path.
    """
    if entry == own_prefix:
        return True
    if entry >= first_context_entry(p):
        return False
    q = entry - prefix_entry(p, d, 0)
    if st.branches[d, q] > 0:
        return True
    return bool(p.batching) and st.pins[d, q] > 0


@kernel
def make_room(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    s: int,
    d: int,
    own_prefix: int,
    need: float,
    shard: int,
) -> None:
    """Evict on ``d`` until ``need`` more bytes fit: KV first, then idle weights.

    What the policy ranks lowest goes first; among equals, the least recently used. The shard's own
    model and the path that ends in its own prefix entry stay. If nothing else is left, the path
    shrinks to what stage ``s`` needs; that fits, because the device can host the stage. ``shard``
    is the log row of the shard that needs the room.
    """
    dev = st.devices[d]
    limit = p.devices[d].memory
    if st.retentions > 0:
        _drop_by_rank(p, st, log, d, own_prefix, need, shard)
    entry = dev.oldest
    while entry >= 0 and dev.weight_bytes + dev.kv_bytes + need > limit:
        newer = st.newer[entry]
        if not _stays(p, st, d, entry, own_prefix):
            _drop(p, st, log, shard, d, entry)
        entry = newer
    model = p.stages[s].model
    while dev.weight_bytes + dev.kv_bytes + need > limit:
        victim = _idle_weights(p, st, d, model)
        if victim < 0:
            break
        st.resident[d, victim] = 0
        dev.weight_bytes -= p.models[victim].weight_bytes
        _record(st, log, shard, d, EVICT_WEIGHTS, victim, p.models[victim].weight_bytes)
    if own_prefix >= 0 and dev.weight_bytes + dev.kv_bytes + need > limit:
        _shrink_path(p, st, s, d)


@kernel
def _shrink_path(p: ProblemArrays, st: StateArrays, s: int, d: int) -> None:
    """Cut the prefix path of stage ``s`` to what it needs, where no other wave uses it."""
    q, need = p.stages[s].prefix, p.stages[s].prefix_tokens
    while q >= 0:
        if not (p.batching and st.pins[d, q] > 1):
            excess = cut_prefix(p, st, d, q, need)
            if p.batching:
                st.batches[d].pinned -= excess
                st.computed[d, q] = min(st.computed[d, q], need)
        need = p.prefixes[q].start
        q = p.prefixes[q].parent


@inlined
def _idle_weights(p: ProblemArrays, st: StateArrays, d: int, model: int) -> int:
    """Return the resident model to evict first, other than ``model``; -1 if there is none."""
    first = rank_of_weights(p, d, 0)
    victim = -1
    for m in range(p.models.size):
        used = st.resident[d, m]
        if m == model or used == 0:
            continue
        if victim >= 0:
            rank, lowest = st.keep[first + m], st.keep[first + victim]
            if rank > lowest or (rank == lowest and used >= st.resident[d, victim]):
                continue
        victim = m
    return victim


@inlined
def _value_of(p: ProblemArrays, st: StateArrays, d: int, entry: int) -> float:
    """Return the present value of a KV entry; a prefix's value may have expired."""
    is_prefix = entry < first_context_entry(p)
    if is_prefix and st.keep_until[d, entry - prefix_entry(p, d, 0)] < st.now - GRAZE:
        return 0.0
    return st.keep[rank_of_entry(p, entry)]


@kernel
def _drop_by_rank(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    d: int,
    own_prefix: int,
    need: float,
    shard: int,
) -> None:
    """Drop KV entries, lowest rank first, then LRU, until ``need`` bytes fit or none is left."""
    dev = st.devices[d]
    while dev.weight_bytes + dev.kv_bytes + need > p.devices[d].memory:
        victim, lowest = -1, np.inf
        entry = dev.oldest
        while entry >= 0:
            value = _value_of(p, st, d, entry)
            lower = victim < 0 or value < lowest
            if lower and not _stays(p, st, d, entry, own_prefix):
                victim, lowest = entry, value
            entry = st.newer[entry]
        if victim < 0:
            return
        _drop(p, st, log, shard, d, victim)


@inlined
def release_context(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    """Drop the contexts of slot ``k`` of stage ``s``, which runs again. Not logged as eviction."""
    slot = st.slots[s, k]
    _unlink(st, slot.device, context_entry(p, s, k))
    st.devices[slot.device].kv_bytes -= slot.kept * context_bytes(p, s)


@inlined
def forget(p: ProblemArrays, st: StateArrays, d: int) -> None:
    """Empty the memory of a failed device; slots are left to the caller."""
    dev = st.devices[d]
    dev.weight_bytes = 0.0
    dev.kv_bytes = 0.0
    dev.oldest = -1
    dev.newest = -1
    for m in range(p.models.size):
        st.resident[d, m] = 0
    for q in range(p.prefixes.size):
        st.prefix_tokens[d, q] = 0
        st.branches[d, q] = 0
        if p.batching:
            st.pins[d, q] = 0
            st.computed[d, q] = 0


@inlined
def keep_context(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    """Keep the contexts of slot ``k`` of stage ``s`` as a KV entry (``slot.kept`` queries)."""
    slot = st.slots[s, k]
    entry = context_entry(p, s, k)
    st.devices[slot.device].kv_bytes += slot.kept * context_bytes(p, s)
    append_entry(st, slot.device, entry)


@inlined
def keep_more(p: ProblemArrays, st: StateArrays, s: int, k: int, queries: int) -> None:
    """Keep the contexts of ``queries`` more queries of slot ``k`` of stage ``s``."""
    slot = st.slots[s, k]
    if slot.kept > 0:
        _unlink(st, slot.device, context_entry(p, s, k))
    st.devices[slot.device].kv_bytes += queries * context_bytes(p, s)
    slot.kept += queries
    append_entry(st, slot.device, context_entry(p, s, k))


@kernel
def rank_cached(st: StateArrays, values: Floats, until: FloatMatrix) -> None:
    """Set the values of ``keep`` by which to evict from now on.

    Those of prefixes count as 0 after ``until`` (D, Q).
    """
    for i in range(values.size):
        st.keep[i] = values[i]
    for d in range(until.shape[0]):
        for q in range(until.shape[1]):
            st.keep_until[d, q] = until[d, q]
    st.retentions += 1
