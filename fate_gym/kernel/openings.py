"""Where a shard would start now: "idle" for an exclusive device, generalised to batching ones.

For policies that commit only what starts at once. An exclusive device takes a shard if it runs
none; a batching device takes it if it would be admitted at the next border, behind all that waits
there.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.admission import (
    head_may_join,
    may_join,
    wave_of,
)
from fate_gym.kernel.batching.waves import wave_bytes
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.prefixes import unpinned_bytes
from fate_gym.kernel.schema import ProblemArrays, StateArrays


@inlined
def is_open(p: ProblemArrays, st: StateArrays, d: int) -> bool:
    """Return whether device ``d`` is up and nothing waits there for other shards to end.

    Some stage may then start there now; `starts_now` tells which.
    """
    dev = st.devices[d]
    if dev.drains_at == np.inf:
        return False
    if dev.queue_head < 0:
        return True
    return bool(p.batching) and head_may_join(p, st, d)


@inlined
def starts_now(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int) -> bool:
    """Return whether ``n`` queries of stage ``s``, which ``d`` hosts, would start there now."""
    if st.devices[d].drains_at == np.inf:
        return False
    if not p.batching:
        return bool(st.devices[d].queue_head < 0)
    return _admits(p, st, s, d, n)


@kernel
def _admits(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int) -> bool:
    """Return whether a shard and all that waits before it are admitted at the next border.

    A prefix that several of them would load is counted for each.
    """
    stage = p.stages[s]
    sequences = wave_of(p, s, d, n)
    need = 0.0 if stage.model < 0 else sequences * context_bytes(p, s)
    number = st.devices[d].queue_head
    while number >= 0:
        other, k = slot_of(p, number)
        waiting = st.lanes[other, k].waiting
        wave = wave_of(p, other, d, waiting)
        if wave < waiting or stage.model < 0 or p.stages[other].model != stage.model:
            return False
        sequences += wave
        need += wave_bytes(p, st, other, k, wave) + unpinned_bytes(p, st, other, d)
        number = next_in_queue(p, st, number)
    return may_join(p, st, s, d, sequences, need)
