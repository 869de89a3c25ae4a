"""The cost of a shard: load, transfer, prefill, decode (docs/execution-model.md).

`fate_gym.kernel.estimate.shard_cost` puts these parts together into a `Cost`, which the engine,
views, policies, environment and bounds read. Nothing here changes the state, except
``link_seconds``, which is scratch and zero again on return.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.prefixes import cached_hit, computed_hit
from fate_gym.kernel.schema import (
    VANISHED,
    Device,
    Model,
    ProblemArrays,
    Stage,
    StateArrays,
)


class Cost(NamedTuple):
    """The estimated cost of a shard. Load and transfer both start at its turn.

    Attributes:
        turn: when it begins, seconds.
        load, transfer, prefill, decode: seconds.
        moved: bytes that come from elsewhere.
        copied: prefix tokens that another device sends.
        busy: seconds from turn to end; batching: seconds by which the device drains later.
        end: seconds.
        delay: seconds by which other shards on the device end later, summed; exclusive devices: 0.
    """

    turn: float
    load: float
    transfer: float
    prefill: float
    decode: float
    moved: float
    copied: float
    busy: float
    end: float
    delay: float


@inlined
def cost_of(
    turn: float,
    load: float,
    transfer: float,
    prefill: float,
    decode: float,
    moved: float,
    copied: float,
) -> Cost:
    """Return the `Cost` with these parts."""
    busy = max(load, transfer) + prefill + decode
    end = turn + max(load, transfer) + prefill + decode
    return Cost(turn, load, transfer, prefill, decode, moved, copied, busy, end, 0.0)


@inlined
def batch_limit(p: ProblemArrays, s: int, d: int) -> int:
    """Return the queries of stage ``s`` that fit in one wave on ``d`` once all else is evicted."""
    stage = p.stages[s]
    model = p.models[stage.model]
    own = (stage.prompt_tokens + stage.inherited_tokens + stage.output_tokens) * model.kv
    most = p.max_batch
    if own <= 0.0:
        return most
    room = p.devices[d].memory - model.weight_bytes - stage.prefix_tokens * model.kv
    return max(1, min(most, int(room // own)))


@inlined
def _weights_seconds(device: Device, model: Model, tokens: float) -> float:
    """Return the seconds to read the weights that ``tokens`` tokens use.

    For a mixture of experts, the experts expected to be drawn.
    """
    read = model.read_bytes
    if model.expert_bytes > 0.0:
        read -= model.expert_bytes * model.expert_miss**tokens
    return float(read / device.bandwidth)


@inlined
def between_seconds(device: Device, model: Model, tokens: float) -> float:
    """Return the seconds between the matrix products of a pass over ``tokens`` tokens.

    Without the fixed time of each layer.
    """
    passed = device.linear_passes * model.hidden + device.attention_passes * model.attended
    seconds = tokens * (2.0 * model.layers * passed) / device.memory_rate
    if device.reduce_bandwidth > 0.0:
        seconds += model.reduces * device.reduce_s
        seconds += tokens * model.reduce_bytes / device.reduce_bandwidth
    return float(seconds)


@inlined
def linear_seconds(device: Device, model: Model, tokens: float, logits: float) -> float:
    """Return the seconds of the matrix products with weights, for ``tokens`` > 0.

    ``logits`` of the tokens also pass the output projection.
    """
    flops = 2.0 * (model.active + model.head * logits / tokens)
    seconds = flops * (tokens + device.ramp_tokens) / device.flops
    return max(seconds, _weights_seconds(device, model, tokens))


@inlined
def step_seconds(stage: Stage, device: Device, model: Model, batch: int) -> float:
    """Return the seconds of one decode step of ``batch`` queries."""
    prompt = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens
    context = prompt + 0.5 * stage.output_tokens
    linear = 2.0 * (model.active + model.head) * (batch + device.ramp_tokens) / device.flops
    linear = max(linear, _weights_seconds(device, model, float(batch)))
    attention = batch * context * model.kv / device.attention_bandwidth
    between = between_seconds(device, model, float(batch))
    return linear + attention + between + model.layers * device.layer_s


@kernel
def decode_seconds(p: ProblemArrays, s: int, d: int, n: int) -> float:
    """Return the seconds to generate the output of ``n`` queries of stage ``s`` on device ``d``."""
    stage = p.stages[s]
    if stage.output_tokens == 0:
        return 0.0
    device = p.devices[d]
    model = p.models[stage.model]
    batch = min(n, p.batch[s, d])
    full = (n - 1) // batch
    total = step_seconds(stage, device, model, n - full * batch)
    if full > 0:
        total += full * step_seconds(stage, device, model, batch)
    return stage.output_tokens * total


@kernel
def prefill_seconds(
    p: ProblemArrays, s: int, d: int, n: int, prefix_hit: float, context_hit: float
) -> float:
    """Return the seconds to prefill ``n`` queries, given the tokens that need none.

    ``prefix_hit`` tokens of the prefix and ``context_hit`` tokens of each query are cached.
    """
    stage = p.stages[s]
    device = p.devices[d]
    model = p.models[stage.model]
    prefix = stage.prefix_tokens - prefix_hit
    prompt = stage.prompt_tokens + stage.inherited_tokens
    own = prompt - context_hit
    tokens = prefix + n * own
    if tokens > 0.0:
        seconds = linear_seconds(device, model, tokens, float(n))
        attended = prefix * (prefix_hit + 0.5 * prefix)
        attended += n * own * (stage.prefix_tokens + prompt - 0.5 * own)
        seconds += model.attention * attended / device.attention_flops
        seconds += between_seconds(device, model, tokens)
    else:
        seconds = _weights_seconds(device, model, tokens) + between_seconds(device, model, 0.0)
    return seconds + model.layers * device.layer_s + device.launch_s


@inlined
def prefix_hit_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Return the tokens of the stage's prefix that device ``d`` caches."""
    stage = p.stages[s]
    if stage.prefix < 0:
        return 0.0
    if p.batching:
        return float(computed_hit(p, st, d, stage.prefix, stage.prefix_tokens))
    return float(cached_hit(p, st, d, stage.prefix, stage.prefix_tokens))


@inlined
def context_hit_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Return one query's inherited tokens that need no prefill on ``d``, a mean over queries.

    They are cached there, or their parent has vanished.
    """
    if p.stages[s].inherited_tokens == 0:
        return 0.0
    return _context_hit_tokens(p, st, s, d)


@kernel
def _context_hit_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    stage = p.stages[s]
    hit = 0.0
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        if edge.inherited_tokens == 0:
            continue
        if st.stages[edge.parent].note == VANISHED:
            hit += edge.inherited_tokens
        elif edge.same_model:
            kept = kept_queries(st, edge.parent, d)
            if kept > 0:
                hit += edge.inherited_tokens * kept / p.stages[edge.parent].queries
    return hit


@inlined
def vanished_tokens(p: ProblemArrays, st: StateArrays, s: int) -> float:
    """Return the tokens that a query of stage ``s`` would have inherited from vanished parents."""
    gone = 0.0
    if p.choosers > 0:
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            if st.stages[p.edges[e].parent].note == VANISHED:
                gone += p.edges[e].inherited_tokens
    return gone


@inlined
def kept_queries(st: StateArrays, s: int, d: int) -> int:
    """Return the queries of finished stage ``s`` whose contexts are cached on ``d``."""
    for k in range(st.stages[s].shards):
        if st.slots[s, k].device == d:
            return st.slots[s, k].kept
    return 0


@kernel
def split_queries(p: ProblemArrays, s: int, devices: Ints, k: int, counts: Ints) -> None:
    """Split the queries of ``s`` over ``devices[:k]`` in proportion to speed, into ``counts``."""
    queries = p.stages[s].queries
    if k == 1:
        counts[0] = queries
        return
    total = 0.0
    for i in range(k):
        total += 1.0 / p.clean_seconds[s, devices[i]]
    left = queries
    for i in range(k):
        counts[i] = max(1, int(queries / p.clean_seconds[s, devices[i]] / total))
        left -= counts[i]
    while left != 0:
        best = 0
        best_value = -np.inf
        for i in range(k):
            value = float(counts[i])
            if left > 0:
                value = queries / p.clean_seconds[s, devices[i]] / total - counts[i]
            if value > best_value:
                best, best_value = i, value
        counts[best] += 1 if left > 0 else -1
        left += -1 if left > 0 else 1
