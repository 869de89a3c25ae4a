"""Time passes: `advance` goes to the next instant and applies its events, in a fixed order."""

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
    """The state before time 0; `to_decision` leads to the first decision."""
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
        # The arrival of the workflow counts as one more parent.
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
    # Whether somebody comes after a workflow is not for planners to know.
    if st.workflows[w].left == 0 and st.origin == LIVE:
        _call_followers(p, st, w)


@inlined
def _call_followers(p: ProblemArrays, st: StateArrays, w: int) -> None:
    """Workflow ``w`` has ended: those that follow it arrive once they have been thought of."""
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

    With a chooser that vanishes vanish those that depend on it.
    """
    draw = choice_draw(p, st, s)
    workflow = p.workflows[p.stages[s].workflow]
    gone = np.empty(workflow.stages_to - workflow.stages_from, np.int64)
    count = 0
    for i in range(workflow.stages_from, workflow.stages_to):
        # Parents first: whoever depends on a chooser comes behind it.
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
    if ahead == number or ahead < 0:  # no queue: a state with parts blotted out
        dev.queue_head = slot.next
    else:
        # One that takes no time can be over before those ahead of it, of the same moment.
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
    """The time of the next event, inf without one. Nobody may foresee a failure: `can_wait`."""
    time = min(st.next_change, st.next_border)
    if st.event_count > 0:
        time = min(time, st.events[0].time)
    if st.next_arrival < p.arrivals.size:
        time = min(time, p.workflows[p.arrivals[st.next_arrival]].arrival)
    return time


@inlined
def can_wait(p: ProblemArrays, st: StateArrays) -> bool:
    """Whether an event lies ahead that is worth waiting for: failures are not."""
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
    """Go to the next instant with an event, apply all its events. False: none lies ahead.

    What only moves a wave on within its device is no such event.
    """
    while True:
        if not can_wait(p, st):
            return False
        if _apply_events(p, st, log):
            st.instants += 1
            return True


@inlined
def _apply_events(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """The next instant; returns whether anything happened that a policy may wait for."""
    time = max(st.now, next_event_time(p, st))  # a border may be early, by rounding
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
    """Let an event of the heap happen."""
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
    """Let the batches of devices change that do so now."""
    seen = False
    for d in range(p.devices.size):
        if st.batches[d].changes_at <= st.now:
            seen |= pass_border(p, st, log, d)
    return seen


@inlined
def to_decision(p: ProblemArrays, st: StateArrays, log: LogArrays) -> bool:
    """Advance until a stage is ready. False: everything known is done or under way for good."""
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
    """Go to the next event at which a stage is ready, or to the end. False: no event lies ahead."""
    moved = advance(p, st, log)
    to_decision(p, st, log)
    return moved


@kernel
def pass_time(p: ProblemArrays, st: StateArrays, log: LogArrays, seconds: float) -> int:
    """Let time pass with whatever happens in it; returns the number of instants with events."""
    until = st.now + seconds
    instants = 0
    while next_event_time(p, st) <= until:
        advance(p, st, log)
        instants += 1
    st.now = until
    return instants
