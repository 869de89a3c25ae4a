"""Looks for better plans: orders for list schedules, candidates of the frontier, local search.

Everything is valued by playing it (`policies.fate.player`); a better plan replaces the best one,
so the value of the best plan never gets worse.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.cost import end_estimate, split_queries
from fate_gym.sim.engine import next_event_time
from fate_gym.sim.layout import (
    DONE,
    PLACED,
    TOOL_STAGE,
    Array,
    Buffer,
    Log,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)
from policies.fate.plans import DeskView, PlanView, desk_view, plan_view
from policies.fate.player import EQUAL, MAKESPAN, Style, hosts, play, release

RANK, FCFS, REMAINING, SLACK, STRETCH = 0, 1, 2, 3, 4
"""Orders of the list schedules that plans begin with."""


@compiled
def order_stages(problem: Buffer, state: Buffer, plan_: Buffer, desk: Buffer, order: int) -> None:
    """Fill the keys of all stages that are not placed.

    ``RANK``: largest upward rank. ``FCFS``: workflows by arrival, ranks inside. ``REMAINING``:
    workflows by what is left of them, ranks inside. ``SLACK``: by the latest time at which the
    stage may start if its workflow is to take twice as long as it would alone. ``STRETCH``: by
    (waited + left) / alone, largest first, ranks inside.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    wk = desk_view(desk, p)
    now = st.head[0].now
    longest = 1e-9
    for s in range(p.stages.size):
        longest = max(longest, p.stages[s].upward_rank)
    for w in range(p.workflows.size):
        workflow = p.workflows[w]
        if workflow.arrival > now:
            continue
        left, rank = 0.0, 0.0
        for s in range(workflow.stages_from, workflow.stages_to):
            if st.stages[s].status < PLACED:
                left += p.stages[s].mean_seconds
                rank = max(rank, p.stages[s].upward_rank)
        ideal = wk.workflows[w].ideal
        for s in range(workflow.stages_from, workflow.stages_to):
            if st.stages[s].status >= PLACED:
                continue
            own = p.stages[s].upward_rank
            inside = 0.5 * own / longest
            if order == RANK:
                key = -own
            elif order == FCFS:
                key = workflow.arrival - inside * 1e-3
            elif order == REMAINING:
                key = left - inside * 1e-3
            elif order == SLACK:
                key = workflow.arrival + 2.0 * ideal - own
            else:
                key = -(now - workflow.arrival + rank) / max(ideal, 1e-9) - inside * 1e-3
            plan.stages[s].key = key


@compiled
def value_of(
    problem: Buffer,
    forks: Array,
    state: Buffer,
    log: Log,
    plan_: Buffer,
    desk: Buffer,
    style: Style,
    bound: float,
) -> float:
    """The objective of a plan, played on the expected fork, which completes it.

    With more forks, ``forks[1:]`` (N, bytes), whose futures are drawn: their mean. There stages
    without devices choose in each future anew, by what is known in it then, and the plan is left
    as it is: what is valued is the list schedule as a policy, behind the placements that the plan
    fixes (rollout; Bertsekas & Castanon 1999, doi 10.1023/A:1009634810396).
    """
    count = forks.shape[0] - 1
    if count == 0:
        state[:] = forks[0]
        return play(problem, state, log, plan_, desk, style, bound)
    waits = _starts_nothing(problem, forks[0], plan_)
    copy = np.empty_like(plan_)
    total = 0.0
    for i in range(1, count + 1):
        copy[:] = plan_
        # Times of the plan are those of the expected fork, whose events come at others.
        release(problem, copy)
        if waits:
            _wait(problem, forks[i], copy)
        state[:] = forks[i]
        value = play(problem, state, log, copy, desk, style, bound * count - total)
        if value == np.inf:
            return value
        total += value
    return total / count


@compiled
def _starts_nothing(problem: Buffer, state: Buffer, plan_: Buffer) -> bool:
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    for i in range(st.head[0].ready):
        if plan.stages[st.ready[i]].not_before <= st.head[0].now:
            return False
    return True


@compiled
def _wait(problem: Buffer, state: Buffer, plan_: Buffer) -> None:
    """No ready stage starts before the next event, if one lies ahead."""
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    time = next_event_time(p, st)
    if time == np.inf:
        return
    for i in range(st.head[0].ready):
        plan.stages[st.ready[i]].not_before = time


# --- candidates of the frontier --------------------------------------------------------------


class Candidates(NamedTuple):
    """Placements of ready stages on idle devices, each with the value of what follows. C rows.

    A row with width 0 is to wait: nothing of the frontier starts before the next event.
    """

    stage: Array  # (C,)
    width: Array  # (C,)
    devices: Array  # (C, K)
    counts: Array  # (C, K)
    value: Array  # (C,)


def make_candidates(rows: int, shards: int) -> Candidates:
    """Room for candidates."""
    return Candidates(
        np.zeros(rows, np.int64),
        np.zeros(rows, np.int64),
        np.zeros((rows, shards), np.int64),
        np.zeros((rows, shards), np.int64),
        np.zeros(rows),
    )


@compiled
def list_candidates(
    problem: Buffer,
    state: Buffer,
    plan_: Buffer,
    kinds: int,
    places: int,
    shards: int,
    found: Candidates,
) -> int:
    """The candidates of the first ``kinds`` kinds of ready stages, by the plan's keys.

    Of placements that are alike (same end, same clean time, same residency) one is kept.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    ready = st.head[0].ready
    keys = np.empty(ready)
    for i in range(ready):
        keys[i] = plan.stages[st.ready[i]].key
    order = np.argsort(keys, kind="mergesort")
    seen = np.empty(kinds, np.int64)
    ends = np.empty(p.devices.size)
    some = np.empty(p.devices.size, np.int64)
    taken, count = 0, 0
    for i in range(ready):
        if taken == kinds:
            break
        s = st.ready[order[i]]
        new = True
        for j in range(taken):
            new = new and not _of_a_kind(p, seen[j], s)
        if not new:
            continue
        seen[taken] = s
        taken += 1
        for d in range(p.devices.size):
            ends[d] = np.inf
            if st.devices[d].queue_head < 0 and hosts(p, s, d):
                ends[d] = end_estimate(p, st, s, d)
        by_end = np.argsort(ends, kind="mergesort")
        kept = 0
        idle = 0
        model = p.stages[s].model
        for j in range(by_end.size):
            d = by_end[j]
            if ends[d] == np.inf:
                break
            idle += 1
            alike = False
            for k in range(kept):
                e = some[k]
                alike = alike or (
                    ends[e] == ends[d]
                    and p.clean_seconds[s, e] == p.clean_seconds[s, d]
                    and (model < 0 or (st.resident[e, model] > 0) == (st.resident[d, model] > 0))
                )
            if alike or kept == places or count == found.stage.size - 1:
                continue
            some[kept] = d
            kept += 1
            found.stage[count] = s
            found.width[count] = 1
            found.devices[count, 0] = d
            found.counts[count, 0] = p.stages[s].queries
            count += 1
        most = min(shards, p.stages[s].queries)
        for k in range(2, min(most, idle) + 1):
            if count == found.stage.size - 1:
                break
            found.stage[count] = s
            found.width[count] = k
            found.devices[count, :k] = by_end[:k]
            split_queries(p, s, found.devices[count], k, found.counts[count])
            count += 1
    if next_event_time(p, st) < np.inf:
        found.stage[count] = -1
        found.width[count] = 0
        count += 1
    return count


@inlined
def _of_a_kind(p: ProblemView, a: int, b: int) -> bool:
    """The same model and prefix; of stages without a model, the same seconds everywhere."""
    if p.stages[a].model != p.stages[b].model or p.stages[a].prefix != p.stages[b].prefix:
        return False
    if p.stages[a].model < 0:
        for d in range(p.devices.size):
            if p.clean_seconds[a, d] != p.clean_seconds[b, d]:
                return False
    return True


@compiled
def value_candidates(
    problem: Buffer,
    forks: Array,
    state: Buffer,
    log: Log,
    base: Buffer,
    trial: Buffer,
    best: Buffer,
    desk: Buffer,
    style: Style,
    found: Candidates,
    count: int,
    bound: float,
    most_work: int,
) -> int:
    """Value the candidates: each goes first, the list schedule of ``base`` follows.

    ``best`` becomes the best plan found, if it is better than ``bound``. inf: not better than
    ``bound``, or not tried since the work was done. Returns the row of the
    best, -1: none is better.
    """
    p = problem_view(problem)
    wk = desk_view(desk, p)
    first = wk.head[0].work
    chosen = -1
    value = bound * (1.0 - EQUAL)
    for c in range(count):
        found.value[c] = np.inf
        if wk.head[0].work - first > most_work:
            continue
        trial[:] = base
        fix_candidate(problem, forks[0], trial, found, c)
        found.value[c] = value_of(problem, forks, state, log, trial, desk, style, bound)
        if found.value[c] < value:
            value = found.value[c]
            best[:] = trial
            chosen = c
    return chosen


@compiled
def fix_candidate(problem: Buffer, state: Buffer, plan_: Buffer, found: Candidates, c: int) -> None:
    """Put a candidate in front of a plan."""
    p = problem_view(problem)
    plan = plan_view(plan_, p)
    width = found.width[c]
    if width == 0:
        _wait(problem, state, plan_)
        return
    s = found.stage[c]
    plan.stages[s].width = width
    plan.stages[s].key = float(c) - 1e9
    plan.stages[s].not_before = 0.0
    for k in range(width):
        plan.devices[s, k] = found.devices[c, k]
        plan.counts[s, k] = found.counts[c, k]


@inlined
def _random(wk: DeskView) -> float:
    """Uniform in [0, 1): xorshift64*."""
    x = wk.head[0].random
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    wk.head[0].random = x
    return np.float64((x * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(11)) / 9007199254740992.0


@inlined
def _pick(wk: DeskView, count: int) -> int:
    return min(count - 1, int(_random(wk) * count))


# --- biased list schedules -------------------------------------------------------------------


@compiled
def clear_biases(problem: Buffer, desk: Buffer, shards: int) -> None:
    """No biases, no shifts; ``shards`` devices for every kind."""
    p = problem_view(problem)
    wk = desk_view(desk, p)
    for k in range(wk.head[0].kinds):
        wk.stages[k].shift = 0.0
        wk.stages[k].spread = shards
        wk.bias[k, :] = 0.0
    for w in range(p.workflows.size):
        wk.workflows[w].shift = 0.0


@compiled
def shift_keys(problem: Buffer, state: Buffer, plan_: Buffer, desk: Buffer) -> None:
    """Add the shifts of kinds and workflows to the keys of stages that are not placed."""
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    wk = desk_view(desk, p)
    for s in range(p.stages.size):
        if st.stages[s].status < PLACED:
            plan.stages[s].key += wk.stages[wk.stages[s].kind].shift
            plan.stages[s].key += wk.workflows[p.stages[s].workflow].shift


@compiled
def _lean(problem: Buffer, desk: Buffer, scale: float, span: float, s: int, shards: int) -> None:
    """One random change of biases, shifts or spreads, for the kind or the model of stage ``s``."""
    p = problem_view(problem)
    wk = desk_view(desk, p)
    kind = wk.stages[s].kind
    d = _pick(wk, p.devices.size)
    move = _random(wk)
    if move < 0.30:
        # Not on this device, or not only elsewhere any more.
        wk.bias[kind, d] = 0.0 if wk.bias[kind, d] > 0.0 else scale * 4.0 * _random(wk)
    elif move < 0.45:
        wk.bias[kind, d] = scale * (2.0 * _random(wk) - 1.0)
    elif move < 0.60:
        # The device for this kind alone.
        for k in range(wk.head[0].kinds):
            if k != kind:
                wk.bias[k, d] += scale
        wk.bias[kind, d] = 0.0
    elif move < 0.70:
        for k in range(wk.head[0].kinds):
            wk.bias[k, d] = 0.0
    elif move < 0.75:
        wk.bias[kind, :] = 0.0
    elif move < 0.90 or shards < 2:
        if p.workflows.size > 1 and _random(wk) < 0.6:
            wk.workflows[p.stages[s].workflow].shift += span * (2.0 * _random(wk) - 1.0)
        else:
            wk.stages[kind].shift += span * (2.0 * _random(wk) - 1.0)
    else:
        wk.stages[kind].spread = 1 + _pick(wk, shards)


@compiled
def tune(
    problem: Buffer,
    forks: Array,
    state: Buffer,
    log: Log,
    base: Buffer,
    trial: Buffer,
    best: Buffer,
    desk: Buffer,
    style: Style,
    value: float,
    most_work: int,
    heat: float,
) -> float:
    """Change the biases of a list schedule as long as that helps; returns the best value.

    ``base`` holds the keys, without shifts; ``best`` becomes the plan of the best schedule if its
    value is below ``value``. The desk keeps the biases of the current schedule.
    """
    p = problem_view(problem)
    first = state_view(forks[0], p)
    wk = desk_view(desk, p)
    plan = plan_view(base, p)
    head = wk.head[0]
    start = head.work
    left = 0
    low, high, scale = np.inf, -np.inf, 0.0
    for s in range(p.stages.size):
        known = p.workflows[p.stages[s].workflow].arrival <= first.head[0].now
        if known and first.stages[s].status < PLACED and p.stages[s].kind != TOOL_STAGE:
            wk.movable[left] = s
            left += 1
            low, high = min(low, plan.stages[s].key), max(high, plan.stages[s].key)
            scale += p.stages[s].mean_seconds
    if left == 0:
        return value
    scale /= left
    span = 0.5 * (high - low) + 1e-9
    shards = min(style.shards, p.head[0].max_shards)
    trial[:] = base
    shift_keys(problem, forks[0], trial, desk)
    current = value_of(problem, forks, state, log, trial, desk, style, np.inf)
    second = head.second
    if current < value:
        value = current
        best[:] = trial
    kept = wk.stages.copy()
    biases = wk.bias[: head.kinds].copy()
    shifts = wk.workflows.copy()
    while head.work - start < most_work:
        for _ in range(1 + int(3.0 * _random(wk) * _random(wk))):
            _lean(problem, desk, scale, span, wk.movable[_pick(wk, left)], shards)
        trial[:] = base
        shift_keys(problem, forks[0], trial, desk)
        done = (head.work - start) / most_work
        slack = heat * (1.0 - done) * (-np.log(1.0 - _random(wk)) if heat > 0.0 else 0.0)
        bound = current * (1.0 + slack + EQUAL) if current > 0.0 else current + EQUAL
        found = value_of(problem, forks, state, log, trial, desk, style, bound)
        better = found < current - EQUAL * abs(current)
        if found <= bound and (better or slack > 0.0 or head.second <= second):
            current, second = found, head.second
            for k in range(head.kinds):
                kept[k].shift = wk.stages[k].shift
                kept[k].spread = wk.stages[k].spread
                biases[k] = wk.bias[k]
            for w in range(p.workflows.size):
                shifts[w].shift = wk.workflows[w].shift
            if found < value:
                value = found
                best[:] = trial
        else:
            for k in range(head.kinds):
                wk.stages[k].shift = kept[k].shift
                wk.stages[k].spread = kept[k].spread
                wk.bias[k] = biases[k]
            for w in range(p.workflows.size):
                wk.workflows[w].shift = shifts[w].shift
    return value


# --- local search ----------------------------------------------------------------------------


@compiled
def find_movable(problem: Buffer, state: Buffer, plan_: Buffer, desk: Buffer) -> int:
    """The known stages that are planned and not placed, into ``movable``."""
    p = problem_view(problem)
    st = state_view(state, p)
    plan = plan_view(plan_, p)
    wk = desk_view(desk, p)
    count = 0
    for s in range(p.stages.size):
        if (
            plan.stages[s].width > 0
            and st.stages[s].status < PLACED
            and p.stages[s].kind != TOOL_STAGE
            and p.workflows[p.stages[s].workflow].arrival <= st.head[0].now
        ):
            wk.movable[count] = s
            count += 1
    return count


@compiled
def _critical(
    problem: Buffer, begun: Buffer, ended: Buffer, desk: Buffer, style: Style, movable: int
) -> int:
    """Movable stages that decide when the last one ends, by walking back from it, into ``path``.

    What holds a stage up is the stage before it on its device, or else its last parent.
    """
    p = problem_view(problem)
    first = state_view(begun, p)
    st = state_view(ended, p)
    wk = desk_view(desk, p)
    last, end = -1, -1.0
    workflow = -1
    if style.objective != MAKESPAN:
        workflow = p.stages[wk.movable[_pick(wk, movable)]].workflow
    for i in range(movable):
        s = wk.movable[i]
        if (workflow < 0 or p.stages[s].workflow == workflow) and st.stages[s].end > end:
            last, end = s, st.stages[s].end
    count = 0
    s = last
    while s >= 0 and first.stages[s].status < PLACED and count < movable:
        turn, device = st.stages[s].ready_at, -1
        if p.stages[s].kind != TOOL_STAGE:
            wk.path[count] = s
            count += 1
            latest = -1.0
            for k in range(st.stages[s].shards):
                slot = st.slots[s, k]
                if slot.start + slot.busy > latest:
                    latest = slot.start + slot.busy
                    turn, device = slot.start, slot.device
        before = -1
        if device >= 0 and turn > st.stages[s].ready_at + 1e-9:
            for i in range(movable):
                u = wk.movable[i]
                if u == s:
                    continue
                for k in range(st.stages[u].shards):
                    slot = st.slots[u, k]
                    if slot.device == device and abs(slot.start + slot.busy - turn) < 1e-6:
                        before = u
        else:
            latest = -1.0
            for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
                parent = p.edges[e].parent
                if st.stages[parent].end > latest:
                    latest = st.stages[parent].end
                    before = parent
        s = before
    return count


@inlined
def _some_host(p: ProblemView, wk: DeskView, s: int) -> int:
    """A device that can run ``s``: the faster of two at random."""
    best = -1
    for _ in range(2):
        d = _pick(wk, p.devices.size)
        for _ in range(p.devices.size):
            if hosts(p, s, d):
                break
            d = (d + 1) % p.devices.size
        if hosts(p, s, d) and (best < 0 or p.clean_seconds[s, d] < p.clean_seconds[s, best]):
            best = d
    return best


@inlined
def _move_to(p: ProblemView, plan: PlanView, s: int, d: int) -> None:
    plan.stages[s].width = 1
    plan.stages[s].not_before = 0.0
    plan.devices[s, 0] = d
    plan.counts[s, 0] = p.stages[s].queries


@compiled
def _spread(problem: Buffer, plan_: Buffer, desk: Buffer, s: int, shards: int) -> None:
    """Share ``s`` among its first device and some others, or take it back to one."""
    p = problem_view(problem)
    plan = plan_view(plan_, p)
    wk = desk_view(desk, p)
    most = min(shards, p.stages[s].queries)
    plan.stages[s].not_before = 0.0
    if plan.stages[s].width > 1 and _random(wk) < 0.4:
        _move_to(p, plan, s, plan.devices[s, _pick(wk, plan.stages[s].width)])
        return
    if most < 2:
        return
    wanted = 2 + _pick(wk, most - 1)
    width = 1
    for _ in range(4 * wanted):
        if width == wanted:
            break
        d = _some_host(p, wk, s)
        new = True
        for k in range(width):
            new = new and plan.devices[s, k] != d
        if new:
            plan.devices[s, width] = d
            width += 1
    plan.stages[s].width = width
    split_queries(p, s, plan.devices[s], width, plan.counts[s])


@compiled
def _change(
    problem: Buffer, plan_: Buffer, desk: Buffer, shards: int, movable: int, path: int
) -> None:
    """One random change of a plan."""
    p = problem_view(problem)
    plan = plan_view(plan_, p)
    wk = desk_view(desk, p)
    s = wk.movable[_pick(wk, movable)]
    if path > 0 and _random(wk) < 0.75:
        s = wk.path[_pick(wk, path)]
    t = wk.movable[_pick(wk, movable)]
    move = _random(wk)
    if move < 0.20:
        _move_to(p, plan, s, _some_host(p, wk, s))
    elif move < 0.36:
        # To a device that the plan uses for the same model.
        for _ in range(8):
            if p.stages[t].model == p.stages[s].model and t != s:
                break
            t = wk.movable[_pick(wk, movable)]
        d = plan.devices[t, 0]
        if hosts(p, s, d):
            _move_to(p, plan, s, d)
    elif move < 0.52:
        _spread(problem, plan_, desk, s, shards)
    elif move < 0.74:
        # Another turn: just before some stage, if one can be found on the same device.
        for _ in range(8):
            if plan.devices[t, 0] == plan.devices[s, 0] and t != s:
                break
            t = wk.movable[_pick(wk, movable)]
        plan.stages[s].key = plan.stages[t].key - 0.1 - 0.8 * _random(wk)
        plan.stages[s].not_before = 0.0
    elif move < 0.84:
        # All of a model, or of a prefix, from one device to another.
        a, b = plan.devices[s, 0], _some_host(p, wk, s)
        whole = _random(wk) < 0.5
        for i in range(movable):
            u = wk.movable[i]
            if (
                plan.stages[u].width == 1
                and plan.devices[u, 0] == a
                and p.stages[u].model == p.stages[s].model
                and (whole or p.stages[u].prefix == p.stages[s].prefix)
                and hosts(p, u, b)
            ):
                _move_to(p, plan, u, b)
    elif move < 0.94:
        a, b = plan.devices[s, 0], plan.devices[t, 0]
        if hosts(p, s, b) and hosts(p, t, a):
            _move_to(p, plan, s, b)
            _move_to(p, plan, t, a)
    else:
        # A whole workflow, or the path, earlier or later.
        by = (2.0 * _random(wk) - 1.2) * movable
        workflow = p.stages[s].workflow
        if p.workflows.size > 1:
            for i in range(movable):
                u = wk.movable[i]
                if p.stages[u].workflow == workflow:
                    plan.stages[u].key += by
                    plan.stages[u].not_before = 0.0
        else:
            for i in range(path):
                plan.stages[wk.path[i]].key -= abs(by)
                plan.stages[wk.path[i]].not_before = 0.0


@compiled
def improve(
    problem: Buffer,
    forks: Array,
    state: Buffer,
    ended: Buffer,
    log: Log,
    best: Buffer,
    trial: Buffer,
    desk: Buffer,
    style: Style,
    most_work: int,
    heat: float,
) -> float:
    """Change a complete plan as long as that helps; returns its value.

    Changes that leave the value as it is are kept when stages end earlier on the whole. With
    ``heat`` a change may make the plan worse by that share at first (late: by nothing), and
    ``best`` is the best plan seen.

    Args:
        problem: the problem.
        forks: (N, bytes) states to start from.
        state: room for a state.
        ended: room for another.
        log: not written to.
        best: the plan; replaced by better ones.
        trial: room for a plan; with ``heat`` another two are made.
        desk: the planner's desk.
        style: how plans are played.
        most_work: what all plays together may cost, see `policies.fate.plans.DESK_HEAD`.
        heat: 0: only improvements.
    """
    p = problem_view(problem)
    wk = desk_view(desk, p)
    head = wk.head[0]
    start = head.work
    value = value_of(problem, forks, state, log, best, desk, style, np.inf)
    second = head.second
    ended[:] = state
    movable = find_movable(problem, forks[0], best, desk)
    if movable == 0 or value == np.inf:
        return value
    current = best.copy()
    current_value, current_second = value, second
    path, since = 0, 0
    tries = 0
    shards = min(style.shards, p.head[0].max_shards)
    while head.work - start < most_work and tries < most_work:
        if since % 24 == 0:
            path = _critical(problem, forks[0], ended, desk, style, movable)
        since += 1
        tries += 1
        trial[:] = current
        _change(problem, trial, desk, shards, movable, path)
        if _random(wk) < 0.25:
            _change(problem, trial, desk, shards, movable, path)
        done = (head.work - start) / most_work
        slack = heat * (1.0 - done) * (-np.log(1.0 - _random(wk)) if heat > 0.0 else 0.0)
        bound = current_value * (1.0 + slack + EQUAL)
        if current_value < 0.0:
            bound = current_value + EQUAL
        found = value_of(problem, forks, state, log, trial, desk, style, bound)
        if found > bound:
            continue
        better = found < current_value - EQUAL * abs(current_value)
        if not better and slack == 0.0 and head.second >= current_second:
            continue
        current[:] = trial
        current_value, current_second = found, head.second
        ended[:] = state
        since = 0
        if found < value - EQUAL * abs(value) or (found <= value and current_second < second):
            value, second = found, current_second
            best[:] = trial
    return value


@compiled
def settled_workflows(problem: Buffer, state: Buffer, out: Array) -> None:
    """(W,) 1 for workflows that have arrived, 2 for those that have ended too."""
    p = problem_view(problem)
    st = state_view(state, p)
    for w in range(p.workflows.size):
        workflow = p.workflows[w]
        out[w] = 0
        if workflow.arrival <= st.head[0].now:
            out[w] = 2
            for s in range(workflow.stages_from, workflow.stages_to):
                if st.stages[s].status != DONE:
                    out[w] = 1


__all__ = [
    "FCFS",
    "RANK",
    "REMAINING",
    "SLACK",
    "STRETCH",
    "Candidates",
    "StateView",
    "clear_biases",
    "find_movable",
    "fix_candidate",
    "improve",
    "list_candidates",
    "make_candidates",
    "order_stages",
    "settled_workflows",
    "shift_keys",
    "tune",
    "value_candidates",
    "value_of",
]
