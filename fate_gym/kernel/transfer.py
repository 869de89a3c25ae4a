"""Time to transfer a shard's inputs: its parents' outputs, and a prefix.

With contention, fetches share the network interfaces of the nodes: each carries one fetch at a
time in each direction, and a fetch takes the first gap that is wide enough (Sinnen and Sousa,
"Communication contention in task scheduling", IEEE TPDS 16(6), 2005). Only the fetches of shards
in the devices' queues (on a batching device: of waves that have not joined) are booked, so
nothing has to be undone when a shard ends or is lost.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.numbers import slot_of
from fate_gym.kernel.schema import (
    GRAZE,
    TOOL_STAGE,
    VANISHED,
    ProblemArrays,
    Slot,
    StateArrays,
)


@inlined
def over_link(p: ProblemArrays, a: int, d: int, size: float) -> float:
    """Return the seconds to move ``size`` bytes from device ``a`` to device ``d``."""
    return p.link_latency[a, d] + size / p.link_bandwidth[a, d]


@inlined
def over_host(p: ProblemArrays, d: int, size: float) -> float:
    """Return the seconds to move ``size`` bytes between device ``d`` and its host."""
    return p.link_latency[d, d] + size / p.devices[d].host_bandwidth


@inlined
def _needs_nothing(slot: Slot, d: int) -> bool:
    """Return whether nothing of the output of the shard in a slot has to be sent to device ``d``.

    Either ``d`` has it, or the shard was lost. Planners ask about lost shards when they look at
    children of a stage that will run again, on a device that is not known yet.
    """
    return slot.device < 0 or (slot.device == d and not slot.on_host)


@inlined
def clear_links(st: StateArrays) -> None:
    """Reset the scratch ``link_seconds`` to zero."""
    for i in range(st.link_seconds.size):
        st.link_seconds[i] = 0.0


@inlined
def transfer_seconds(
    p: ProblemArrays, st: StateArrays, s: int, d: int, share: float, turn: float
) -> tuple[float, float]:
    """Return seconds and bytes to bring the parents' outputs for ``share`` of the queries.

    They go to device ``d``. ``turn`` matters in two cases only: with eager transfers the seconds
    are those left at that time; with contention they include the wait for booked fetches.
    """
    if p.stages[s].parents_from == p.stages[s].parents_to:
        return 0.0, 0.0
    return _transfer_seconds(p, st, s, d, share, turn)


@inlined
def _transfer_seconds(
    p: ProblemArrays, st: StateArrays, s: int, d: int, share: float, turn: float
) -> tuple[float, float]:
    if p.eager:
        return _eager_transfer(p, st, s, d, share, turn)
    seconds, moved = add_link_seconds(p, st, s, d, share)
    if seconds > 0.0:
        if p.contention:
            seconds, _, _, _ = shared_fetch(p, st, d, turn)
        clear_links(st)
    return seconds, moved


@inlined
def prefix_and_parents_seconds(
    p: ProblemArrays,
    st: StateArrays,
    s: int,
    d: int,
    share: float,
    source: int,
    seconds: float,
    planned: float,
) -> tuple[float, float]:
    """Return `transfer_seconds`, not eager, with a prefix that ``source`` sends in ``seconds``.

    With contention the fetch is planned from ``planned`` on. The bytes are those of the parents.
    """
    # The prefix shares its link with the parents' outputs.
    st.link_seconds[p.link[source, d]] = seconds
    transfer, moved = add_link_seconds(p, st, s, d, share)
    transfer = max(transfer, seconds)
    if p.contention:
        transfer, _, _, _ = shared_fetch(p, st, d, planned)
    clear_links(st)
    return transfer, moved


@inlined
def add_link_seconds(
    p: ProblemArrays, st: StateArrays, s: int, d: int, share: float
) -> tuple[float, float]:
    """Add what the parents send over each link into ``d`` to ``link_seconds``.

    Returns the seconds of the busiest link, and the bytes. The caller resets ``link_seconds``.
    """
    stage = p.stages[s]
    seconds = 0.0
    moved = 0.0
    host = st.link_seconds.size - 1
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        if edge.bytes <= 0.0:
            continue
        parent = p.stages[edge.parent]
        if parent.kind == TOOL_STAGE:
            if st.stages[edge.parent].note == VANISHED:
                continue
            size = edge.bytes * share
            moved += size
            st.link_seconds[host] += over_host(p, d, size)
            seconds = max(seconds, st.link_seconds[host])
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if _needs_nothing(slot, d):
                continue
            size = edge.bytes * share * slot.queries / parent.queries
            moved += size
            if slot.device == d:
                # The device has failed since: its output comes back from the host.
                link = host
                delay = over_host(p, d, size)
            else:
                link = p.link[slot.device, d]
                delay = over_link(p, slot.device, d, size)
            st.link_seconds[link] += delay
            seconds = max(seconds, st.link_seconds[link])
    return seconds, moved


@kernel
def _eager_transfer(
    p: ProblemArrays, st: StateArrays, s: int, d: int, share: float, turn: float
) -> tuple[float, float]:
    stage = p.stages[s]
    if turn == np.inf:
        return 0.0, 0.0  # the device is down; inf - inf would be nan
    there = turn
    moved = 0.0
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        if edge.bytes <= 0.0:
            continue
        end = st.stages[edge.parent].end
        parent = p.stages[edge.parent]
        if parent.kind == TOOL_STAGE:
            if st.stages[edge.parent].note == VANISHED:
                continue
            size = edge.bytes * share
            moved += size
            there = max(there, end + p.link_latency[d, d] + size / p.devices[d].host_bandwidth)
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if _needs_nothing(slot, d):
                continue
            size = edge.bytes * share * slot.queries / parent.queries
            moved += size
            if slot.device == d:
                delay = over_host(p, d, size)
            else:
                delay = over_link(p, slot.device, d, size)
            there = max(there, end + delay)
    return there - turn, moved


@kernel
def tool_transfer_seconds(p: ProblemArrays, st: StateArrays, s: int) -> tuple[float, float]:
    """Return seconds and bytes to bring the parents' outputs of a tool stage to the host."""
    stage = p.stages[s]
    seconds = 0.0
    moved = 0.0
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        parent = p.stages[edge.parent]
        if edge.bytes <= 0.0 or parent.kind == TOOL_STAGE:
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if slot.on_host:
                continue
            d = slot.device
            size = edge.bytes * slot.queries / parent.queries
            moved += size
            delay = over_host(p, d, size)
            if p.eager:
                seconds = max(seconds, st.stages[edge.parent].end + delay - st.now)
            else:
                st.link_seconds[d] += delay
                seconds = max(seconds, st.link_seconds[d])
    if seconds > 0.0:
        clear_links(st)
    return seconds, moved


@kernel
def shared_fetch(
    p: ProblemArrays, st: StateArrays, d: int, turn: float
) -> tuple[float, float, float, int]:
    """Return when the transfers in ``link_seconds`` reach device ``d`` if they begin at ``turn``.

    Returns the seconds from ``turn`` until all have arrived, the start and end of the fetch over
    the network (one sending node after the other), and the sending nodes as bits.
    """
    links = p.devices.size  # link numbers from here on: other nodes, then the host
    length = 0.0
    senders = 0
    for node in range(p.nodes):
        if st.link_seconds[links + node] > 0.0:
            length += st.link_seconds[links + node]
            senders |= 1 << node
    aside = st.link_seconds[st.link_seconds.size - 1]
    for link in range(links):
        aside = max(aside, st.link_seconds[link])
    if senders == 0 or turn == np.inf:
        # A device that is down has no turn; its network wait must not influence the choice.
        return max(aside, length), turn, turn + length, senders
    start = turn
    while True:
        # The fetch cannot start before all that are in the way now have ended.
        clear = _clear_from(p, st, p.devices[d].node, senders, start, length)
        if clear == start:
            break
        start = clear
    return max(aside, (start - turn) + length), start, start + length, senders


@inlined
def _clear_from(
    p: ProblemArrays, st: StateArrays, receiver: int, senders: int, start: float, length: float
) -> float:
    """Return the latest end of the booked fetches in the way; ``start`` if there are none."""
    clear = start
    for e in range(p.devices.size):
        number = st.batches[e].admitted if p.batching else st.devices[e].queue_head
        while number >= 0:
            s, k = slot_of(p, number)
            fetch = st.fetches[s, k]
            meets = p.devices[e].node == receiver or (fetch.senders & senders) != 0
            if (
                meets
                and fetch.senders != 0
                and fetch.end - start > GRAZE
                and start + length - fetch.start > GRAZE
            ):
                clear = max(clear, fetch.end)
            number = st.slots[s, k].next
    return clear
