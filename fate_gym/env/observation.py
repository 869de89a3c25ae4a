"""The observation, written in one compiled pass (features: `fate_gym.env.features`)."""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.env.features import (
    CANDIDATE_CHILDREN_FIT,
    CANDIDATE_CHILDREN_RESIDENT,
    CANDIDATE_CHILDREN_SAVED,
    CANDIDATE_CONTEXT_HIT,
    CANDIDATE_DECODE,
    CANDIDATE_DEMAND,
    CANDIDATE_DEVICES,
    CANDIDATE_END,
    CANDIDATE_EVICTED_KV,
    CANDIDATE_EVICTED_WEIGHTS,
    CANDIDATE_LATER,
    CANDIDATE_LOAD,
    CANDIDATE_MOVED,
    CANDIDATE_OCCUPIED,
    CANDIDATE_PREFILL,
    CANDIDATE_PREFIX_HIT,
    CANDIDATE_RESIDENT,
    CANDIDATE_SPEED,
    CANDIDATE_TRANSFER,
    CANDIDATE_TURN,
    CANDIDATE_WIDTH,
    DEVICE_DEMAND,
    DEVICE_FREE,
    DEVICE_IDLE,
    DEVICE_KV,
    DEVICE_PREFIX_HITS,
    DEVICE_QUEUE,
    DEVICE_WEIGHTS,
    DEVICE_WIDTH,
    GLOBAL_BUSY,
    GLOBAL_CAN_WAIT,
    GLOBAL_DONE,
    GLOBAL_EAGER,
    GLOBAL_HIDDEN,
    GLOBAL_LONGEST_QUEUE,
    GLOBAL_MEAN_QUEUE,
    GLOBAL_NOW,
    GLOBAL_PATH_LEFT,
    GLOBAL_SHOWN,
    GLOBAL_STAGES_LEFT,
    GLOBAL_UNCERTAINTY,
    GLOBAL_WIDTH,
    GLOBAL_WORK_LEFT,
    GLOBAL_WORKFLOWS,
    HALF_DEGREE,
    HALF_SIGMA,
    HALF_STAGES,
    HALF_TRANSFER,
    HALF_WORKFLOWS,
    LONG,
    NODE_SLOT,
    NODE_STATUS,
    NODE_WIDTH,
    STAGE_AGE,
    STAGE_BEST_END,
    STAGE_PREFIX_CACHED,
    STAGE_READY_FOR,
    STAGE_RESIDENT,
    STAGE_WIDTH,
    STATIC_FROM,
    STATIC_TO,
    saturate,
)
from fate_gym.env.layout import FactsView, FrameView, facts_view, frame_view
from fate_gym.env.placements import shard, sort_devices, split_placements
from fate_gym.sim.cost import drain_estimate
from fate_gym.sim.engine import next_event_time
from fate_gym.sim.layout import (
    MODEL_STAGE,
    Array,
    Buffer,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)
from fate_gym.sim.tables import matrix, table


@compiled
def observe(problem: Buffer, facts: Buffer, state: Buffer, frame: Buffer, out: Buffer) -> None:
    """Bring window, placements and observation up to date."""
    p = problem_view(problem)
    st = state_view(state, p)
    f = facts_view(facts, p)
    fr = frame_view(frame, p)
    h = fr.head[0]
    actions = h.slots * h.positions
    shown = _select_window(st, f, fr)
    _look_at_devices(p, st, f, fr, shown)
    # Groups that are switched off are written as well, where nobody looks.
    mask = table(out, h.mask_at, actions + 1, np.int8)
    rows = matrix(out, h.candidates_at, actions, CANDIDATE_WIDTH, np.float32)
    slots = matrix(out, h.stages_at, h.slots, STAGE_WIDTH + 2 * h.models, np.float32)
    with_prefix = 0
    for i in range(shown):
        with_prefix += _write_slot(p, st, f, fr, i, rows, slots[i])
    for i in range(actions):
        if i >= shown * h.positions:
            fr.widths[i] = 0
        mask[i] = fr.widths[i] > 0
        if not mask[i]:
            for c in range(CANDIDATE_WIDTH):
                rows[i, c] = 0.0
    for i in range(shown, h.slots):
        for c in range(slots.shape[1]):
            slots[i, c] = 0.0
    can_wait = h.ended == 0 and next_event_time(p, st) < np.inf
    mask[actions] = can_wait
    devices = matrix(out, h.devices_at, h.devices, DEVICE_WIDTH + h.models, np.float32)
    _write_devices(p, st, f, fr, devices, with_prefix)
    _write_globals(
        p, st, f, fr, table(out, h.globals_at, GLOBAL_WIDTH, np.float32), shown, can_wait
    )
    if h.nodes > 0:
        _write_graph(problem, facts, state, frame, out)


@inlined
def _select_window(st: StateView, f: FactsView, fr: FrameView) -> int:
    """The ready stages with the largest upward ranks, in order; returns how many."""
    slots = fr.head[0].slots
    shown = 0
    for r in range(st.head[0].ready):
        s = st.ready[r]
        position = f.stages[s].position
        if shown == slots:
            if f.stages[fr.window[slots - 1]].position < position:
                continue
            shown -= 1
        i = shown
        while i > 0 and f.stages[fr.window[i - 1]].position > position:
            fr.window[i] = fr.window[i - 1]
            i -= 1
        fr.window[i] = s
        shown += 1
    for i in range(shown, slots):
        fr.window[i] = -1
    return shown


@inlined
def _look_at_devices(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, shown: int
) -> None:
    for d in range(p.devices.size):
        fr.turn[d] = drain_estimate(p, st, d)
        fr.hits[d] = 0.0
        demand = 0.0
        for i in range(shown):
            s = fr.window[i]
            if f.pairs[s, d].speed > 0.0:
                demand += 1.0 / f.stages[s].eligible
        fr.demand[d] = demand / max(1, shown)


@inlined
def _write_slot(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, slot: int, rows: Array, row: Array
) -> int:
    """Placements and features of the stage in a slot; returns 1 if it has a prefix."""
    h = fr.head[0]
    s = fr.window[slot]
    stage = p.stages[s]
    base = slot * h.positions
    number = p.devices.size
    resident = 0
    cached = 0.0
    best = np.inf
    for i in range(h.positions):
        at = base + i
        if i < h.devices:
            fr.widths[at] = 0
            fr.ends[i] = np.inf
            if i < number and f.pairs[s, i].speed > 0.0:
                fr.widths[at] = 1
                fr.members[at, 0] = i
                fr.counts[at, 0] = stage.queries
        elif i == h.devices:
            # Now it is known where the stage would end first.
            split_placements(p, st, fr, s, base, sort_devices(fr, number))
        if fr.widths[at] == 0:
            continue
        fr.ends[i] = _write_candidate(p, st, f, fr, s, at, rows[at])
        if i < h.devices:
            best = min(best, fr.ends[i])
            if stage.kind == MODEL_STAGE:
                resident += st.resident[i, stage.model] > 0
                if stage.prefix >= 0:
                    hit = rows[at, CANDIDATE_PREFIX_HIT]
                    cached = max(cached, hit)
                    fr.hits[i] += hit
    for i in range(h.positions):
        at = base + i
        if fr.widths[at] > 0:
            later = fr.ends[i] - best
            rows[at, CANDIDATE_LATER] = later / (abs(later) + h.time_scale)
    now = st.head[0].now
    for c in range(row.size):
        row[c] = f.stage_rows[s, c]
    row[STAGE_READY_FOR] = saturate(now - st.stages[s].ready_at, h.time_scale)
    row[STAGE_AGE] = saturate(now - p.workflows[stage.workflow].arrival, LONG * h.time_scale)
    row[STAGE_RESIDENT] = resident / f.stages[s].eligible
    row[STAGE_PREFIX_CACHED] = cached
    row[STAGE_BEST_END] = saturate(best - now, h.time_scale)
    return 1 if stage.prefix_tokens > 0 else 0


@inlined
def _write_candidate(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, s: int, at: int, row: Array
) -> float:
    """Features of one placement but ``later``; returns its expected end."""
    h = fr.head[0]
    stage = p.stages[s]
    k = fr.widths[at]
    now = st.head[0].now
    turn, load, transfer, prefill, decode, end = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    occupied, moved, hits, contexts = 0.0, 0.0, 0.0, 0.0
    evicted_kv, evicted_weights, demand = 0.0, 0.0, 0.0
    speed = 1.0
    resident = 0
    for i in range(k):
        d, n = fr.members[at, i], fr.counts[at, i]
        part = shard(p, st, f, s, d, n, fr.turn[d])
        begin = max(part.load, part.transfer)
        end = max(end, fr.turn[d] + begin + part.prefill + part.decode)
        turn = max(turn, fr.turn[d])
        load = max(load, part.load)
        transfer = max(transfer, part.transfer)
        prefill = max(prefill, part.prefill)
        decode = max(decode, part.decode)
        occupied += begin + part.prefill + part.decode
        moved += part.moved
        hits += n * part.prefix_hit
        contexts += n * part.context_hit
        speed = min(speed, f.pairs[s, d].speed)
        demand = max(demand, fr.demand[d])
        if stage.kind == MODEL_STAGE:
            if st.resident[d, stage.model]:
                resident += n
            kv, weights = _evicted(p, st, f, s, d, n)
            evicted_kv = max(evicted_kv, kv)
            evicted_weights = max(evicted_weights, weights)
    if k > 1:
        end += (k - 1) * p.head[0].gather_s
    scale = h.time_scale
    queries = stage.queries
    first = fr.members[at, 0]
    row[0] = 1.0
    row[CANDIDATE_DEVICES] = k / h.shards
    row[CANDIDATE_TURN] = saturate(turn - now, scale)
    row[CANDIDATE_LOAD] = saturate(load, scale)
    row[CANDIDATE_TRANSFER] = saturate(transfer, scale)
    row[CANDIDATE_PREFILL] = saturate(prefill, scale)
    row[CANDIDATE_DECODE] = saturate(decode, scale)
    row[CANDIDATE_END] = saturate(end - now, scale)
    row[CANDIDATE_OCCUPIED] = saturate(occupied, scale)
    row[CANDIDATE_SPEED] = speed
    row[CANDIDATE_RESIDENT] = resident / queries
    row[CANDIDATE_PREFIX_HIT] = hits / (queries * max(1, stage.prefix_tokens))
    row[CANDIDATE_CONTEXT_HIT] = contexts / (queries * max(1, stage.inherited_tokens))
    row[CANDIDATE_MOVED] = saturate(moved, HALF_TRANSFER)
    row[CANDIDATE_EVICTED_KV] = evicted_kv
    row[CANDIDATE_EVICTED_WEIGHTS] = evicted_weights
    row[CANDIDATE_CHILDREN_FIT] = f.pairs[s, first].fit
    row[CANDIDATE_CHILDREN_RESIDENT] = _children_resident(p, st, f, s, first)
    row[CANDIDATE_CHILDREN_SAVED] = saturate(f.pairs[s, first].saved, scale)
    row[CANDIDATE_DEMAND] = demand
    return end


@inlined
def _evicted(
    p: ProblemView, st: StateView, f: FactsView, s: int, d: int, n: int
) -> tuple[float, float]:
    """Shares of the memory: KV and weights that have to go, at least, for a shard."""
    stage = p.stages[s]
    model = p.models[stage.model]
    dev = st.devices[d]
    own_weights = model.weight_bytes if st.resident[d, stage.model] else 0.0
    cached = 0.0
    if stage.prefix_tokens > 0:
        cached = st.prefix_tokens[d, stage.prefix] * model.kv
    prefix = max(cached, stage.prefix_tokens * model.kv)
    pinned = model.weight_bytes + prefix + min(n, f.pairs[s, d].batch) * f.stages[s].context
    others_kv = dev.kv_bytes - cached
    others_weights = dev.weight_bytes - own_weights
    memory = p.devices[d].memory
    over = pinned + others_kv + others_weights - memory
    if over <= 0.0:
        return 0.0, 0.0
    kv = min(over, others_kv)
    return kv / memory, min(over - kv, others_weights) / memory


@inlined
def _children_resident(p: ProblemView, st: StateView, f: FactsView, s: int, d: int) -> float:
    share = 0.0
    for m in range(p.models.size):
        if st.resident[d, m] or m == p.stages[s].model:
            share += f.child_models[s, m]
    return share


@inlined
def _write_devices(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, rows: Array, with_prefix: int
) -> None:
    h = fr.head[0]
    now = st.head[0].now
    for d in range(rows.shape[0]):
        if d >= p.devices.size:
            for c in range(rows.shape[1]):
                rows[d, c] = 0.0
            continue
        for c in range(rows.shape[1]):
            rows[d, c] = f.device_rows[d, c]
        dev = st.devices[d]
        memory = p.devices[d].memory
        if memory > 0.0:
            # Rounding errors of a long run must not leave [0, 1].
            weights = min(1.0, max(0.0, dev.weight_bytes / memory))
            kv = min(1.0 - weights, max(0.0, dev.kv_bytes / memory))
            rows[d, DEVICE_WEIGHTS] = weights
            rows[d, DEVICE_KV] = kv
            rows[d, DEVICE_FREE] = 1.0 - weights - kv
        rows[d, DEVICE_IDLE] = dev.queue_head < 0
        rows[d, DEVICE_QUEUE] = saturate(fr.turn[d] - now, h.time_scale)
        rows[d, DEVICE_PREFIX_HITS] = fr.hits[d] / max(1, with_prefix)
        rows[d, DEVICE_DEMAND] = fr.demand[d]
        for m in range(p.models.size):
            rows[d, DEVICE_WIDTH + m] = st.resident[d, m] > 0


@inlined
def _write_globals(
    p: ProblemView,
    st: StateView,
    f: FactsView,
    fr: FrameView,
    row: Array,
    shown: int,
    can_wait: bool,
) -> None:
    h = fr.head[0]
    now = st.head[0].now
    number = p.devices.size
    busy, total, longest = 0, 0.0, 0.0
    for d in range(number):
        queue = fr.turn[d] - now
        busy += st.devices[d].queue_head >= 0
        total += queue
        longest = max(longest, queue)
    left = st.head[0].known_left
    path = p.stages[fr.window[0]].upward_rank if shown > 0 else 0.0
    row[GLOBAL_NOW] = saturate(now - f.head[0].first_arrival, LONG * h.time_scale)
    row[GLOBAL_CAN_WAIT] = can_wait
    row[GLOBAL_SHOWN] = shown / h.slots
    row[GLOBAL_HIDDEN] = saturate(st.head[0].ready - shown, HALF_DEGREE)
    row[GLOBAL_WORKFLOWS] = saturate(h.active, HALF_WORKFLOWS)
    row[GLOBAL_STAGES_LEFT] = saturate(left, HALF_STAGES)
    row[GLOBAL_DONE] = 1.0 - left / max(1, h.stages)
    row[GLOBAL_BUSY] = busy / number
    row[GLOBAL_MEAN_QUEUE] = saturate(total / number, h.time_scale)
    row[GLOBAL_LONGEST_QUEUE] = saturate(longest, h.time_scale)
    row[GLOBAL_PATH_LEFT] = saturate(path, LONG * h.time_scale)
    row[GLOBAL_WORK_LEFT] = saturate(max(0.0, h.work) / number, LONG * h.time_scale)
    row[GLOBAL_UNCERTAINTY] = saturate(p.head[0].uncertainty, HALF_SIGMA)
    row[GLOBAL_EAGER] = p.head[0].eager


@compiled
def _write_graph(problem: Buffer, facts: Buffer, state: Buffer, frame: Buffer, out: Buffer) -> None:
    """Nodes and edges of the workflows that have arrived."""
    p = problem_view(problem)
    st = state_view(state, p)
    f = facts_view(facts, p)
    fr = frame_view(frame, p)
    h = fr.head[0]
    nodes = matrix(out, h.nodes_at, h.nodes, NODE_WIDTH + 2 * h.models, np.float32)
    edges = matrix(out, h.edges_at, h.edges, 2, np.int32)
    for s in range(h.nodes):
        for c in range(nodes.shape[1]):
            nodes[s, c] = 0.0
    for e in range(h.edges):
        edges[e, 0] = -1
        edges[e, 1] = -1
    for i in range(st.head[0].next_arrival):
        workflow = p.workflows[p.arrivals[i]]
        for s in range(workflow.stages_from, workflow.stages_to):
            nodes[s, 0] = 1.0
            for c in range(STATIC_FROM, STATIC_TO):
                nodes[s, c] = f.stage_rows[s, c]
            for c in range(2 * h.models):
                nodes[s, NODE_WIDTH + c] = f.stage_rows[s, STAGE_WIDTH + c]
            nodes[s, NODE_STATUS + st.stages[s].status] = 1.0
            stage = p.stages[s]
            for e in range(stage.parents_from, stage.parents_to):
                edges[e, 0] = p.edges[e].parent
                edges[e, 1] = s
    for i in range(h.slots):
        if fr.window[i] >= 0:
            nodes[fr.window[i], NODE_SLOT] = (i + 1) / h.slots


__all__ = ["observe"]
