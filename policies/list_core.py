"""List scheduling, compiled: one parametric core under EFT, Min-Min, HEFT and the planners.

A list scheduler is an *order* over ready stages x a *rule* for the device x *when* it commits.
The same functions decide one instant for a policy and play a whole run for a rollout. What an
order or a rule looks up for each stage (`policies.list_tables`) comes as two tables. With
*insertion*, whole workflows are planned ahead: `policies.offline`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.cost import (
    drain_estimate,
    end_estimate,
    placement_end,
    prefill_seconds,
    prefix_hit_tokens,
    split_queries,
    strict_end_estimate,
    transfer_seconds,
)
from fate_gym.sim.engine import advance, commit, fork, reserve, to_decision
from fate_gym.sim.layout import (
    FIXED_STAGE,
    PLACED,
    READY,
    TOOL_STAGE,
    Array,
    Buffer,
    Log,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)

FCFS, UPWARD_RANK, MIN_MIN, MAX_MIN, SUFFERAGE, DYNAMIC_LEVEL, PRIORITY, FDWS, RANK_HYBD = range(9)
STRICT, STATE = 0, 1
NO_PRIORITY: Array = np.zeros(0)
NO_PENALTY: Array = np.zeros((0, 0))


class Rules(NamedTuple):
    """What makes one list scheduler differ from another.

    Attributes:
        order: which stage chooses next. A list, made once an instant:
            ``FCFS`` (time ready), ``UPWARD_RANK`` (largest first), ``PRIORITY`` (largest of the
            table), ``FDWS`` (rounds of each workflow's best, by remaining share and critical
            path), ``RANK_HYBD`` (smallest upward rank; largest once one workflow is left).
            Or renewed after each choice, from every stage's earliest finish: ``MIN_MIN``
            (smallest), ``MAX_MIN`` (largest), ``SUFFERAGE`` (whose second best device is worst),
            ``DYNAMIC_LEVEL`` (largest priority less finish).
        rule: ``STRICT`` minimises the classical earliest finish (queue, transfer, clean cost),
            ``STATE`` the estimated finish in the state (residency and caches included).
        lazy: 1 commits only what starts at once and plans the rest anew at the next event;
            0 commits every ready stage to a queue.
        shards: devices that may share one stage, at most. 1 with a penalty or looking ahead.
        ahead: 1 minimises the finish of the stage's children instead (lists only).
        priority: (S,) for ``PRIORITY`` and ``DYNAMIC_LEVEL``; empty otherwise.
        penalty: (S, D) seconds on top of the finish when devices are compared (lists only);
            empty: none.
    """

    order: int
    rule: int
    lazy: int
    shards: int
    ahead: int = 0
    priority: Array = NO_PRIORITY
    penalty: Array = NO_PENALTY


class Choices(NamedTuple):
    """Room for the assignments of one instant. R: at least the ready stages; K shards."""

    stage: Array  # (R,)
    width: Array  # (R,) devices used
    devices: Array  # (R, K)
    counts: Array  # (R, K) queries of each


def make_choices(stages: int, shards: int) -> Choices:
    """Room for ``stages`` assignments."""
    return Choices(
        np.zeros(stages, np.int64),
        np.zeros(stages, np.int64),
        np.zeros((stages, shards), np.int64),
        np.zeros((stages, shards), np.int64),
    )


@inlined
def device_ends(p: ProblemView, st: StateView, s: int, rule: int, ends: Array) -> None:
    """Fill ``ends`` (D,) with the finish of stage ``s`` on each device, by the rule."""
    for d in range(ends.size):
        if rule == STRICT:
            ends[d] = strict_end_estimate(p, st, s, d)
        else:
            ends[d] = end_estimate(p, st, s, d)


@inlined
def compared_ends(
    p: ProblemView, st: StateView, s: int, rules: Rules, ends: Array, free: Array
) -> None:
    """Fill ``ends`` (D,) with what the rules compare devices by. ``free`` (2, D) is scratch."""
    device_ends(p, st, s, rules.rule, ends)
    if rules.ahead and p.stages[s].children_from < p.stages[s].children_to:
        _look_ahead(p, st, s, rules.rule, ends, free)
    if rules.penalty.size > 0:
        for d in range(ends.size):
            ends[d] += rules.penalty[s, d]


@inlined
def _look_ahead(p: ProblemView, st: StateView, s: int, rule: int, ends: Array, free: Array) -> None:
    """Replace each finish of ``s`` by the latest tentative finish of its children after it.

    The children choose by upward rank, each the device where it ends first. Of their other
    parents they know what has been placed so far.
    """
    first, last = p.stages[s].children_from, p.stages[s].children_to
    rank = np.empty(last - first)
    for j in range(first, last):
        rank[j - first] = -p.stages[p.edges[p.out_edges[j]].child].upward_rank
    order = np.argsort(rank, kind="mergesort")
    number = ends.size
    now = st.head[0].now
    others = np.empty((order.size, number))  # transfers from other parents
    run = np.empty((order.size, number))  # load and execution in the state now
    own = np.empty((order.size, number))  # the same behind `s` on that device
    for i in range(order.size):
        edge = p.edges[p.out_edges[first + order[i]]]
        c = edge.child
        if p.stages[c].kind == TOOL_STAGE:
            continue
        for q in range(number):
            run[i, q] = p.clean_seconds[c, q]
            if run[i, q] == np.inf:
                continue
            when = drain_estimate(p, st, q) if p.head[0].contention else now
            others[i, q], _ = transfer_seconds(p, st, c, q, 1.0, when)
            own[i, q] = run[i, q]
            if rule == STATE and p.stages[c].kind != FIXED_STAGE:
                run[i, q], own[i, q] = _child_seconds(p, st, s, c, q, edge.inherited_tokens)
    for q in range(number):
        free[0, q] = drain_estimate(p, st, q)
    for d in range(number):
        if ends[d] == np.inf:
            continue
        end = ends[d]
        free[1] = free[0]
        free[1, d] = end
        latest = end
        for i in range(order.size):
            edge = p.edges[p.out_edges[first + order[i]]]
            if p.stages[edge.child].kind == TOOL_STAGE:
                latest = max(latest, end + p.stages[edge.child].tool_seconds)
                continue
            best, where = np.inf, -1
            for q in range(number):
                if run[i, q] == np.inf:
                    continue
                transfer = 0.0
                if edge.bytes > 0.0 and q != d:
                    transfer = p.link_latency[d, q] + edge.bytes / p.link_bandwidth[d, q]
                seconds = own[i, q] if q == d else run[i, q]
                if p.head[0].eager:
                    child_end = max(free[1, q], end + transfer, now + others[i, q]) + seconds
                else:
                    child_end = max(free[1, q], end) + max(transfer, others[i, q]) + seconds
                if child_end < best:
                    best, where = child_end, q
            if where >= 0:  # not all of its hosts are down
                free[1, where] = best
                latest = max(latest, best)
        ends[d] = latest


@inlined
def _child_seconds(
    p: ProblemView, st: StateView, s: int, c: int, q: int, inherited: int
) -> tuple[float, float]:
    """Load, prefill and decode of child ``c`` on ``q``: in the state now, and behind ``s``."""
    stage = p.stages[c]
    load = 0.0 if st.resident[q, stage.model] else p.load_seconds[stage.model, q]
    decode = p.decode_seconds[c, q]
    n = int(stage.queries)
    hit = prefix_hit_tokens(p, st, c, q)
    now = load + decode + prefill_seconds(p, c, q, n, hit, 0.0)
    if p.stages[s].model != stage.model:
        return now, now
    if stage.prefix >= 0 and stage.prefix == p.stages[s].prefix:
        hit = max(hit, float(min(stage.prefix_tokens, p.stages[s].prefix_tokens)))
    return now, decode + prefill_seconds(p, c, q, n, hit, float(inherited))


@inlined
def best_placement(
    p: ProblemView,
    st: StateView,
    s: int,
    shards: int,
    ends: Array,
    devices: Array,
    counts: Array,
) -> tuple[int, float]:
    """The placement with the earliest finish: (number of devices, finish).

    ``ends`` holds the finish on each single device; it is used up. Wider placements take the
    earliest finishers. ``devices`` and ``counts`` (K,) receive the placement.
    """
    first = np.argmin(ends)
    best_end = ends[first]
    devices[0] = first
    queries = p.stages[s].queries
    counts[0] = queries
    width = 1
    most = min(shards, queries)
    if most == 1:
        return width, best_end
    return _wider(p, st, s, most, best_end, ends, devices, counts)


@compiled
def _wider(
    p: ProblemView,
    st: StateView,
    s: int,
    most: int,
    best_end: float,
    ends: Array,
    devices: Array,
    counts: Array,
) -> tuple[int, float]:
    """The best of the placements on 2..most devices, if it is better than ``best_end``."""
    width = 1
    first = devices[0]
    chosen = np.empty(most, np.int64)
    dealt = np.empty(most, np.int64)
    chosen[0] = first
    for k in range(2, most + 1):
        ends[chosen[k - 2]] = np.inf
        chosen[k - 1] = np.argmin(ends)
        if ends[chosen[k - 1]] == np.inf:
            break
        split_queries(p, s, chosen, k, dealt)
        end = placement_end(p, st, s, chosen, dealt, k)
        if end < best_end:
            best_end = end
            width = k
            devices[:k] = chosen[:k]
            counts[:k] = dealt[:k]
    return width, best_end


@inlined
def ready_order(p: ProblemView, st: StateView, order: int) -> Array:
    """The ready stages in the order in which they choose."""
    count = st.head[0].ready
    stages = np.empty(count, np.int64)
    if order == FCFS:
        for i in range(count):
            stages[i] = st.ready[i]
        return stages
    found = 0
    for i in range(p.by_rank.size):
        if found == count:
            break
        if st.stages[p.by_rank[i]].status == READY:
            stages[found] = p.by_rank[i]
            found += 1
    return stages


@inlined
def _occupy(
    problem: Buffer,
    state: Buffer,
    log: Log,
    rules: Rules,
    s: int,
    devices: Array,
    counts: Array,
    width: int,
) -> None:
    """Place stage ``s`` in the state in which an instant is planned."""
    p = problem_view(problem)
    st = state_view(state, p)
    d = devices[0]
    end = strict_end_estimate(p, st, s, d)
    if rules.lazy:
        reserve(problem, state, log, s, devices, counts, width)
    else:
        commit(problem, state, log, s, devices, counts, width)
    if rules.rule == STRICT and width == 1:
        # Who does not see residency and caches does not see what they do to the queue either.
        st.devices[d].drains_at = end


@inlined
def choice_order(p: ProblemView, st: StateView, rules: Rules) -> Array:
    """The ready stages in the order in which they choose, for the orders that are lists."""
    if rules.order == FCFS or rules.order == UPWARD_RANK:
        return ready_order(p, st, rules.order)
    stages = ready_order(p, st, FCFS)
    if rules.order == PRIORITY:
        return stages[np.argsort(-rules.priority[stages], kind="mergesort")]
    if rules.order == RANK_HYBD:
        return _rank_hybd(p, ready_order(p, st, UPWARD_RANK))
    return _fdws(p, st, ready_order(p, st, UPWARD_RANK))


@inlined
def _rank_hybd(p: ProblemView, by_rank: Array) -> Array:
    """Smallest rank first while several workflows have ready stages, then largest first."""
    single = by_rank.size  # by_rank[:single] are of one workflow
    for i in range(by_rank.size):
        if p.stages[by_rank[i]].workflow != p.stages[by_rank[0]].workflow:
            single = i
            break
    stages = np.empty(by_rank.size, np.int64)
    rest = by_rank.size - single
    for i in range(rest):
        stages[i] = by_rank[by_rank.size - 1 - i]
    stages[rest:] = by_rank[:single]
    return stages


@inlined
def _fdws(p: ProblemView, st: StateView, by_rank: Array) -> Array:
    """Rounds: of each workflow its best-ranked ready stage; the workflow nearest its end first.

    Workflows are compared by 1/(share of stages left) x 1/(critical path).
    """
    flows = p.workflows.size
    left = np.zeros(flows)
    taken = np.zeros(by_rank.size, np.bool_)
    seen = np.zeros(flows, np.bool_)
    for i in range(by_rank.size):
        w = p.stages[by_rank[i]].workflow
        if left[w] == 0.0:
            for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
                left[w] += st.stages[s].status < PLACED
    stages = np.empty(by_rank.size, np.int64)
    done = 0
    while done < by_rank.size:
        seen[:] = False
        begin = done
        for i in range(by_rank.size):
            w = p.stages[by_rank[i]].workflow
            if not taken[i] and not seen[w]:
                taken[i] = seen[w] = True
                stages[done] = by_rank[i]
                done += 1
        key = np.empty(done - begin)
        for i in range(begin, done):
            w = p.stages[stages[i]].workflow
            first, last = p.workflows[w].stages_from, p.workflows[w].stages_to
            path = 0.0
            for s in range(first, last):
                path = max(path, p.stages[s].upward_rank)
            key[i - begin] = left[w] / (last - first) * path
            left[w] -= 1.0
        stages[begin:done] = stages[begin:done][np.argsort(key, kind="mergesort")]
    return stages


@compiled
def decide_instant(problem: Buffer, state: Buffer, log: Log, rules: Rules, choices: Choices) -> int:
    """Place ready stages in a state and note the choices.

    The state is a scratch one when lazy or strict: then it is not what commits make of it.

    Returns how many of the choices count: all placed stages, or with ``lazy`` those that start
    at once (stages that are planned for later still keep others from taking their device).
    """
    if MIN_MIN <= rules.order <= DYNAMIC_LEVEL:
        return _renewed(problem, state, log, rules, choices)
    p = problem_view(problem)
    st = state_view(state, p)
    idle = 0
    for d in range(p.devices.size):
        idle += st.devices[d].queue_head < 0
    noted = 0
    if rules.lazy and idle == 0:
        return noted
    ends = np.empty(p.devices.size)
    free = np.empty((2, p.devices.size))
    stages = choice_order(p, st, rules)
    for i in range(stages.size):
        if rules.lazy and idle == 0:
            break
        s = stages[i]
        compared_ends(p, st, s, rules, ends, free)
        devices, counts = choices.devices[noted], choices.counts[noted]
        width, _ = best_placement(p, st, s, rules.shards, ends, devices, counts)
        # Not by the estimate: a shard that takes longer than expected still holds its device.
        at_once = True
        for k in range(width):
            if st.devices[devices[k]].queue_head < 0:
                idle -= 1
            else:
                at_once = False
        choices.stage[noted] = s
        choices.width[noted] = width
        _occupy(problem, state, log, rules, s, devices, counts, width)
        noted += at_once or not rules.lazy
    return noted


@inlined
def _key(rules: Rules, s: int, ends: Array) -> float:
    """What the renewed orders compare stages by; the largest is next. ``ends`` is (D,)."""
    first = second = np.inf
    for d in range(ends.size):
        if ends[d] < first:
            first, second = ends[d], first
        elif ends[d] < second:
            second = ends[d]
    if rules.order == MIN_MIN:
        return -first
    if rules.order == MAX_MIN:
        return first
    if rules.order == SUFFERAGE:
        # A stage that only one device can run suffers most; among those, the first to end.
        return second - first if second < np.inf else np.inf
    return rules.priority[s] - first


@compiled
def _renewed(problem: Buffer, state: Buffer, log: Log, rules: Rules, choices: Choices) -> int:
    """`decide_instant` for the orders that are renewed after each choice."""
    p = problem_view(problem)
    st = state_view(state, p)
    idle = 0
    for d in range(p.devices.size):
        idle += st.devices[d].queue_head < 0
    noted = 0
    if rules.lazy and idle == 0:
        return noted
    stages = ready_order(p, st, FCFS)
    count = stages.size
    ends = np.empty((count, p.devices.size))
    key = np.empty(count)
    for i in range(count):
        device_ends(p, st, stages[i], rules.rule, ends[i])
        key[i] = _key(rules, stages[i], ends[i])
    left = np.ones(count, np.bool_)
    scratch = np.empty(p.devices.size)
    for _ in range(count):
        if rules.lazy and idle == 0:
            break
        best = -1
        for i in range(count):
            if left[i] and (best < 0 or key[i] > key[best]):
                best = i
        left[best] = False
        s = stages[best]
        devices, counts = choices.devices[noted], choices.counts[noted]
        scratch[:] = ends[best]
        width, _ = best_placement(p, st, s, rules.shards, scratch, devices, counts)
        at_once = True
        for k in range(width):
            if st.devices[devices[k]].queue_head < 0:
                idle -= 1
            else:
                at_once = False
        choices.stage[noted] = s
        choices.width[noted] = width
        _occupy(problem, state, log, rules, s, devices, counts, width)
        for i in range(count):
            if left[i]:
                for k in range(width):
                    d = devices[k]
                    if rules.rule == STRICT:
                        ends[i, d] = strict_end_estimate(p, st, stages[i], d)
                    else:
                        ends[i, d] = end_estimate(p, st, stages[i], d)
                key[i] = _key(rules, stages[i], ends[i])
        noted += at_once or not rules.lazy
    return noted


@compiled
def play(
    problem: Buffer, state: Buffer, log: Log, rules: Rules, choices: Choices, scratch: Buffer
) -> float:
    """Play a state to the end of what is known; returns the last end.

    The same as `Simulator.run` with a `policies.list_scheduling.ListScheduler` of these rules.
    ``scratch`` is room for another state.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    unlogged = Log(log.shards[:0], log.evictions[:0])
    while to_decision(p, st, log):
        if not rules.lazy and rules.rule == STATE and not st.head[0].noisy:
            decide_instant(problem, state, log, rules, choices)
            continue
        # Decide on what is expected and commit; a lazy scheduler then waits for the next event.
        scratch[:] = state
        fork(p, st, state_view(scratch, p))
        noted = decide_instant(problem, scratch, unlogged, rules, choices)
        for i in range(noted):
            commit(
                problem,
                state,
                log,
                choices.stage[i],
                choices.devices[i],
                choices.counts[i],
                choices.width[i],
            )
        if rules.lazy:
            advance(problem, state, log)
    return st.head[0].last_end
