"""List scheduling, compiled: one parametric core under EFT, Min-Min, HEFT and the planners.

A list scheduler is an *order* over ready stages x a *rule* for the device x *when* it commits.
The same functions decide one instant for a policy and play a whole run for a rollout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.cost import (
    end_estimate,
    placement_end,
    split_queries,
    strict_end_estimate,
)
from fate_gym.sim.engine import advance, commit, fork, reserve, to_decision
from fate_gym.sim.layout import (
    READY,
    Array,
    Buffer,
    Log,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)

FCFS, UPWARD_RANK, MIN_MIN = 0, 1, 2
STRICT, STATE = 0, 1


class Rules(NamedTuple):
    """What makes one list scheduler differ from another.

    Attributes:
        order: ``FCFS`` (time ready), ``UPWARD_RANK`` (largest first) or ``MIN_MIN`` (smallest
            earliest finish first, renewed after each choice).
        rule: ``STRICT`` minimises the classical earliest finish (queue, transfer, clean cost),
            ``STATE`` the estimated finish in the state (residency and caches included).
        lazy: 1 commits only what starts at once and plans the rest anew at the next event;
            0 commits every ready stage to a queue.
        shards: devices that may share one stage, at most.
    """

    order: int
    rule: int
    lazy: int
    shards: int


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


@compiled
def decide_instant(problem: Buffer, state: Buffer, log: Log, rules: Rules, choices: Choices) -> int:
    """Place ready stages in ``st`` (a scratch state when lazy) and note the choices.

    Returns how many of the choices count: all placed stages, or with ``lazy`` those that start
    at once (stages that are planned for later still keep others from taking their device).
    """
    if rules.order == MIN_MIN:
        return _min_min(problem, state, log, rules, choices)
    p = problem_view(problem)
    st = state_view(state, p)
    idle = 0
    for d in range(p.devices.size):
        idle += st.devices[d].queue_head < 0
    noted = 0
    if rules.lazy and idle == 0:
        return noted
    ends = np.empty(p.devices.size)
    stages = ready_order(p, st, rules.order)
    for i in range(stages.size):
        if rules.lazy and idle == 0:
            break
        s = stages[i]
        device_ends(p, st, s, rules.rule, ends)
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
        if rules.lazy:
            reserve(problem, state, log, s, devices, counts, width)
        else:
            commit(problem, state, log, s, devices, counts, width)
        noted += at_once or not rules.lazy
    return noted


@compiled
def _min_min(problem: Buffer, state: Buffer, log: Log, rules: Rules, choices: Choices) -> int:
    p = problem_view(problem)
    st = state_view(state, p)
    stages = ready_order(p, st, FCFS)
    count = stages.size
    ends = np.empty((count, p.devices.size))
    for i in range(count):
        device_ends(p, st, stages[i], rules.rule, ends[i])
    left = np.ones(count, np.bool_)
    noted = 0
    scratch = np.empty(p.devices.size)
    for _ in range(count):
        best = -1
        best_end = np.inf
        for i in range(count):
            if left[i]:
                end = ends[i].min()
                if best < 0 or end < best_end:
                    best, best_end = i, end
        left[best] = False
        s = stages[best]
        devices, counts = choices.devices[noted], choices.counts[noted]
        scratch[:] = ends[best]
        width, _ = best_placement(p, st, s, rules.shards, scratch, devices, counts)
        at_once = True
        for k in range(width):
            at_once = at_once and st.devices[devices[k]].queue_head < 0
        choices.stage[noted] = s
        choices.width[noted] = width
        if rules.lazy:
            reserve(problem, state, log, s, devices, counts, width)
        else:
            commit(problem, state, log, s, devices, counts, width)
        for i in range(count):
            if left[i]:
                for k in range(width):
                    d = devices[k]
                    if rules.rule == STRICT:
                        ends[i, d] = strict_end_estimate(p, st, stages[i], d)
                    else:
                        ends[i, d] = end_estimate(p, st, stages[i], d)
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
        if not rules.lazy and not st.head[0].noisy:
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
