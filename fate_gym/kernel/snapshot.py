"""States that no run has led to: built from what is known of a real cluster.

Begin with `begin_at`, say what devices hold, which placements have finished and which run, and end
with `release`. Nothing is checked: every stage at most once, parents before their children, at
most one running shard on a device.
"""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.advance import reset
from fate_gym.kernel.events import push
from fate_gym.kernel.memory import append_entry, keep_context
from fate_gym.kernel.numbers import prefix_entry, shard_end_event, slot_number, stage_end_event
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.ready import enlist
from fate_gym.kernel.schema import DONE, PLACED, TOOL_STAGE, WAITING, ProblemArrays, StateArrays


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
        append_entry(st, d, prefix_entry(p, d, q))


@kernel
def finish(p: ProblemArrays, st: StateArrays, placed: Placements, row: int, cached: bool) -> None:
    """A placement has ended; with ``cached`` its contexts are still on its devices."""
    s = _place(st, placed, row)
    st.stages[s].status = DONE
    st.stages[s].end = st.now
    st.known_left -= 1
    for i in range(p.stages[s].children_from, p.stages[s].children_to):
        st.stages[p.edges[p.out_edges[i]].child].missing -= 1
    if cached and p.stages[s].keeps_context and p.models[p.stages[s].model].kv > 0.0:
        for k in range(st.stages[s].shards):
            st.slots[s, k].kept = st.slots[s, k].queries
            keep_context(p, st, s, k)


@kernel
def run(p: ProblemArrays, st: StateArrays, placed: Placements, row: int, seconds: float) -> None:
    """A placement runs, and is expected to end in ``seconds``."""
    s = _place(st, placed, row)
    st.stages[s].status = PLACED
    end = st.now + seconds
    model = p.stages[s].model
    for k in range(st.stages[s].shards):
        slot = st.slots[s, k]
        slot.start = st.now
        slot.busy = seconds
        dev = st.devices[slot.device]
        dev.queue_head = slot_number(p, s, k)
        dev.queue_tail = dev.queue_head
        dev.drains_at = end
        dev.backlog = seconds
        push(st, end, shard_end_event(p, s, k))
        if model >= 0 and st.resident[slot.device, model] == 0:
            hold_weights(st, slot.device, model, p.models[model].weight_bytes)
    if st.stages[s].shards != 1:
        push(st, end, stage_end_event(p, s))


@inlined
def _place(st: StateArrays, placed: Placements, row: int) -> int:
    """Fill the slots of a stage that was ready at last now; returns the stage."""
    s = placed.rows[row].stage
    st.stages[s].ready_at = st.now
    st.stages[s].shards = placed.rows[row].width
    for k in range(st.stages[s].shards):
        st.slots[s, k].device = placed.devices[row, k]
        st.slots[s, k].queries = placed.counts[row, k]
        st.slots[s, k].next = -1
    return s


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
