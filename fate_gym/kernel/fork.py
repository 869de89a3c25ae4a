"""Forks: private copies of a state to play forward, without knowledge of the future."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.batching.luck import forget_luck
from fate_gym.kernel.cost import decode_seconds
from fate_gym.kernel.draws import change_after, length_factor, noise_factor
from fate_gym.kernel.events import push
from fate_gym.kernel.numbers import arriving, event_of, slot_of
from fate_gym.kernel.schema import (
    EXPECTED,
    HOST,
    MODEL_STAGE,
    SAMPLED,
    TOOL_STAGE,
    ProblemArrays,
    StateArrays,
)

DRAWS = 32
"""Most draws of a running shard's duration, until one exceeds the time it has run."""
NEXT_SEED = 1_000_003


@kernel
def fork(p: ProblemArrays, st: StateArrays, out: StateArrays) -> None:
    """Make ``out`` the state that a planner may play forward from ``st``.

    Workflows that have not arrived stay unknown, and durations are the estimates: the actual ends
    of running shards are replaced by the expected ones. Open choices take their most likely
    outcome, no device fails, and a device that is down is repaired ``mttr_s`` from now.
    """
    _fork(p, st, out)
    out.origin = EXPECTED
    if p.failing or out.noisy:
        _replace_the_future(p, st, out)
        out.noisy = 0


@kernel
def fork_sampled(p: ProblemArrays, st: StateArrays, out: StateArrays, seed: int) -> None:
    """Fork like `fork`, but draw noise, lengths, open choices and failures from ``seed``.

    The duration of a running shard is redrawn while it is shorter than the time the shard has run,
    since that time tells how long it may still take. Given outages are neither known nor drawn.
    """
    _fork(p, st, out)
    out.origin = SAMPLED
    out.seed = seed
    _replace_the_future(p, st, out)


@inlined
def _fork(p: ProblemArrays, st: StateArrays, out: StateArrays) -> None:
    """Copy a state, without workflows that are still to arrive."""
    copy_block(out, st)
    out.next_arrival = p.arrivals.size
    if p.followers.size == 0:
        return
    count = st.event_count
    out.event_count = 0
    for i in range(count):
        if arriving(p, st.events[i].id) < 0:
            push(out, st.events[i].time, st.events[i].id)


@kernel
def _replace_the_future(p: ProblemArrays, st: StateArrays, out: StateArrays) -> None:
    """Replace the future in ``out``, a fork of ``st``: shard ends, events, failures, repairs."""
    if p.failing:
        out.next_change = np.inf
        for d in range(p.devices.size):
            down = out.devices[d].drains_at == np.inf
            if out.origin == SAMPLED and p.outages.size == 0:
                # Exponential times are memoryless: how long a device has been up or down is no
                # clue.
                changes = out.devices[d].changes
                out.devices[d].changes_at = change_after(p, out, d, changes, out.now)
            else:
                out.devices[d].changes_at = out.now + p.mttr_s if down else np.inf
            out.next_change = min(out.next_change, out.devices[d].changes_at)
    if not out.noisy:
        return
    if p.batching:
        for d in range(p.devices.size):
            if out.devices[d].drains_at < np.inf:
                forget_luck(p, out, d)
    for d in range(p.devices.size):
        if out.devices[d].drains_at < np.inf and not p.batching:
            _expect_queue(p, out, d)
    count = st.event_count
    out.event_count = 0
    for i in range(count):
        if arriving(p, st.events[i].id) < 0:
            _expect_event(p, st, out, st.events[i].time, st.events[i].id)


@inlined
def _expect_queue(p: ProblemArrays, out: StateArrays, d: int) -> None:
    """Let the shards of a queue end as expected, or as drawn."""
    time = out.now
    number = out.devices[d].queue_head
    first = True
    while number >= 0:
        s, k = slot_of(p, number)
        slot = out.slots[s, k]
        busy = slot.busy
        if out.origin == SAMPLED:
            elapsed = out.now - slot.start if first else 0.0
            busy = _drawn_seconds(p, out, s, k, elapsed)
        time = max(out.now, slot.start + busy) if first else time + busy
        slot.start = time - slot.busy
        first = False
        number = slot.next
    out.devices[d].drains_at = time


@inlined
def _drawn_seconds(p: ProblemArrays, st: StateArrays, s: int, k: int, elapsed: float) -> float:
    """Draw the duration of the shard in slot ``k`` of stage ``s``, longer than ``elapsed``.

    Drawn by the state's seed. Returns ``elapsed`` if none of `DRAWS` draws is longer.
    """
    slot, seed = st.slots[s, k], st.seed
    decode = 0.0
    if p.stages[s].kind == MODEL_STAGE:
        decode = decode_seconds(p, s, int(slot.device), int(slot.queries))
    seconds = 0.0
    for attempt in range(DRAWS):
        st.seed = seed + attempt * NEXT_SEED
        longer = (length_factor(p, st, s) - 1.0) * decode
        seconds = (slot.busy + longer) * noise_factor(p, st, s, k, int(slot.device))
        if seconds > elapsed:
            break
    st.seed = seed
    return max(seconds, elapsed)


@inlined
def _expect_event(
    p: ProblemArrays, st: StateArrays, out: StateArrays, time: float, event: int
) -> None:
    s, k = event_of(p, event)
    if k < p.max_shards and not p.batching:
        slot = out.slots[s, k]
        expected = slot.start + slot.busy
        # A running shard's noise also shows in when its prefix can be copied.
        q = p.stages[s].written
        while q >= 0:
            if st.prefix_there[slot.device, q] == time:
                out.prefix_there[slot.device, q] = expected
            q = p.prefixes[q].parent
        time = expected
    elif p.stages[s].kind == TOOL_STAGE:
        seconds = p.stages[s].tool_seconds
        if out.origin == SAMPLED:
            seconds *= noise_factor(p, out, s, 0, HOST)
        time = max(out.now, st.stages[s].ready_at + seconds)
    elif not p.batching:
        time = out.now
        for i in range(st.stages[s].shards):
            time = max(time, out.slots[s, i].start + out.slots[s, i].busy)
        time += (st.stages[s].shards - 1) * p.gather_s
    push(out, time, event)
