"""Takes back what `fate_gym.sim.engine.reserve` did to a scratch state.

A planner that tries hundreds of placements of one instant would else copy the whole state for
each; with thousands of stages in a stream the copies are most of its time. A placement changes
its own stage and what lies on its devices, no more.
"""

from __future__ import annotations

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.layout import Array, ProblemView, StateView


@compiled
def restore(
    p: ProblemView, st: StateView, scratch: StateView, s: int, devices: Array, k: int
) -> None:
    """Make ``scratch`` the state ``st`` again, after ``reserve`` of ``s`` on ``devices[:k]``.

    To the last bit, if it was before. Nothing else may have been reserved in between.
    """
    scratch.head[0] = st.head[0]
    scratch.stages[s] = st.stages[s]
    shards = p.head[0].max_shards
    prefixes = p.head[0].prefixes
    first = p.devices.size * prefixes
    prefix = p.stages[s].prefix
    for i in range(k):
        d = devices[i]
        scratch.devices[d] = st.devices[d]
        scratch.slots[s, i] = st.slots[s, i]
        tail = st.devices[d].queue_tail
        if tail >= 0:
            scratch.slots[tail // shards, tail % shards].next = -1
        if p.head[0].contention:
            scratch.fetches[s, i] = st.fetches[s, i]
        for m in range(p.models.size):
            scratch.resident[d, m] = st.resident[d, m]
        for q in range(prefixes):
            scratch.prefix_tokens[d, q] = st.prefix_tokens[d, q]
            scratch.prefix_there[d, q] = st.prefix_there[d, q]
        _relink(st, scratch, first + s * shards + i)
        if prefix >= 0:
            _relink(st, scratch, d * prefixes + prefix)
        entry = st.devices[d].oldest
        while entry >= 0:
            _relink(st, scratch, entry)
            if entry >= first:
                slot = entry - first
                kept = st.slots[slot // shards, slot % shards].kept
                scratch.slots[slot // shards, slot % shards].kept = kept
            entry = st.newer[entry]


@inlined
def _relink(st: StateView, scratch: StateView, entry: int) -> None:
    scratch.older[entry] = st.older[entry]
    scratch.newer[entry] = st.newer[entry]
