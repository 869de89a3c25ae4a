"""The event heap: earliest first, then by event number."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import StateArrays


@inlined
def _earlier(a_time: float, a_id: int, b_time: float, b_id: int) -> bool:
    return a_time < b_time or (a_time == b_time and a_id < b_id)


@kernel
def push(st: StateArrays, time: float, event: int) -> None:
    """Add an event."""
    heap = st.events
    i = st.event_count
    st.event_count += 1
    while i > 0:
        above = (i - 1) // 2
        if not _earlier(time, event, heap[above].time, heap[above].id):
            break
        heap[i].time = heap[above].time
        heap[i].id = heap[above].id
        i = above
    heap[i].time = time
    heap[i].id = event


@kernel
def pop(st: StateArrays) -> int:
    """Remove the earliest event; return its number."""
    heap = st.events
    event = heap[0].id
    n = st.event_count - 1
    st.event_count = n
    time, last = heap[n].time, heap[n].id
    i = 0
    while True:
        below = 2 * i + 1
        if below >= n:
            break
        if below + 1 < n and _earlier(
            heap[below + 1].time, heap[below + 1].id, heap[below].time, heap[below].id
        ):
            below += 1
        if not _earlier(heap[below].time, heap[below].id, time, last):
            break
        heap[i].time = heap[below].time
        heap[i].id = heap[below].id
        i = below
    heap[i].time = time
    heap[i].id = last
    return event
