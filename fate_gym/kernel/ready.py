"""Stages that become ready: they enter the ready list, or start if they are tools."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import cost_of
from fate_gym.kernel.draws import noise_factor
from fate_gym.kernel.events import push
from fate_gym.kernel.log import log_shard
from fate_gym.kernel.numbers import stage_end_event
from fate_gym.kernel.schema import (
    DONE,
    HOST,
    PLACED,
    READY,
    TOOL_STAGE,
    WAITING,
    LogArrays,
    ProblemArrays,
    StateArrays,
)
from fate_gym.kernel.transfer import tool_transfer_seconds


@kernel
def become_ready(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int) -> None:
    """Make stage ``s`` ready: nothing holds it back any longer."""
    stage = st.stages[s]
    stage.ready_at = st.now
    if p.stages[s].kind == TOOL_STAGE:
        _start_tool(p, st, log, s)
    elif not p.failing or has_host(p, st, s):
        enlist(st, s)


@inlined
def has_host(p: ProblemArrays, st: StateArrays, s: int) -> bool:
    """Return whether any device that can run stage ``s`` is up."""
    for d in range(p.devices.size):
        if p.clean_seconds[s, d] < np.inf and st.devices[d].drains_at < np.inf:
            return True
    return False


@inlined
def enlist(st: StateArrays, s: int) -> None:
    """Insert a stage into the ready list, ordered by (time it became ready, number)."""
    st.stages[s].status = READY
    since = st.stages[s].ready_at
    i = st.ready_count
    while i > 0:
        other = st.ready[i - 1]
        before = st.stages[other].ready_at
        if before < since or (before == since and other < s):
            break
        st.ready[i] = other
        i -= 1
    st.ready[i] = s
    st.ready_count += 1


@kernel
def _start_tool(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int) -> None:
    transfer, moved = tool_transfer_seconds(p, st, s)
    seconds = p.stages[s].tool_seconds
    noise = noise_factor(p, st, s, 0, HOST)
    end = st.now + transfer + seconds * noise
    st.stages[s].status = PLACED
    cost = cost_of(st.now, 0.0, transfer, 0.0, seconds, moved, 0.0)
    row = log_shard(st, log, s, 0, HOST, cost)
    if row >= 0:
        log.shards[row].queries = p.stages[s].queries
        log.shards[row].noise = noise
        log.shards[row].end = end
    push(st, end, stage_end_event(p, s))


@inlined
def awaits_nothing(p: ProblemArrays, st: StateArrays, s: int) -> bool:
    """Return whether waiting stage ``s`` has its parents done and its branch decided.

    All parents may have vanished (which counts as done) before the stage's chooser has run.
    """
    stage = st.stages[s]
    chooser = p.stages[s].chooser
    decided = chooser < 0 or st.stages[chooser].status == DONE
    return stage.missing == 0 and stage.status == WAITING and decided


@inlined
def take_from_ready(st: StateArrays, s: int) -> None:
    """Remove stage ``s`` from the ready list."""
    last = st.ready_count - 1
    i = 0
    while st.ready[i] != s:
        i += 1
    while i < last:
        st.ready[i] = st.ready[i + 1]
        i += 1
    st.ready_count = last
