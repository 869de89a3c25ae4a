"""The placements behind the action numbers of one slot, and what they are expected to cost.

They are those of `fate_gym.sim.candidates`, bit for bit; a test compares the two. This version is
built into the pass that makes the observation: it allocates nothing, and keeps from one step to
the next what has not changed.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import inlined
from fate_gym.env.layout import FactsView, FrameView
from fate_gym.sim.cost import (
    _step_seconds,
    context_hit_tokens,
    prefill_seconds,
    prefix_hit_tokens,
    transfer_seconds,
)
from fate_gym.sim.layout import FIXED_STAGE, ProblemView, StateView


@inlined
def price_whole(
    p: ProblemView, st: StateView, f: FactsView, fr: FrameView, line: int, s: int, d: int
) -> None:
    """The parts of the cost of stage ``s`` as a whole on ``d``; as `fate_gym.sim.cost.shard_cost`.

    With a context hit of nothing and no prefix hit, `clean_seconds` is exact to the last bit.
    """
    stage = p.stages[s]
    part = fr.parts[line, d]
    part.transfer, part.moved = transfer_seconds(p, st, s, d, 1.0, fr.turn[d])
    part.load, part.prefix_hit, part.context_hit = 0.0, 0.0, 0.0
    part.evicted_kv, part.evicted_weights = 0.0, 0.0
    if stage.kind == FIXED_STAGE:
        part.prefill = 0.0
        part.decode = p.clean_seconds[s, d]
        return
    if st.resident[d, stage.model] == 0:
        part.load = p.load_seconds[stage.model, d]
    part.prefix_hit = prefix_hit_tokens(p, st, s, d)
    part.context_hit = context_hit_tokens(p, st, s, d)
    part.decode = p.decode_seconds[s, d]
    if part.prefix_hit == 0.0 and part.context_hit == 0.0:
        part.prefill = p.clean_seconds[s, d] - part.decode
    else:
        part.prefill = prefill_seconds(p, s, d, stage.queries, part.prefix_hit, part.context_hit)
    part.evicted_kv, part.evicted_weights = evicted(p, st, f, s, d, stage.queries)


@inlined
def evicted(
    p: ProblemView, st: StateView, f: FactsView, s: int, d: int, n: int
) -> tuple[float, float]:
    """Shares of the memory: KV and weights that have to go, at least, for a shard."""
    stage = p.stages[s]
    model = p.models[stage.model]
    dev = st.devices[d]
    own_weights = model.weight_bytes if st.resident[d, stage.model] else 0.0
    cached = 0.0
    if stage.prefix_tokens > 0:
        cached = st.prefix_tokens[d, stage.prefix] * model.kv
    prefix = max(cached, stage.prefix_tokens * model.kv)
    pinned = model.weight_bytes + prefix + min(n, f.pairs[s, d].batch) * f.stages[s].context
    others_kv = dev.kv_bytes - cached
    others_weights = dev.weight_bytes - own_weights
    memory = p.devices[d].memory
    over = pinned + others_kv + others_weights - memory
    if over <= 0.0:
        return 0.0, 0.0
    kv = min(over, others_kv)
    return kv / memory, min(over - kv, others_weights) / memory


@inlined
def decode_seconds(p: ProblemView, f: FactsView, s: int, d: int, n: int) -> float:
    """As `fate_gym.sim.cost.decode_seconds`, with the batch limit looked up."""
    st = p.stages[s]
    if st.output_tokens == 0:
        return 0.0
    device = p.devices[d]
    model = p.models[st.model]
    batch = min(n, f.pairs[s, d].batch)
    full = (n - 1) // batch
    total = _step_seconds(p, st, device, model, n - full * batch)
    if full > 0:
        total += full * _step_seconds(p, st, device, model, batch)
    return st.output_tokens * total


@inlined
def sort_devices(fr: FrameView, number: int) -> int:
    """Order the devices by (``fr.ends``, number); returns how many can run the stage."""
    found = 0
    for d in range(number):
        end = fr.ends[d]
        if end == np.inf:
            continue
        i = found
        while i > 0 and fr.ends[fr.order[i - 1]] > end:
            fr.order[i] = fr.order[i - 1]
            i -= 1
        fr.order[i] = d
        found += 1
    return found


@inlined
def find_holders(st: StateView, fr: FrameView, model: int, found: int) -> int:
    """Put the devices that hold the model into ``fr.holders``, earliest end first, K at most.

    Returns how many; ``fr.order[:found]`` are the devices that can run the stage, in that order.
    """
    taken = 0
    if model >= 0:
        for i in range(found):
            d = fr.order[i]
            if st.resident[d, model] > 0:
                fr.holders[taken] = d
                taken += 1
                if taken == fr.holders.size:
                    break
    return taken


@inlined
def find_neighbours(p: ProblemView, fr: FrameView, k: int, found: int) -> bool:
    """Put the k devices of one node that finish first into ``fr.team``; False: no node has k.

    ``fr.order[:found]`` are the devices that can run the stage, earliest end first.
    """
    # The first device at which some node has k: that node's k-th finisher is the earliest.
    for n in range(p.head[0].nodes):
        fr.tally[n] = 0
    for last in range(found):
        node = p.devices[fr.order[last]].node
        fr.tally[node] += 1
        if fr.tally[node] == k:
            taken = 0
            for i in range(last + 1):
                if p.devices[fr.order[i]].node == node:
                    fr.team[taken] = fr.order[i]
                    taken += 1
            return True
    return False


@inlined
def is_team(fr: FrameView, number: int, width: int, k: int) -> bool:
    """Whether a team of ``width`` devices is just ``fr.team[:k]``, in that order."""
    same = width == k
    for i in range(k):
        same = same and fr.members[number, i] == fr.team[i]
    return same


@inlined
def deal(p: ProblemView, fr: FrameView, action: int) -> int:
    """Put the placement of an action into ``fr.team`` and ``fr.deal``; returns its devices, or 0.

    The stage is ``fr.window[action // positions]``.
    """
    h = fr.head[0]
    slot, position = action // h.positions, action % h.positions
    if action < 0 or slot >= h.shown:
        return 0
    line = fr.lines[slot]
    k = fr.widths[line * h.positions + position]
    if position < h.devices:
        fr.team[0], fr.deal[0] = position, p.stages[fr.window[slot]].queries
    else:
        number = line * 3 * (h.shards - 1) + position - h.devices
        for i in range(k):
            fr.team[i], fr.deal[i] = fr.members[number, i], fr.counts[number, i]
    return k


@inlined
def split_queries(p: ProblemView, fr: FrameView, s: int, at: int, k: int) -> None:
    """As `fate_gym.sim.cost.split_queries`, for the team at ``at``."""
    queries = p.stages[s].queries
    total = 0.0
    for i in range(k):
        total += 1.0 / p.clean_seconds[s, fr.members[at, i]]
    left = queries
    for i in range(k):
        count = max(1, int(queries / p.clean_seconds[s, fr.members[at, i]] / total))
        fr.counts[at, i] = count
        left -= count
    while left != 0:
        best = 0
        best_value = -np.inf
        for i in range(k):
            value = float(fr.counts[at, i])
            if left > 0:
                share = queries / p.clean_seconds[s, fr.members[at, i]] / total
                value = share - fr.counts[at, i]
            if value > best_value:
                best, best_value = i, value
        fr.counts[at, best] += 1 if left > 0 else -1
        left += -1 if left > 0 else 1


__all__ = [
    "deal",
    "decode_seconds",
    "evicted",
    "find_holders",
    "find_neighbours",
    "is_team",
    "price_whole",
    "sort_devices",
    "split_queries",
]
