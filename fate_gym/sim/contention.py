"""Contention: fetches share the network interfaces of the nodes (docs/execution-model.md).

Each node has one interface, which carries one fetch at a time in each direction; a fetch takes the
first gap that is wide enough (link contention as in Sinnen and Sousa, "Communication contention in
task scheduling", IEEE TPDS 16(6), 2005). What is booked are the fetches of the shards in the
devices' queues, so nothing has to be taken back when a shard ends or is lost.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled
from fate_gym.sim.layout import Buffer, problem_view, state_view

GRAZE = 1e-9
"""Seconds by which fetches may overlap: rounding must not decide whether a gap is wide enough."""


@compiled
def shared_fetch(
    problem: Buffer, state: Buffer, d: int, turn: float
) -> tuple[float, float, float, int]:
    """When what is in ``link_seconds`` gets to device ``d``, from ``turn`` on.

    Returns the seconds from ``turn`` until all is there, start and end of the fetch (what comes
    over the network, one sending node after the other), and the sending nodes as bits.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    links = p.devices.size  # numbers from here on: from other nodes, then from the host
    length = 0.0
    senders = 0
    for node in range(p.head[0].nodes):
        if st.link_seconds[links + node] > 0.0:
            length += st.link_seconds[links + node]
            senders |= 1 << node
    aside = st.link_seconds[st.link_seconds.size - 1]
    for link in range(links):
        aside = max(aside, st.link_seconds[link])
    if senders == 0 or turn == np.inf:
        # A device that is down has no turn; a wait there is no reason to choose it.
        return max(aside, length), turn, turn + length, senders
    receiver = p.devices[d].node
    shards = p.head[0].max_shards
    start = turn
    while True:
        # Nothing can start before all that is in the way now has ended.
        clear = start
        for e in range(p.devices.size):
            number = st.devices[e].queue_head
            while number >= 0:
                s, k = number // shards, number % shards
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
        if clear == start:
            break
        start = clear
    return max(aside, (start - turn) + length), start, start + length, senders


__all__ = ["GRAZE", "shared_fetch"]
