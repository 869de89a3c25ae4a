"""Plays plans to the end of what is known, and says what they are worth. Compiled.

The engine of the simulator does what happens; this module decides. Costs are those of
`fate_gym.sim.cost`; the seconds of a ready stage on a device are looked up again only after
something was placed on that device (always, where transfers depend on more than the device).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.cost import (
    context_hit_tokens,
    drain_estimate,
    prefill_seconds,
    prefix_hit_tokens,
    shard_cost,
    split_queries,
    transfer_seconds,
)
from fate_gym.sim.engine import advance, commit
from fate_gym.sim.layout import (
    DONE,
    FIXED_STAGE,
    PLACED,
    Array,
    Buffer,
    Log,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)
from policies.fate.plans import DeskView, PlanView, desk_view, plan_view

MAKESPAN, MEAN, TAIL, TARDINESS = 0, 1, 2, 3
EQUAL = 1e-12
"""Relative difference under which two objectives are the same."""


class Style(NamedTuple):
    """How a plan is played, and how it is valued.

    Attributes:
        objective: ``MAKESPAN``; ``MEAN``: weighted sum of (end - origin); ``TAIL``: mean of the
            worst ``tail`` of them; ``TARDINESS``: weighted sum of what exceeds 0.
        shards: devices that may share a stage which chooses for itself, at most.
        strict: 1: such a stage does not see residency and caches.
        biased: 1: it adds the desk's ``bias`` and keeps to its ``spread``.
        horizon: edges from the frontier that are played, -1: all.
        tail: share of the workflows that ``TAIL`` looks at.
    """

    objective: int
    shards: int
    strict: int
    biased: int
    horizon: int
    tail: float


@inlined
def hosts(p: ProblemView, s: int, d: int) -> bool:
    """Whether device ``d`` can run stage ``s`` now."""
    return p.clean_seconds[s, d] < np.inf


@compiled
def _look_up(problem: Buffer, state: Buffer, desk: Buffer, s: int, d: int, turn: float) -> None:
    """Fill the cached seconds of ``s`` on ``d``: transfer, and prefill + decode."""
    p = problem_view(problem)
    st = state_view(state, p)
    wk = desk_view(desk, p)
    stage = p.stages[s]
    wk.tag[s, d] = wk.devices[d].version
    seconds, _ = transfer_seconds(p, st, s, d, 1.0, turn)
    wk.transfer[s, d] = seconds
    run = p.clean_seconds[s, d]
    if stage.kind != FIXED_STAGE:
        prefix = prefix_hit_tokens(p, st, s, d)
        context = context_hit_tokens(p, st, s, d)
        if prefix > 0.0 or context > 0.0:
            run = p.decode_seconds[s, d] + prefill_seconds(
                p, s, d, int(stage.queries), prefix, context
            )
    wk.run[s, d] = run


@inlined
def _cost(p: ProblemView, st: StateView, wk: DeskView, desk: Buffer, s: int, d: int) -> float:
    """Seconds that ``s`` would keep ``d`` busy from its turn on; cached but for the load."""
    stage = p.stages[s]
    dated = p.head[0].eager or p.head[0].contention
    if wk.tag[s, d] != wk.devices[d].version or dated:
        _look_up(p.buffer, st.buffer, desk, s, d, wk.devices[d].turn)
    load = 0.0
    missing = stage.model >= 0 and st.resident[d, stage.model] == 0
    if missing and wk.devices[d].planned != stage.model:
        load = p.load_seconds[stage.model, d]
    return max(load, wk.transfer[s, d]) + wk.run[s, d]


@inlined
def _choose(
    p: ProblemView, st: StateView, wk: DeskView, desk: Buffer, style: Style, s: int
) -> tuple[int, float]:
    """The placement with the earliest (biased) end: (devices used, end); fills chosen, dealt."""
    best, best_value = -1, np.inf
    kind = wk.stages[s].kind
    for d in range(p.devices.size):
        wk.ends[d] = np.inf
        if not hosts(p, s, d):
            continue
        turn = wk.devices[d].turn
        cost = _cost(p, st, wk, desk, s, d)
        wk.ends[d] = turn + cost
        if style.strict:
            wk.ends[d] = turn + wk.transfer[s, d] + p.clean_seconds[s, d]
        value = wk.ends[d]
        if style.biased:
            value += wk.bias[kind, d]
        if value < best_value:
            best, best_value = d, value
    wk.chosen[0] = best
    wk.dealt[0] = p.stages[s].queries
    most = min(style.shards, p.stages[s].queries)
    if style.biased:
        most = min(most, wk.stages[kind].spread)
    width = 1
    end = np.inf
    if best >= 0:
        end = wk.ends[best]
        if most > 1:
            width, end = _wider(p.buffer, st.buffer, desk, s, most, end)
    return width, end


@compiled
def _wider(
    problem: Buffer, state: Buffer, desk: Buffer, s: int, most: int, end: float
) -> tuple[int, float]:
    """The best placement on up to ``most`` of the earliest finishers, if it ends before ``end``."""
    p = problem_view(problem)
    st = state_view(state, p)
    wk = desk_view(desk, p)
    width = 1
    wk.trial[0] = wk.chosen[0]
    for k in range(2, most + 1):
        wk.ends[wk.trial[k - 2]] = np.inf
        d = np.argmin(wk.ends)
        if wk.ends[d] == np.inf:
            break
        wk.trial[k - 1] = d
        split_queries(p, s, wk.trial, k, wk.tried)
        together = 0.0
        for i in range(k):
            together = max(together, _shard_end(p, st, wk, s, wk.trial[i], wk.tried[i]))
        together += (k - 1) * p.head[0].gather_s
        if together < end:
            end = together
            width = k
            for i in range(k):
                wk.chosen[i] = wk.trial[i]
                wk.dealt[i] = wk.tried[i]
    return width, end


@inlined
def _shard_end(p: ProblemView, st: StateView, wk: DeskView, s: int, d: int, n: int) -> float:
    turn = wk.devices[d].turn
    load, transfer, prefill, decode, _ = shard_cost(p, st, s, d, n, turn)
    if wk.devices[d].planned >= 0 and wk.devices[d].planned == p.stages[s].model:
        load = 0.0
    return turn + max(load, transfer) + prefill + decode


@inlined
def _sort_ready(st: StateView, plan: PlanView, wk: DeskView) -> int:
    """The ready stages by key (then as they stand in the ready list), into ``order``."""
    count = st.head[0].ready
    if count > 64:
        keys = np.empty(count)
        for i in range(count):
            keys[i] = plan.stages[st.ready[i]].key
        places = np.argsort(keys, kind="mergesort")
        for i in range(count):
            wk.order[i] = st.ready[places[i]]
        return count
    for n in range(count):
        s = st.ready[n]
        key = plan.stages[s].key
        i = n
        while i > 0 and plan.stages[wk.order[i - 1]].key > key:
            wk.order[i] = wk.order[i - 1]
            i -= 1
        wk.order[i] = s
    return count


@compiled
def dispatch(
    problem: Buffer, state: Buffer, log: Log, plan_: Buffer, desk: Buffer, style: Style
) -> int:
    """Place what starts now; returns how many stages, whose numbers are in ``started``."""
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    wk = desk_view(desk, p)
    now = st.head[0].now
    idle = 0
    for d in range(p.devices.size):
        device = wk.devices[d]
        # In a sampled future, too, nobody knows yet when a running shard will end.
        device.turn = drain_estimate(p, st, d)
        device.planned = -1
        device.free = st.devices[d].queue_head < 0 and st.devices[d].drains_at < np.inf
        idle += device.free
    noted = 0
    if idle == 0:
        return noted
    effort = (p.devices.size + 7) // 8
    ready = _sort_ready(st, plan, wk)
    for i in range(ready):
        if idle == 0:
            break
        s = wk.order[i]
        if style.horizon >= 0 and wk.stages[s].depth > style.horizon:
            continue
        row = plan.stages[s]
        width = row.width
        starts = False
        if row.not_before > now:
            continue
        if width > 0:
            able = True
            for k in range(width):
                d = plan.devices[s, k]
                device = wk.devices[d]
                starts = starts or device.free != 0
                able = able and device.turn < np.inf and hosts(p, s, d)
            if not starts or not able:
                continue
        else:
            width, end = _choose(p, st, wk, desk, style, s)
            wk.head[0].work += effort
            if end == np.inf:
                continue
            starts = True
            for k in range(width):
                starts = starts and wk.devices[wk.chosen[k]].free != 0
            if not starts:
                for k in range(width):
                    device = wk.devices[wk.chosen[k]]
                    idle -= device.free
                    device.free = 0
                    device.turn = end
                    device.planned = p.stages[s].model
                continue
            for k in range(width):
                plan.devices[s, k] = wk.chosen[k]
                plan.counts[s, k] = wk.dealt[k]
            row.width = width
            row.not_before = now
            row.key = float(wk.head[0].placed)
        end = commit(problem, state, log, s, plan.devices[s], plan.counts[s], width)
        wk.started[noted] = s
        noted += 1
        wk.head[0].placed += 1
        for k in range(width):
            d = plan.devices[s, k]
            device = wk.devices[d]
            idle -= device.free
            device.free = 0
            device.turn = drain_estimate(p, st, d)
            wk.head[0].version += 1
            device.version = wk.head[0].version
        bound = end + wk.stages[s].tail
        wk.head[0].second += bound
        workflow = wk.workflows[p.stages[s].workflow]
        workflow.end = max(workflow.end, bound)
    return noted


@inlined
def _value(wk: DeskView, style: Style) -> float:
    """The objective by the workflows' ends as far as they are known: never too large."""
    value = 0.0
    if style.objective == MAKESPAN:
        for w in range(wk.workflows.size):
            value = max(value, wk.workflows[w].end)
    elif style.objective == TARDINESS:
        for w in range(wk.workflows.size):
            workflow = wk.workflows[w]
            value += workflow.weight * max(0.0, workflow.end - workflow.origin)
    elif style.objective == MEAN:
        for w in range(wk.workflows.size):
            workflow = wk.workflows[w]
            value += workflow.weight * (workflow.end - workflow.origin)
    else:
        known = 0
        for w in range(wk.workflows.size):
            workflow = wk.workflows[w]
            if workflow.weight > 0.0:
                late = workflow.end - workflow.origin
                i = known
                while i > 0 and wk.tails[i - 1] < late:
                    wk.tails[i] = wk.tails[i - 1]
                    i -= 1
                wk.tails[i] = late
                known += 1
        worst = max(1, int(np.ceil(style.tail * known)))
        for i in range(known):
            # A little of all the others: what is not in the tail now may be so later.
            value += wk.tails[i] * ((1.0 / worst if i < worst else 0.0) + 0.1 / known)
    return value


@compiled
def play(
    problem: Buffer,
    state: Buffer,
    log: Log,
    plan_: Buffer,
    desk: Buffer,
    style: Style,
    bound: float,
) -> float:
    """Play a plan from a forked state to the end of what is known; returns the objective.

    Stages without devices in the plan choose, and the plan becomes complete. inf: the objective
    will be more than ``bound``, or the plan waits for ever.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    wk = desk_view(desk, p)
    head = wk.head[0]
    head.plays += 1
    head.placed = 0
    head.second = 0.0
    for d in range(p.devices.size):
        head.version += 1
        wk.devices[d].version = head.version
    for w in range(p.workflows.size):
        wk.workflows[w].end = wk.workflows[w].settled
    while True:
        placed = 0
        if st.head[0].ready > 0:
            placed = dispatch(problem, state, log, plan_, desk, style)
        hopeless = placed > 0 and bound < np.inf and style.objective != TAIL
        if hopeless and _value(wk, style) > bound:
            head.work += head.placed
            return np.inf
        if not advance(problem, state, log):
            break
    head.work += head.placed
    if style.horizon < 0 and st.head[0].known_left > 0:
        return np.inf
    head.value = _value(wk, style)
    return head.value


@compiled
def prepare(problem: Buffer, state: Buffer, desk: Buffer, floors: Array, horizon: int) -> None:
    """Fill what plays from a forked state have in common: tails, depths, settled ends.

    Args:
        problem: the problem.
        state: the state that plays start from.
        desk: filled.
        floors: (S,) seconds that each stage takes at least.
        horizon: edges that are played; with 0 tails count for nothing.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    wk = desk_view(desk, p)
    far = p.stages.size
    for i in range(p.topological.size - 1, -1, -1):
        s = p.topological[i]
        stage = p.stages[s]
        tail = 0.0
        for j in range(stage.children_from, stage.children_to):
            child = p.edges[p.out_edges[j]].child
            tail = max(tail, floors[child] + wk.stages[child].tail)
        wk.stages[s].tail = 0.0 if horizon == 0 else tail
    for i in range(p.topological.size):
        s = p.topological[i]
        depth = 0
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            parent = p.edges[e].parent
            if st.stages[parent].status < PLACED:
                depth = max(depth, wk.stages[parent].depth + 1)
        wk.stages[s].depth = min(depth, far)
    for w in range(p.workflows.size):
        wk.workflows[w].settled = 0.0
    for s in range(p.stages.size):
        workflow = wk.workflows[p.stages[s].workflow]
        if st.stages[s].status == DONE:
            workflow.settled = max(workflow.settled, st.stages[s].end + wk.stages[s].tail)
    shards = p.head[0].max_shards
    for i in range(st.head[0].events):
        s = st.events[i].id // (shards + 1)
        workflow = wk.workflows[p.stages[s].workflow]
        workflow.settled = max(workflow.settled, st.events[i].time + wk.stages[s].tail)


@compiled
def unplan(problem: Buffer, state: Buffer, plan_: Buffer) -> None:
    """Take away the plan of every stage that is not placed yet: all are to choose."""
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    for s in range(p.stages.size):
        if st.stages[s].status < PLACED:
            plan.stages[s].width = 0
            plan.stages[s].not_before = 0.0


@compiled
def release(problem: Buffer, plan_: Buffer) -> None:
    """Let every stage start as early as its turn comes."""
    p = problem_view(problem)
    plan = plan_view(plan_, p)
    for s in range(p.stages.size):
        plan.stages[s].not_before = 0.0


@compiled
def plan_of_log(problem: Buffer, log: Log, first: int, last: int, plan_: Buffer) -> None:
    """Plan as rows ``first`` to ``last`` of a log have it, commit by commit."""
    p = problem_view(problem)
    plan = plan_view(plan_, p)
    for i in range(first, last):
        row = log.shards[i]
        if row.device < 0:
            continue
        plan.stages[row.stage].width = row.slot + 1
        plan.stages[row.stage].key = float(i)
        plan.stages[row.stage].not_before = row.committed
        plan.devices[row.stage, row.slot] = row.device
        plan.counts[row.stage, row.slot] = row.queries


@compiled
def start_first(
    problem: Buffer,
    plan_: Buffer,
    stages: Array,
    widths: Array,
    devices: Array,
    counts: Array,
) -> None:
    """Put placements of ready stages in front of a plan.

    ``devices`` and ``counts`` are (N, K); a count of -1 means all queries.
    """
    p = problem_view(problem)
    plan = plan_view(plan_, p)
    for i in range(stages.size):
        s = stages[i]
        row = plan.stages[s]
        row.width = widths[i]
        row.key = float(i) - 1e9
        row.not_before = 0.0
        for k in range(widths[i]):
            plan.devices[s, k] = devices[i, k]
            plan.counts[s, k] = counts[i, k] if counts[i, k] > 0 else p.stages[s].queries
