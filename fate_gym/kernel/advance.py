"""Time: `advance` moves to the next instant and applies its events in a fixed order."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import clear_block, inlined, kernel
from fate_gym.kernel.batching.border import pass_border
from fate_gym.kernel.batching.waves import all_ended, clear_batch
from fate_gym.kernel.draws import change_after, choice_draw
from fate_gym.kernel.events import pop, push
from fate_gym.kernel.failure import change_devices, end_of_survivor
from fate_gym.kernel.numbers import (
    arrival_event,
    arriving,
    event_of,
    next_in_queue,
    slot_number,
    slot_of,
    stage_end_event,
)
from fate_gym.kernel.ready import awaits_nothing, become_ready
from fate_gym.kernel.schema import (
    DONE,
    ENDED,
    LIVE,
    LOSING,
    VANISHED,
    LogArrays,
    ProblemArrays,
    StateArrays,
)


@kernel
def reset(p: ProblemArrays, st: StateArrays, seed: int) -> None:
    """Set the state before time 0; `to_decision` then leads to the first decision."""
    clear_block(st)
    st.seed = seed
    noisy = p.uncertainty > 0.0 or p.length_uncertainty > 0.0
    st.noisy = 1 if noisy else 0
    st.next_change = np.inf
    st.next_border = np.inf
    for d in range(p.devices.size):
        if p.batching:
            clear_batch(st, d)
        st.devices[d].oldest = -1
        st.devices[d].newest = -1
        st.devices[d].queue_head = -1
        st.devices[d].queue_tail = -1
        if p.failing:
            st.devices[d].changes_at = change_after(p, st, d, 0, 0.0)
            st.next_change = min(st.next_change, st.devices[d].changes_at)
    for s in range(p.stages.size):
        # The workflow's arrival counts as one more parent.
        st.stages[s].missing = p.stages[s].parents_to - p.stages[s].parents_from + 1
    for w in range(p.workflows.size):
        st.workflows[w].arrived_at = np.inf
        st.workflows[w].left = p.workflows[w].stages_to - p.workflows[w].stages_from


@inlined
def _finish(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int) -> None:
    stage = st.stages[s]
    stage.status = DONE
    stage.end = st.now
    st.last_end = st.now
    st.known_left -= 1
    w = p.stages[s].workflow
    st.workflows[w].left -= 1
    if p.stages[s].chooses:
        _choose(p, st, log, s)
    _release_children(p, st, log, s)
    # A forecast must not reveal whether another workflow follows this one.
    if st.workflows[w].left == 0 and st.origin == LIVE:
        _call_followers(p, st, w)


@inlined
def _call_followers(p: ProblemArrays, st: StateArrays, w: int) -> None:
    """Workflow ``w`` has ended: schedule its followers' arrivals, after their think time."""
    for i in range(p.workflows[w].followers_from, p.workflows[w].followers_to):
        follower = p.followers[i]
        workflow = p.workflows[follower]
        time = max(workflow.arrival, st.now + workflow.think_s)
        push(st, time, arrival_event(p, follower))


@inlined
def _release_children(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int) -> None:
    for i in range(p.stages[s].children_from, p.stages[s].children_to):
        child = p.edges[p.out_edges[i]].child
        st.stages[child].missing -= 1
        if awaits_nothing(p, st, child):
            become_ready(p, st, log, child)


@kernel
def _choose(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int) -> None:
    """Draw which of the stages that depend on chooser ``s`` live; the others vanish.

    Stages that depend on a vanished chooser vanish with it.
    """
    draw = choice_draw(p, st, s)
    workflow = p.workflows[p.stages[s].workflow]
    gone = np.empty(workflow.stages_to - workflow.stages_from, np.int64)
    count = 0
    for i in range(workflow.stages_from, workflow.stages_to):
        # Parents first: a chooser comes before the stages that depend on it.
        v = p.topological[i]
        stage = p.stages[v]
        if stage.chooser < 0:
            continue
        drawn = stage.chooser == s and not stage.lives_from <= draw < stage.lives_to
        if drawn or st.stages[stage.chooser].note == VANISHED:
            if st.stages[v].note == VANISHED:
                continue
            st.stages[v].note = VANISHED
            st.stages[v].status = DONE
            st.stages[v].ready_at = st.now
            st.stages[v].end = st.now
            st.known_left -= 1
            st.workflows[stage.workflow].left -= 1
            gone[count] = v
            count += 1
        elif stage.chooser == s and awaits_nothing(p, st, v):
            become_ready(p, st, log, v)
    for i in range(count):
        _release_children(p, st, log, gone[i])


@inlined
def _arrive(p: ProblemArrays, st: StateArrays, log: LogArrays, w: int, time: float) -> None:
    workflow = p.workflows[w]
    st.workflows[w].arrived_at = time
    st.arrived[st.arrived_count] = w
    st.arrived_count += 1
    st.known_left += workflow.stages_to - workflow.stages_from
    for s in range(workflow.stages_from, workflow.stages_to):
        st.stages[s].missing -= 1
        if st.stages[s].missing == 0:
            become_ready(p, st, log, s)


@inlined
def _shard_end(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    if p.batching:
        _end_in_batch(p, st, log, s, k)
        return
    slot = st.slots[s, k]
    dev = st.devices[slot.device]
    dev.backlog -= slot.busy
    number = slot_number(p, s, k)
    ahead = dev.queue_head
    if ahead == number or ahead < 0:  # no queue: a view's state can have its queues hidden
        dev.queue_head = slot.next
    else:
        # A shard of zero duration can end before shards ahead of it, at the same instant.
        while ahead >= 0 and next_in_queue(p, st, ahead) != number:
            ahead = next_in_queue(p, st, ahead)
        if ahead >= 0:
            before, i = slot_of(p, ahead)
            st.slots[before, i].next = slot.next
        if dev.queue_tail == number:
            dev.queue_tail = ahead
    if dev.queue_head < 0:
        dev.queue_tail = -1
        dev.backlog = 0.0
    if st.stages[s].note == LOSING:
        end_of_survivor(p, st, log, s)
    elif st.stages[s].shards == 1:
        _finish(p, st, log, s)


@inlined
def _end_in_batch(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    st.lanes[s, k].state = ENDED
    if st.stages[s].note == LOSING:
        end_of_survivor(p, st, log, s)
    elif st.stages[s].shards == 1:
        _finish(p, st, log, s)
    elif all_ended(st, s):
        gather = (st.stages[s].shards - 1) * p.gather_s
        push(st, st.now + gather, stage_end_event(p, s))


@inlined
def next_event_time(p: ProblemArrays, st: StateArrays) -> float:
    """Return the time of the next event, inf if none. Failures count too, see `can_wait`."""
    time = min(st.next_change, st.next_border)
    if st.event_count > 0:
        time = min(time, st.events[0].time)
    if st.next_arrival < p.arrivals.size:
        time = min(time, p.workflows[p.arrivals[st.next_arrival]].arrival)
    return time


@inlined
def can_wait(p: ProblemArrays, st: StateArrays) -> bool:
    """Return whether any event other than a failure lies ahead (failures cannot be awaited)."""
    if st.event_count > 0 or st.next_arrival < p.arrivals.size or st.next_border < np.inf:
        return True
    return bool(p.failing) and st.known_left > 0 and _any_down(p, st)


@inlined
def _any_down(p: ProblemArrays, st: StateArrays) -> bool:
    down = 0
    for d in range(p.devices.size):
        down += st.devices[d].drains_at == np.inf
    return down > 0


@kernel
def advance(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """Go to the next instant with an event and apply all its events; False if none lies ahead.

    A change that only moves a wave along within its device does not count as an event.
    """
    while True:
        if not can_wait(p, st):
            return False
        if _apply_events(p, st, log):
            st.instants += 1
            return True


@inlined
def _apply_events(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """Apply the next instant; return whether anything happened that a policy may wait for."""
    time = max(st.now, next_event_time(p, st))  # rounding can put a border slightly early
    st.now = time
    seen = False
    while next_event_time(p, st) <= time:
        while st.next_arrival < p.arrivals.size:
            w = p.arrivals[st.next_arrival]
            if p.workflows[w].arrival > time:
                break
            st.next_arrival += 1
            _arrive(p, st, log, w, p.workflows[w].arrival)
            seen = True
        if st.next_border <= time:
            seen |= _pass_borders(p, st, log)
        while st.event_count > 0 and st.events[0].time <= time:
            _apply(p, st, log, pop(st))
            seen = True
        if st.next_change <= time:
            change_devices(p, st, log)
            seen = True
    return seen


@inlined
def _apply(p: ProblemArrays, st: StateArrays, log: LogArrays, event: int) -> None:
    """Apply one event of the heap."""
    w = arriving(p, event)
    s, k = event_of(p, event)
    if w >= 0:
        _arrive(p, st, log, w, st.now)
    elif k == p.max_shards:
        _finish(p, st, log, s)
    else:
        _shard_end(p, st, log, s, k)


@kernel
def _pass_borders(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """Pass the borders that are due now; return whether any wave ended or was admitted."""
    seen = False
    for d in range(p.devices.size):
        if st.batches[d].changes_at <= st.now:
            seen |= pass_border(p, st, log, d)
    return seen


@inlined
def to_decision(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """Advance until a stage is ready; False if all known stages are done or under way for good."""
    while st.ready_count == 0:
        if not advance(p, st, log):
            return False
    return True


@kernel
def start(p: ProblemArrays, st: StateArrays, log: LogArrays, seed: int) -> None:
    """Begin a run: time 0, advanced to the first decision."""
    reset(p, st, seed)
    to_decision(p, st, log)


@kernel
def wait(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """Go to the next event at which a stage is ready, or to the end; False if no event is ahead."""
    moved = advance(p, st, log)
    to_decision(p, st, log)
    return moved


@kernel
def pass_time(p: ProblemArrays, st: StateArrays, log: LogArrays, seconds: float) -> int:
    """Let ``seconds`` pass, events included; return the number of instants with events."""
    until = st.now + seconds
    instants = 0
    while next_event_time(p, st) <= until:
        advance(p, st, log)
        instants += 1
    st.now = until
    return instants
