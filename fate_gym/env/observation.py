"""The observation, written in one compiled pass (features: `fate_gym.env.features`).

From one step to the next most costs stay what they are: those of a stage on a device depend on
what the device holds when its queue has drained, which changes when something is placed on it.
They are kept in the frame, stage by stage, and worked out anew for the devices that changed.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.env.features import (
    CANDIDATE_BEHIND,
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
    DEVICE_UP,
    DEVICE_WEIGHTS,
    DEVICE_WIDTH,
    GLOBAL_BUSY,
    GLOBAL_CAN_WAIT,
    GLOBAL_DONE,
    GLOBAL_EAGER,
    GLOBAL_FAILING,
    GLOBAL_HIDDEN,
    GLOBAL_LENGTH_UNCERTAINTY,
    GLOBAL_LONGEST_QUEUE,
    GLOBAL_MEAN_QUEUE,
    GLOBAL_NOW,
    GLOBAL_PATH_LEFT,
    GLOBAL_SHOWN,
    GLOBAL_STAGES_LEFT,
    GLOBAL_UNCERTAINTY,
    GLOBAL_UP,
    GLOBAL_WIDTH,
    GLOBAL_WORK_LEFT,
    GLOBAL_WORKFLOWS,
    HALF_DEGREE,
    HALF_SIGMA,
    HALF_STAGES,
    HALF_TRANSFER,
    HALF_WORKFLOWS,
    LONG,
    NODE_LIVES,
    NODE_SLOT,
    NODE_STATUS,
    NODE_WIDTH,
    STAGE_AGE,
    STAGE_BEST_END,
    STAGE_CHILDREN_LIVE,
    STAGE_PREFIX_CACHED,
    STAGE_READY_FOR,
    STAGE_RESIDENT,
    STAGE_WIDTH,
    STATIC_FROM,
    STATIC_TO,
    saturate,
)
from fate_gym.env.layout import FactsView, FrameView, facts_view, frame_view
from fate_gym.env.placements import (
    decode_seconds,
    evicted,
    find_holders,
    find_neighbours,
    is_team,
    price_whole,
    sort_devices,
    split_queries,
)
from fate_gym.sim.cost import drain_estimate, prefill_seconds, transfer_seconds
from fate_gym.sim.engine import can_wait
from fate_gym.sim.layout import (
    DONE,
    FIXED_STAGE,
    MODEL_STAGE,
    VANISHED,
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
    _select_window(st, f, fr)
    _look_at_devices(p, st, f, fr)
    mask = table(out, h.mask_at, actions + 1, np.int8)
    with_prefix = 0
    for slot in range(h.shown):
        _bring_up_to_date(p, st, f, fr, slot)
        base = fr.lines[slot] * h.positions
        for i in range(h.positions):
            mask[slot * h.positions + i] = fr.widths[base + i] > 0
        with_prefix += p.stages[fr.window[slot]].prefix_tokens > 0
    _plan_ahead(p, fr)
    for i in range(h.shown * h.positions, actions):
        mask[i] = 0
    h.can_wait = h.ended == 0 and (can_wait(p, st) or st.head[0].ready == 0)
    mask[actions] = h.can_wait
    if h.candidates_at >= 0:
        width = h.positions * CANDIDATE_WIDTH
        for slot in range(h.slots):
            # Arrays from 0 on: these loops are memory copies.
            cells = table(out, h.candidates_at + 4 * slot * width, width, np.float32)
            if slot < h.shown:
                at = fr.rows_at + 4 * fr.lines[slot] * width
                kept = table(frame, at, width, np.float32)
                for i in range(width):
                    cells[i] = kept[i]
            else:
                for i in range(width):
                    cells[i] = 0.0
    if h.stages_at >= 0:
        rows = matrix(out, h.stages_at, h.slots, STAGE_WIDTH + 2 * h.models, np.float32)
        _write_stages(p, st, f, fr, rows)
    if h.devices_at >= 0:
        rows = matrix(out, h.devices_at, h.devices, DEVICE_WIDTH + h.models, np.float32)
        _write_devices(p, st, f, fr, rows, with_prefix)
    if h.globals_at >= 0:
        _write_globals(p, st, f, fr, table(out, h.globals_at, GLOBAL_WIDTH, np.float32))
    if h.nodes > 0:
        _write_graph(problem, facts, state, frame, out)


@inlined
def open_window(fr: FrameView) -> None:
    """The window of a run that nobody has looked at; the frame is zero but for its options."""
    h = fr.head[0]
    h.free = h.slots
    for i in range(h.slots):
        fr.window[i] = -1
        fr.free[i] = i


@inlined
def _select_window(st: StateView, f: FactsView, fr: FrameView) -> None:
    """Show the first ready stages in the order of `facts`; each has a line."""
    h = fr.head[0]
    slots = h.slots
    shown = 0
    for i in range(slots):
        fr.before[i] = fr.window[i]
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
    h.shown = shown
    h.looks += 1
    for i in range(shown):
        fr.stages[fr.window[i]].seen = h.looks
    for i in range(slots):
        s = fr.before[i]
        if s >= 0 and fr.stages[s].seen != h.looks and fr.stages[s].line > 0:
            fr.free[h.free] = fr.stages[s].line - 1
            h.free += 1
            fr.stages[s].line = 0
    for i in range(shown):
        # A line of its own comes with the first look (`_bring_up_to_date`).
        fr.lines[i] = fr.stages[fr.window[i]].line - 1


@inlined
def _look_at_devices(p: ProblemView, st: StateView, f: FactsView, fr: FrameView) -> None:
    h = fr.head[0]
    now = st.head[0].now
    for d in range(p.devices.size):
        fr.turn[d] = drain_estimate(p, st, d)
        # A device that is down has its turn at inf; when it will be repaired nobody knows.
        queue = fr.turn[d] - now if fr.turn[d] < np.inf else p.head[0].mttr_s
        fr.turn_feature[d] = saturate(queue, h.time_scale)
        fr.hits[d] = 0.0
        fr.demand[d] = 0.0
        seen, dev = fr.seen[d], st.devices[d]
        # What is left of an eager transfer shrinks while the stage waits for its turn; with
        # contention what is booked anywhere may be in the way.
        fr.changed[d] = (
            p.head[0].eager != 0
            or p.head[0].contention != 0
            or seen.drains_at != dev.drains_at
            or seen.weight_bytes != dev.weight_bytes
            or seen.kv_bytes != dev.kv_bytes
            or seen.oldest != dev.oldest
            or seen.newest != dev.newest
        )
        seen.drains_at, seen.weight_bytes, seen.kv_bytes = (
            dev.drains_at,
            dev.weight_bytes,
            dev.kv_bytes,
        )
        seen.oldest, seen.newest = dev.oldest, dev.newest
    for i in range(h.shown):
        s = fr.window[i]
        share = 1.0 / (f.stages[s].eligible * h.shown)
        for d in range(p.devices.size):
            if f.pairs[s, d].can:
                fr.demand[d] += share


@inlined
def _bring_up_to_date(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, slot: int
) -> None:
    """Placements of the stage in a slot, their costs and features."""
    h = fr.head[0]
    s = fr.window[slot]
    new = fr.lines[slot] < 0
    if new:
        h.free -= 1
        fr.lines[slot] = fr.free[h.free]
        fr.stages[s].line = fr.lines[slot] + 1
    line = fr.lines[slot]
    base = line * h.positions
    if new:
        for i in range(h.positions):
            fr.widths[base + i] = 0
            for c in range(CANDIDATE_WIDTH):
                fr.rows[base + i, c] = 0.0
    number = p.devices.size
    now = st.head[0].now
    scale = h.time_scale
    best = np.inf
    for d in range(number):
        fr.ends[d] = np.inf
        if not f.pairs[s, d].can:
            continue
        if fr.turn[d] == np.inf:
            if fr.widths[base + d] > 0:
                fr.widths[base + d] = 0
                for c in range(CANDIDATE_WIDTH):
                    fr.rows[base + d, c] = 0.0
            continue
        if new or fr.changed[d]:
            price_whole(p, st, f, fr, line, s, d)
            _write_single(p, st, f, fr, line, s, d)
        part = fr.parts[line, d]
        fr.ends[d] = fr.turn[d] + max(part.load, part.transfer) + part.prefill + part.decode
        best = min(best, fr.ends[d])
        if p.stages[s].prefix >= 0:
            fr.hits[d] += fr.rows[base + d, CANDIDATE_PREFIX_HIT]
    for d in range(number):
        if fr.widths[base + d] > 0:
            row = fr.rows[base + d]
            later = fr.ends[d] - best
            row[CANDIDATE_TURN] = fr.turn_feature[d]
            row[CANDIDATE_END] = saturate(fr.ends[d] - now, scale)
            row[CANDIDATE_LATER] = later / (later + scale)
            row[CANDIDATE_DEMAND] = fr.demand[d]
    _split(p, st, f, fr, s, base, new, best)


@inlined
def _split(
    p: ProblemView,
    st: StateView,
    f: FactsView,
    fr: FrameView,
    s: int,
    base: int,
    new: bool,
    best: float,
) -> None:
    """The placements with two and more devices."""
    h = fr.head[0]
    stage = p.stages[s]
    most = min(h.shards, min(stage.queries, p.head[0].max_shards))
    if most < 2:
        return
    now = st.head[0].now
    found = sort_devices(fr, p.devices.size)
    most = min(most, found)
    holders = find_holders(st, fr, stage.model, found)
    groups = h.shards - 1
    line = base // h.positions
    for k in range(2, h.shards + 1):
        for group in range(3):
            position = group * groups + k - 2
            at, number = base + h.devices + position, line * 3 * groups + position
            good = k <= most
            if group == 0 and good:
                for i in range(k):
                    fr.team[i] = fr.order[i]
            elif group == 1:
                good = good and k <= holders
                if good:
                    for i in range(k):
                        fr.team[i] = fr.holders[i]
            elif group == 2:
                good = good and find_neighbours(p, fr, k, found)
            for other in range(1, group + 1):
                before = other * groups
                good = good and not is_team(fr, number - before, fr.widths[at - before], k)
            if not good:
                if fr.widths[at] > 0:
                    fr.widths[at] = 0
                    for c in range(CANDIDATE_WIDTH):
                        fr.rows[at, c] = 0.0
                continue
            stale = new or not is_team(fr, number, fr.widths[at], k)
            if stale:
                fr.widths[at] = k
                for i in range(k):
                    fr.members[number, i] = fr.team[i]
                split_queries(p, fr, s, number, k)
            for i in range(k):
                stale = stale or fr.changed[fr.team[i]] != 0
            if stale:
                _write_team(p, st, f, fr, line, s, at, number, k)
            end, turn, demand = 0.0, 0.0, 0.0
            for i in range(k):
                d = fr.team[i]
                end = max(end, fr.turn[d] + fr.busy[number, i])
                turn = max(turn, fr.turn_feature[d])
                demand = max(demand, fr.demand[d])
            end += (k - 1) * p.head[0].gather_s
            later = end - best
            row = fr.rows[at]
            row[CANDIDATE_TURN] = turn
            row[CANDIDATE_END] = saturate(end - now, h.time_scale)
            row[CANDIDATE_LATER] = later / (abs(later) + h.time_scale)
            row[CANDIDATE_DEMAND] = demand


@inlined
def _plan_ahead(p: ProblemView, fr: FrameView) -> None:
    """How much later than its best end each placement is, behind the stages of larger rank.

    Each of these is taken to go to the device on which it ends earliest then, as HEFT would have
    it: what an idle device is worth to a stage depends on who else wants it.
    """
    h = fr.head[0]
    for d in range(p.devices.size):
        fr.planned[d] = fr.turn[d]
    for slot in range(h.shown):
        line = fr.lines[slot]
        base = line * h.positions
        best, where = np.inf, -1
        for d in range(p.devices.size):
            if fr.widths[base + d] > 0:
                part = fr.parts[line, d]
                busy = max(part.load, part.transfer) + part.prefill + part.decode
                fr.ends[d] = fr.planned[d] + busy
                if fr.ends[d] < best:
                    best, where = fr.ends[d], d
        for i in range(h.positions):
            width = fr.widths[base + i]
            if width == 0:
                continue
            end = 0.0
            if i < h.devices:
                end = fr.ends[i]
            else:
                number = line * 3 * (h.shards - 1) + i - h.devices
                for k in range(width):
                    end = max(end, fr.planned[fr.members[number, k]] + fr.busy[number, k])
                end += (width - 1) * p.head[0].gather_s
            behind = end - best
            fr.rows[base + i, CANDIDATE_BEHIND] = behind / (abs(behind) + h.time_scale)
        if where >= 0:
            fr.planned[where] = best


@inlined
def _write_single(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, line: int, s: int, d: int
) -> None:
    """Features of a placement on one device, but for those that time changes."""
    h = fr.head[0]
    at = line * h.positions + d
    part = fr.parts[line, d]
    stage = p.stages[s]
    fr.widths[at] = 1
    occupied = max(part.load, part.transfer) + part.prefill + part.decode
    scale = h.time_scale
    row = fr.rows[at]
    row[0] = 1.0
    row[CANDIDATE_DEVICES] = 1.0 / h.shards
    row[CANDIDATE_LOAD] = saturate(part.load, scale)
    row[CANDIDATE_TRANSFER] = saturate(part.transfer, scale)
    row[CANDIDATE_PREFILL] = saturate(part.prefill, scale)
    row[CANDIDATE_DECODE] = saturate(part.decode, scale)
    row[CANDIDATE_OCCUPIED] = saturate(occupied, scale)
    row[CANDIDATE_SPEED] = f.pairs[s, d].speed
    row[CANDIDATE_RESIDENT] = 0.0
    if stage.kind == MODEL_STAGE and st.resident[d, stage.model] > 0:
        row[CANDIDATE_RESIDENT] = 1.0
    row[CANDIDATE_PREFIX_HIT] = part.prefix_hit / max(1, stage.prefix_tokens)
    row[CANDIDATE_CONTEXT_HIT] = part.context_hit / max(1, stage.inherited_tokens)
    row[CANDIDATE_MOVED] = saturate(part.moved, HALF_TRANSFER)
    row[CANDIDATE_EVICTED_KV] = part.evicted_kv
    row[CANDIDATE_EVICTED_WEIGHTS] = part.evicted_weights
    _write_children(p, st, f, s, d, scale, row)


@inlined
def _write_children(
    p: ProblemView, st: StateView, f: FactsView, s: int, d: int, scale: float, row: Array
) -> None:
    share = 0.0
    for m in range(p.models.size):
        if st.resident[d, m] or m == p.stages[s].model:
            share += f.child_models[s, m]
    row[CANDIDATE_CHILDREN_FIT] = f.pairs[s, d].fit
    row[CANDIDATE_CHILDREN_RESIDENT] = min(1.0, share)
    row[CANDIDATE_CHILDREN_SAVED] = saturate(f.pairs[s, d].saved, scale)


@inlined
def _write_team(
    p: ProblemView,
    st: StateView,
    f: FactsView,
    fr: FrameView,
    line: int,
    s: int,
    at: int,
    number: int,
    k: int,
) -> None:
    """Seconds and features of a placement on k devices, but for those that time changes."""
    h = fr.head[0]
    stage = p.stages[s]
    load, transfer, prefill, decode = 0.0, 0.0, 0.0, 0.0
    occupied, moved, hits, contexts = 0.0, 0.0, 0.0, 0.0
    evicted_kv, evicted_weights = 0.0, 0.0
    speed = 1.0
    resident = 0
    for i in range(k):
        d, n = fr.members[number, i], fr.counts[number, i]
        whole = fr.parts[line, d]
        fetch, size = 0.0, 0.0
        if whole.moved > 0.0:
            fetch, size = transfer_seconds(p, st, s, d, n / stage.queries, fr.turn[d])
        read, write = 0.0, p.clean_seconds[s, d]
        if stage.kind != FIXED_STAGE:
            read = prefill_seconds(p, s, d, n, whole.prefix_hit, whole.context_hit)
            write = decode_seconds(p, f, s, d, n)
            if st.resident[d, stage.model] > 0:
                resident += n
            kv, weights = 0.0, 0.0
            if whole.evicted_kv > 0.0 or whole.evicted_weights > 0.0:
                kv, weights = evicted(p, st, f, s, d, n)
            evicted_kv = max(evicted_kv, kv)
            evicted_weights = max(evicted_weights, weights)
        busy = max(whole.load, fetch) + read + write
        fr.busy[number, i] = busy
        load = max(load, whole.load)
        transfer = max(transfer, fetch)
        prefill = max(prefill, read)
        decode = max(decode, write)
        occupied += busy
        moved += size
        hits += n * whole.prefix_hit
        contexts += n * whole.context_hit
        speed = min(speed, f.pairs[s, d].speed)
    scale = h.time_scale
    queries = stage.queries
    row = fr.rows[at]
    row[0] = 1.0
    row[CANDIDATE_DEVICES] = k / h.shards
    row[CANDIDATE_LOAD] = saturate(load, scale)
    row[CANDIDATE_TRANSFER] = saturate(transfer, scale)
    row[CANDIDATE_PREFILL] = saturate(prefill, scale)
    row[CANDIDATE_DECODE] = saturate(decode, scale)
    row[CANDIDATE_OCCUPIED] = saturate(occupied, scale)
    row[CANDIDATE_SPEED] = speed
    row[CANDIDATE_RESIDENT] = resident / queries
    row[CANDIDATE_PREFIX_HIT] = hits / (queries * max(1, stage.prefix_tokens))
    row[CANDIDATE_CONTEXT_HIT] = contexts / (queries * max(1, stage.inherited_tokens))
    row[CANDIDATE_MOVED] = saturate(moved, HALF_TRANSFER)
    row[CANDIDATE_EVICTED_KV] = evicted_kv
    row[CANDIDATE_EVICTED_WEIGHTS] = evicted_weights
    _write_children(p, st, f, s, fr.members[number, 0], scale, row)


@inlined
def _write_stages(p: ProblemView, st: StateView, f: FactsView, fr: FrameView, rows: Array) -> None:
    h = fr.head[0]
    now = st.head[0].now
    for slot in range(rows.shape[0]):
        if slot >= h.shown:
            for c in range(rows.shape[1]):
                rows[slot, c] = 0.0
            continue
        s = fr.window[slot]
        stage = p.stages[s]
        base = fr.lines[slot] * h.positions
        resident = 0
        cached, best = 0.0, np.inf
        for d in range(p.devices.size):
            if f.pairs[s, d].can:
                part = fr.parts[fr.lines[slot], d]
                end = fr.turn[d] + max(part.load, part.transfer) + part.prefill + part.decode
                best = min(best, end)
                cached = max(cached, fr.rows[base + d, CANDIDATE_PREFIX_HIT])
                resident += stage.kind == MODEL_STAGE and st.resident[d, stage.model] > 0
        for c in range(rows.shape[1]):
            rows[slot, c] = f.stage_rows[s, c]
        age = now - p.workflows[stage.workflow].arrival
        rows[slot, STAGE_READY_FOR] = saturate(now - st.stages[s].ready_at, h.time_scale)
        rows[slot, STAGE_AGE] = saturate(age, LONG * h.time_scale)
        rows[slot, STAGE_RESIDENT] = resident / f.stages[s].eligible
        rows[slot, STAGE_PREFIX_CACHED] = cached
        rows[slot, STAGE_BEST_END] = saturate(best - now, h.time_scale)
        rows[slot, STAGE_CHILDREN_LIVE] = _children_live(p, st, s)


@inlined
def _life(p: ProblemView, st: StateView, s: int) -> float:
    """The probability that stage ``s`` lives, given what has been drawn."""
    life = 1.0
    while life > 0.0:
        if st.stages[s].note == VANISHED:
            return 0.0
        chooser = p.stages[s].chooser
        if chooser < 0 or st.stages[chooser].status == DONE:
            # Its chooser has drawn: had it been against the stage, it would have vanished.
            break
        life *= min(1.0, p.stages[s].lives_to) - p.stages[s].lives_from
        s = chooser
    return life


@inlined
def _children_live(p: ProblemView, st: StateView, s: int) -> float:
    stage = p.stages[s]
    children = stage.children_to - stage.children_from
    if children == 0 or p.head[0].choosers == 0:
        return 1.0 if children > 0 else 0.0
    living = 0.0
    for i in range(stage.children_from, stage.children_to):
        living += _life(p, st, p.edges[p.out_edges[i]].child)
    return living / children


@inlined
def _write_devices(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, rows: Array, with_prefix: int
) -> None:
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
        rows[d, DEVICE_IDLE] = dev.queue_head < 0 and fr.turn[d] < np.inf
        rows[d, DEVICE_QUEUE] = fr.turn_feature[d]
        rows[d, DEVICE_PREFIX_HITS] = fr.hits[d] / max(1, with_prefix)
        rows[d, DEVICE_DEMAND] = fr.demand[d]
        rows[d, DEVICE_UP] = fr.turn[d] < np.inf
        for m in range(p.models.size):
            rows[d, DEVICE_WIDTH + m] = st.resident[d, m] > 0


@inlined
def _write_globals(
    p: ProblemView,
    st: StateView,
    f: FactsView,
    fr: FrameView,
    row: Array,
) -> None:
    h = fr.head[0]
    shown = h.shown
    now = st.head[0].now
    number = p.devices.size
    busy, total, longest = 0, 0.0, 0.0
    up = 0
    for d in range(number):
        queue = fr.turn[d] - now if fr.turn[d] < np.inf else p.head[0].mttr_s
        up += fr.turn[d] < np.inf
        busy += st.devices[d].queue_head >= 0
        total += queue
        longest = max(longest, queue)
    left = st.head[0].known_left
    path = 0.0
    for i in range(st.head[0].ready):
        path = max(path, p.stages[st.ready[i]].upward_rank)
    row[GLOBAL_NOW] = saturate(now - f.head[0].first_arrival, LONG * h.time_scale)
    row[GLOBAL_CAN_WAIT] = h.can_wait
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
    row[GLOBAL_LENGTH_UNCERTAINTY] = saturate(p.head[0].length_uncertainty, HALF_SIGMA)
    row[GLOBAL_FAILING] = p.head[0].failing
    row[GLOBAL_UP] = up / number


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
            nodes[s, NODE_LIVES] = _life(p, st, s)
            stage = p.stages[s]
            for e in range(stage.parents_from, stage.parents_to):
                edges[e, 0] = p.edges[e].parent
                edges[e, 1] = s
    for i in range(h.slots):
        if fr.window[i] >= 0:
            nodes[fr.window[i], NODE_SLOT] = (i + 1) / h.slots


__all__ = ["observe", "open_window"]
