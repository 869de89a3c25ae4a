"""States that no run has led to: built from what is known of a real cluster.

Begin with `begin_at`, say what devices hold, which stages have finished and which run, and end
with `release`. Nothing is checked: every stage at most once, parents before their children, at
most one running shard on a device.
"""

from __future__ import annotations

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.advance import reset
from fate_gym.kernel.events import push
from fate_gym.kernel.memory import _append, keep_context
from fate_gym.kernel.numbers import prefix_entry, shard_end_event, slot_number, stage_end_event
from fate_gym.kernel.ready import enlist
from fate_gym.kernel.schema import (
    DONE,
    PLACED,
    TOOL_STAGE,
    WAITING,
    ProblemArrays,
    StateArrays,
)


@kernel
def begin_at(p: ProblemArrays, st: StateArrays, time: float) -> None:
    """The state at a time when all workflows have arrived, with nothing placed or held."""
    reset(p, st, 0)
    st.now = time
    st.instants = 1
    st.noisy = 0
    st.next_arrival = p.workflows.size
    st.known_left = p.stages.size
    for s in range(p.stages.size):
        st.stages[s].missing -= 1
    for d in range(p.devices.size):
        st.devices[d].drains_at = time


@kernel
def hold_weights(st: StateArrays, d: int, m: int, size: float) -> None:
    """Device ``d`` holds ``size`` bytes of weights, used last: of model ``m``, -1: of no stage."""
    st.devices[d].weight_bytes += size
    if m >= 0:
        st.clock += 1
        st.resident[d, m] = st.clock


@kernel
def hold_prefix(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> None:
    """Device ``d`` caches ``tokens`` tokens of prefix ``q``, used last."""
    kv = p.models[p.prefix_model[q]].kv
    if kv > 0.0:
        st.prefix_tokens[d, q] = tokens
        st.devices[d].kv_bytes += tokens * kv
        _append(st, d, prefix_entry(p, d, q))


@kernel
def finish(
    p: ProblemArrays,
    st: StateArrays,
    s: int,
    devices: Ints,
    counts: Ints,
    k: int,
    cached: bool,
) -> None:
    """Stage ``s`` has ended on ``devices[:k]``; with ``cached`` its contexts are still there."""
    stage = st.stages[s]
    _fill_slots(st, s, devices, counts, k)
    stage.status = DONE
    stage.end = st.now
    stage.ready_at = st.now
    st.known_left -= 1
    for i in range(p.stages[s].children_from, p.stages[s].children_to):
        st.stages[p.edges[p.out_edges[i]].child].missing -= 1
    if cached and p.stages[s].keeps_context and p.models[p.stages[s].model].kv > 0.0:
        for i in range(k):
            st.slots[s, i].kept = counts[i]
            keep_context(p, st, s, i)


@kernel
def run(
    p: ProblemArrays,
    st: StateArrays,
    s: int,
    devices: Ints,
    counts: Ints,
    k: int,
    seconds: float,
) -> None:
    """Stage ``s`` runs on ``devices[:k]``, and is expected to end in ``seconds``."""
    _fill_slots(st, s, devices, counts, k)
    st.stages[s].status = PLACED
    st.stages[s].ready_at = st.now
    end = st.now + seconds
    model = p.stages[s].model
    for i in range(k):
        d = devices[i]
        dev = st.devices[d]
        st.slots[s, i].start = st.now
        st.slots[s, i].busy = seconds
        dev.queue_head = slot_number(p, s, i)
        dev.queue_tail = dev.queue_head
        dev.drains_at = end
        dev.backlog = seconds
        push(st, end, shard_end_event(p, s, i))
        if model >= 0 and st.resident[d, model] == 0:
            hold_weights(st, d, model, p.models[model].weight_bytes)
    if k != 1:
        push(st, end, stage_end_event(p, s))


@inlined
def _fill_slots(st: StateArrays, s: int, devices: Ints, counts: Ints, k: int) -> None:
    st.stages[s].shards = k
    for i in range(k):
        st.slots[s, i].device = devices[i]
        st.slots[s, i].queries = counts[i]
        st.slots[s, i].next = -1


@kernel
def release(p: ProblemArrays, st: StateArrays) -> None:
    """Stages whose parents have finished are ready; tools among them start."""
    for s in range(p.stages.size):
        if st.stages[s].status != WAITING or st.stages[s].missing > 0:
            continue
        st.stages[s].ready_at = st.now
        if p.stages[s].kind == TOOL_STAGE:
            st.stages[s].status = PLACED
            push(st, st.now + p.stages[s].tool_seconds, stage_end_event(p, s))
        else:
            enlist(st, s)
