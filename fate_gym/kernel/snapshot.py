"""States built from what is known of a real cluster, not reached by a run.

Begin with `begin_at`, then say what devices hold, which placements have finished and which run,
and end with `release`. Nothing is checked: use every stage at most once, parents before children,
and at most one running shard per exclusive device. On batching devices, name decoding shards
before shards that do not decode yet, and waiting ones last.
"""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.advance import reset
from fate_gym.kernel.batching.admission import admit_from_queue
from fate_gym.kernel.batching.border import come, schedule
from fate_gym.kernel.batching.waves import begin_decoding, leave
from fate_gym.kernel.commit import NOBODY, submit
from fate_gym.kernel.events import push
from fate_gym.kernel.memory import compute_path, grow_path, keep_context
from fate_gym.kernel.numbers import shard_end_event, slot_number, stage_end_event
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.ready import enlist
from fate_gym.kernel.schema import (
    ADMITTED,
    DONE,
    ENDED,
    PLACED,
    TOOL_STAGE,
    WAITING,
    LogArrays,
    ProblemArrays,
    StateArrays,
)


@kernel
def begin_at(p: ProblemArrays, st: StateArrays, time: float) -> None:
    """Set the state at a time when all workflows have arrived, with nothing placed or held.

    No workflow may follow another.
    """
    reset(p, st, 0)
    st.now = time
    st.instants = 1
    st.noisy = 0
    st.next_arrival = p.arrivals.size
    st.arrived_count = p.arrivals.size
    for i in range(p.arrivals.size):
        w = p.arrivals[i]
        st.arrived[i] = w
        st.workflows[w].arrived_at = p.workflows[w].arrival
    st.known_left = p.stages.size
    for s in range(p.stages.size):
        st.stages[s].missing -= 1
    for d in range(p.devices.size):
        st.devices[d].drains_at = time
        if p.batching:
            st.batches[d].time = time


@kernel
def hold_weights(st: StateArrays, d: int, m: int, size: float) -> None:
    """Let ``d`` hold ``size`` bytes of weights, used last; of model ``m``, -1: of no stage."""
    st.devices[d].weight_bytes += size
    if m >= 0:
        st.clock += 1
        st.resident[d, m] = st.clock


@kernel
def hold_prefix(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> None:
    """Let device ``d`` cache ``tokens`` tokens of prefix ``q``, used last."""
    if p.models[p.prefixes[q].model].kv > 0.0:
        while p.prefixes[q].start >= tokens:
            q = p.prefixes[q].parent
        grow_path(p, st, d, q, tokens, st.now)
        if p.batching:
            compute_path(p, st, d, q, tokens)


@kernel
def finish(p: ProblemArrays, st: StateArrays, placed: Placements, row: int, cached: bool) -> None:
    """Mark a placement as ended; with ``cached`` its contexts are still on its devices."""
    s = _place(st, placed, row)
    st.stages[s].status = DONE
    st.stages[s].end = st.now
    st.known_left -= 1
    st.workflows[p.stages[s].workflow].left -= 1
    if p.batching:
        for k in range(st.stages[s].shards):
            st.lanes[s, k].state = ENDED
    for i in range(p.stages[s].children_from, p.stages[s].children_to):
        st.stages[p.edges[p.out_edges[i]].child].missing -= 1
    if cached and p.stages[s].keeps_context and p.models[p.stages[s].model].kv > 0.0:
        for k in range(st.stages[s].shards):
            st.slots[s, k].kept = st.slots[s, k].queries
            keep_context(p, st, s, k)


@kernel
def run(p: ProblemArrays, st: StateArrays, placed: Placements, row: int, seconds: float) -> None:
    """Mark a placement as running, expected to end in ``seconds``."""
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


@kernel
def run_in_batch(
    p: ProblemArrays, st: StateArrays, placed: Placements, row: int, made: int, log: LogArrays
) -> int:
    """Run a placement on batching devices; each query has made ``made`` tokens.

    With 0 the prompt is still to be computed. Returns the position of the first device that cannot
    have admitted the placement beside the others, -1 if all can. ``log`` must have no rows.
    """
    s = _place(st, placed, row)
    st.stages[s].status = PLACED
    for k in range(st.stages[s].shards):
        slot, lane = st.slots[s, k], st.lanes[s, k]
        d, queries = slot.device, slot.queries
        if st.resident[d, p.stages[s].model] == 0:
            hold_weights(st, d, p.stages[s].model, p.models[p.stages[s].model].weight_bytes)
        submit(p, st, log, s, k, d, queries, NOBODY)
        if made > 0:
            # A query that is longer than expected makes one more token.
            lane.output = max(lane.output, made + 1)
            lane.granted = max(lane.granted, lane.output)
        admit_from_queue(p, st, log, d)
        if lane.state != ADMITTED:
            return k
        lane.there = st.now
        come(p, st, log, d)
        if made > 0:
            _decode(p, st, s, k, made)
            schedule(p, st, d)
    return -1


@inlined
def _decode(p: ProblemArrays, st: StateArrays, s: int, k: int, made: int) -> None:
    """Let the wave in a slot, which has joined, decode with ``made`` tokens made."""
    lane, d = st.lanes[s, k], st.slots[s, k].device
    leave(p, st, d, slot_number(p, s, k))
    if lane.grows:
        lane.grows = 0
        q = p.stages[s].prefix
        while q >= 0:
            st.prefix_there[d, q] = min(st.prefix_there[d, q], st.now)
            q = p.prefixes[q].parent
    lane.prompt = 0
    lane.made = made
    begin_decoding(p, st, d, s, k)


@kernel
def wait_in_line(
    p: ProblemArrays, st: StateArrays, placed: Placements, row: int, log: LogArrays
) -> None:
    """Queue a placement on batching devices, behind what already waits there."""
    s = _place(st, placed, row)
    st.stages[s].status = PLACED
    for k in range(st.stages[s].shards):
        d, queries = st.slots[s, k].device, st.slots[s, k].queries
        submit(p, st, log, s, k, d, queries, NOBODY)
        come(p, st, log, d)


@inlined
def _place(st: StateArrays, placed: Placements, row: int) -> int:
    """Fill the slots of a stage that became ready no later than now; return the stage."""
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
    """Make stages whose parents have finished ready; start the tools among them."""
    for s in range(p.stages.size):
        if st.stages[s].status != WAITING or st.stages[s].missing > 0:
            continue
        st.stages[s].ready_at = st.now
        if p.stages[s].kind == TOOL_STAGE:
            st.stages[s].status = PLACED
            push(st, st.now + p.stages[s].tool_seconds, stage_end_event(p, s))
        else:
            enlist(st, s)
