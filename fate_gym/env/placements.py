"""The placements behind the action numbers of one slot, and what they are expected to cost.

They are those of `fate_gym.sim.candidates`, bit for bit; a test compares the two. This version is
built into the pass that makes the observation: it allocates nothing, works out each device once,
and keeps the parts of the cost, which are features.
"""

from __future__ import annotations

from typing import NamedTuple

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


class Shard(NamedTuple):
    """Expected cost of a shard: seconds, bytes, tokens."""

    load: float
    transfer: float
    prefill: float
    decode: float
    moved: float
    prefix_hit: float
    context_hit: float  # of one query


@inlined
def shard(
    p: ProblemView, st: StateView, f: FactsView, s: int, d: int, n: int, turn: float
) -> Shard:
    """As `fate_gym.sim.cost.shard_cost`, with what is cached."""
    stage = p.stages[s]
    transfer, moved = transfer_seconds(p, st, s, d, n / stage.queries, turn)
    if stage.kind == FIXED_STAGE:
        return Shard(0.0, transfer, 0.0, p.clean_seconds[s, d], moved, 0.0, 0.0)
    load = 0.0 if st.resident[d, stage.model] else p.load_seconds[stage.model, d]
    prefix_hit = prefix_hit_tokens(p, st, s, d)
    context_hit = context_hit_tokens(p, st, s, d)
    if n == stage.queries:
        decode = p.decode_seconds[s, d]
        if prefix_hit == 0.0 and context_hit == 0.0:
            prefill = p.clean_seconds[s, d] - decode
            return Shard(load, transfer, prefill, decode, moved, 0.0, 0.0)
    else:
        decode = decode_seconds(p, f, s, d, n)
    prefill = prefill_seconds(p, s, d, n, prefix_hit, context_hit)
    return Shard(load, transfer, prefill, decode, moved, prefix_hit, context_hit)


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
    """Order the devices by ``fr.ends`` (stable); returns how many can run the stage."""
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
def split_placements(
    p: ProblemView, st: StateView, fr: FrameView, s: int, base: int, found: int
) -> None:
    """Fill the positions with two and more devices of the slot whose actions start at ``base``.

    ``fr.order[:found]`` are the devices that can run the stage, earliest end first.
    """
    stage = p.stages[s]
    shards = fr.head[0].shards
    first = base + fr.head[0].devices
    groups = shards - 1
    for i in range(3 * groups):
        fr.widths[first + i] = 0
    most = min(shards, min(stage.queries, min(found, p.head[0].max_shards)))
    for k in range(2, most + 1):
        at = first + k - 2
        for i in range(k):
            fr.members[at, i] = fr.order[i]
        _keep(p, fr, s, first, at, k)
        if stage.model >= 0:
            at += groups
            taken = 0
            for i in range(found):
                d = fr.order[i]
                if st.resident[d, stage.model] > 0:
                    fr.members[at, taken] = d
                    taken += 1
                    if taken == k:
                        break
            if taken == k:
                _keep(p, fr, s, first, at, k)
        at = first + 2 * groups + k - 2
        # The first device at which some node has k: the node's k-th finisher is the earliest.
        for last in range(k - 1, found):
            node = p.devices[fr.order[last]].node
            taken = 0
            for i in range(last + 1):
                if p.devices[fr.order[i]].node == node:
                    fr.members[at, min(taken, k - 1)] = fr.order[i]
                    taken += 1
            if taken == k:
                _keep(p, fr, s, first, at, k)
                break


@inlined
def _keep(p: ProblemView, fr: FrameView, s: int, first: int, at: int, k: int) -> None:
    """Accept the placement at ``at`` unless an earlier one of the slot has the same devices."""
    for other in range(first, at):
        if fr.widths[other] == k:
            same = True
            for i in range(k):
                same = same and fr.members[other, i] == fr.members[at, i]
            if same:
                return
    fr.widths[at] = k
    _split_queries(p, fr, s, at, k)


@inlined
def _split_queries(p: ProblemView, fr: FrameView, s: int, at: int, k: int) -> None:
    """As `fate_gym.sim.cost.split_queries`."""
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


__all__ = ["Shard", "decode_seconds", "shard", "sort_devices", "split_placements"]
