"""Numbering of slots, events and KV entries. S stages, K = ``max_shards``.

Slot number: s K + k. Event number: s (K + 1) + k, where k = K is the end of the stage itself;
then S (K + 1) + w for the arrival of workflow w, which follows another.
KV entries: d Q + q for prefix q on device d, then D Q + slot number for a shard's contexts.
"""

from __future__ import annotations

from fate_gym.jit import inlined
from fate_gym.kernel.schema import ProblemArrays, StateArrays


@inlined
def slot_number(p: ProblemArrays, s: int, k: int) -> int:
    """Return the slot number of shard ``k`` of stage ``s``."""
    return s * p.max_shards + k


@inlined
def slot_of(p: ProblemArrays, number: int) -> tuple[int, int]:
    """Return the stage and shard of a slot number."""
    return number // p.max_shards, number % p.max_shards


@inlined
def next_in_queue(p: ProblemArrays, st: StateArrays, number: int) -> int:
    """Return the slot number behind another in its list, -1 if it is the last."""
    s, k = slot_of(p, number)
    return st.slots[s, k].next


@inlined
def shard_end_event(p: ProblemArrays, s: int, k: int) -> int:
    """Return the event of the end of shard ``k`` of stage ``s``."""
    return s * (p.max_shards + 1) + k


@inlined
def stage_end_event(p: ProblemArrays, s: int) -> int:
    """Return the event of the end of stage ``s``."""
    return s * (p.max_shards + 1) + p.max_shards


@inlined
def event_of(p: ProblemArrays, event: int) -> tuple[int, int]:
    """Return the stage and shard of an event other than an arrival; shard K: end of the stage."""
    return event // (p.max_shards + 1), event % (p.max_shards + 1)


@inlined
def arrival_event(p: ProblemArrays, w: int) -> int:
    """Return the event of the arrival of workflow ``w``, which follows another."""
    return p.stages.size * (p.max_shards + 1) + w


@inlined
def arriving(p: ProblemArrays, event: int) -> int:
    """Return the workflow whose arrival an event is, -1 if it is an end."""
    return max(-1, event - p.stages.size * (p.max_shards + 1))


@inlined
def prefix_entry(p: ProblemArrays, d: int, q: int) -> int:
    """Return the KV entry of prefix ``q`` on device ``d``."""
    return d * p.prefixes.size + q


@inlined
def context_entry(p: ProblemArrays, s: int, k: int) -> int:
    """Return the KV entry of the contexts that shard ``k`` of stage ``s`` left."""
    return p.devices.size * p.prefixes.size + slot_number(p, s, k)


@inlined
def first_context_entry(p: ProblemArrays) -> int:
    """Return the first KV entry that is not a prefix."""
    return p.devices.size * p.prefixes.size


@inlined
def rank_of_entry(p: ProblemArrays, entry: int) -> int:
    """Return the index of a KV entry's value in ``state.keep``; a stage's contexts share one."""
    first = first_context_entry(p)
    return entry if entry < first else first + (entry - first) // p.max_shards


@inlined
def rank_of_weights(p: ProblemArrays, d: int, m: int) -> int:
    """Return the index in ``state.keep`` of the value of model ``m``'s weights on ``d``."""
    return first_context_entry(p) + p.stages.size + d * p.models.size + m
