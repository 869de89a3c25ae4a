"""What a shard costs: load, transfer, prefill, decode (docs/execution-model.md).

`shard_cost` is the one place where these are put together; engine, views, policies, environment
and bounds read its `Cost`. Nothing here changes the state, but for ``link_seconds``, which is
scratch and zero again on return.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import Floats, Ints, inlined, kernel
from fate_gym.kernel.numbers import slot_of
from fate_gym.kernel.schema import (
    FIXED_STAGE,
    VANISHED,
    Device,
    Model,
    ProblemArrays,
    Stage,
    StateArrays,
)
from fate_gym.kernel.transfer import over_link, prefix_and_parents_seconds, transfer_seconds


class Cost(NamedTuple):
    """The estimated cost of a shard. Load and transfer begin together at its turn.

    Attributes:
        turn: when it begins, seconds.
        load, transfer, prefill, decode: seconds.
        moved: bytes that come from elsewhere.
        copied: prefix tokens that another device sends.
        busy: seconds from turn to end.
        end: seconds.
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
    """A cost of these parts."""
    busy = max(load, transfer) + prefill + decode
    end = turn + max(load, transfer) + prefill + decode
    return Cost(turn, load, transfer, prefill, decode, moved, copied, busy, end)


@inlined
def batch_limit(p: ProblemArrays, s: int, d: int) -> int:
    """Queries of stage ``s`` that fit in one wave on device ``d`` when all else is evicted."""
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
    """Seconds to read the weights that ``tokens`` tokens use: of a mixture, the experts drawn."""
    read = model.read_bytes
    if model.expert_bytes > 0.0:
        read -= model.expert_bytes * model.expert_miss**tokens
    return float(read / device.bandwidth)


@inlined
def between_seconds(device: Device, model: Model, tokens: float) -> float:
    """Seconds between the matrix products of a pass over ``tokens`` tokens, but for fixed times."""
    seconds = tokens * model.traffic / device.memory_rate
    if device.reduce_bandwidth > 0.0:
        seconds += model.reduces * device.reduce_s
        seconds += tokens * model.reduce_bytes / device.reduce_bandwidth
    return float(seconds)


@inlined
def linear_seconds(
    p: ProblemArrays, device: Device, model: Model, tokens: float, logits: float
) -> float:
    """Seconds of the matrix products with weights, for ``tokens`` > 0 and ``logits`` of them."""
    flops = 2.0 * (model.active + model.head * logits / tokens)
    seconds = flops * (tokens + p.ramp_tokens) / device.flops
    return max(seconds, _weights_seconds(device, model, tokens))


@inlined
def step_seconds(p: ProblemArrays, stage: Stage, device: Device, model: Model, batch: int) -> float:
    """Seconds of one decode step of ``batch`` queries."""
    prompt = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens
    context = prompt + 0.5 * stage.output_tokens
    linear = 2.0 * (model.active + model.head) * (batch + p.ramp_tokens) / device.flops
    linear = max(linear, _weights_seconds(device, model, float(batch)))
    attention = batch * context * model.kv / device.attention_bandwidth
    return linear + attention + between_seconds(device, model, float(batch)) + model.layers_s


@kernel
def decode_seconds(p: ProblemArrays, s: int, d: int, n: int) -> float:
    """Seconds to generate the output of ``n`` queries of stage ``s`` on device ``d``."""
    stage = p.stages[s]
    if stage.output_tokens == 0:
        return 0.0
    device = p.devices[d]
    model = p.models[stage.model]
    batch = min(n, p.batch[s, d])
    full = (n - 1) // batch
    total = step_seconds(p, stage, device, model, n - full * batch)
    if full > 0:
        total += full * step_seconds(p, stage, device, model, batch)
    return stage.output_tokens * total


@kernel
def prefill_seconds(
    p: ProblemArrays, s: int, d: int, n: int, prefix_hit: float, context_hit: float
) -> float:
    """Seconds to prefill ``n`` queries, given the tokens that need none.

    ``prefix_hit`` tokens of the prefix and ``context_hit`` of each query are cached.
    """
    stage = p.stages[s]
    device = p.devices[d]
    model = p.models[stage.model]
    prefix = stage.prefix_tokens - prefix_hit
    prompt = stage.prompt_tokens + stage.inherited_tokens
    own = prompt - context_hit
    tokens = prefix + n * own
    if tokens > 0.0:
        seconds = linear_seconds(p, device, model, tokens, float(n))
        attended = prefix * (prefix_hit + 0.5 * prefix)
        attended += n * own * (stage.prefix_tokens + prompt - 0.5 * own)
        seconds += model.attention * attended / device.attention_flops
        seconds += between_seconds(device, model, tokens)
    else:
        seconds = _weights_seconds(device, model, tokens)
    return seconds + model.layers_s + p.launch_s


@inlined
def prefix_hit_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Tokens of the stage's prefix that device ``d`` caches."""
    stage = p.stages[s]
    if stage.prefix < 0:
        return 0.0
    return float(min(stage.prefix_tokens, st.prefix_tokens[d, stage.prefix]))


@inlined
def context_hit_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Inherited tokens of one query that need no prefill on ``d`` (a mean over the queries).

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
    """Tokens that each query of stage ``s`` would have inherited from parents that vanished."""
    gone = 0.0
    if p.choosers > 0:
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            if st.stages[p.edges[e].parent].note == VANISHED:
                gone += p.edges[e].inherited_tokens
    return gone


@inlined
def kept_queries(st: StateArrays, s: int, d: int) -> int:
    """Queries of finished stage ``s`` whose contexts are cached on ``d``."""
    for k in range(st.stages[s].shards):
        if st.slots[s, k].device == d:
            return st.slots[s, k].kept
    return 0


@inlined
def drain_estimate(p: ProblemArrays, st: StateArrays, d: int) -> float:
    """When the queue of device ``d`` is expected to drain, not before now; inf: it is down."""
    dev = st.devices[d]
    now = st.now
    if not st.noisy:
        return max(now, dev.drains_at)
    if dev.queue_head < 0:
        return max(now, dev.drains_at)
    s, k = slot_of(p, dev.queue_head)
    running = st.slots[s, k]
    return max(now, running.start + running.busy) + (dev.backlog - running.busy)


@inlined
def prefix_estimate(p: ProblemArrays, st: StateArrays, s: int, source: int) -> float:
    """When ``source`` is expected to have the prefix of stage ``s``, not before now.

    With noise nobody knows when a shard that computes it will end: the whole queue counts.
    """
    there = max(st.now, st.prefix_there[source, p.stages[s].prefix])
    if st.noisy and there > st.now:
        there = drain_estimate(p, st, source)
    return there


@kernel
def shard_cost(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, turn: float) -> Cost:
    """The estimated cost of ``n`` queries of stage ``s`` on device ``d``.

    ``turn`` is the time at which the device's queue has drained: with contention, as it is
    expected. The state is the one that the device will be in then.
    """
    return _shard_cost(p, st, s, d, n, turn)


@inlined
def _shard_cost(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, turn: float) -> Cost:
    stage = p.stages[s]
    transfer, moved = transfer_seconds(p, st, s, d, n / stage.queries, turn)
    if stage.kind == FIXED_STAGE:
        return cost_of(turn, 0.0, transfer, 0.0, p.clean_seconds[s, d], moved, 0.0)
    load = 0.0 if st.resident[d, stage.model] else p.load_seconds[stage.model, d]
    prefix_hit = prefix_hit_tokens(p, st, s, d)
    context_hit = context_hit_tokens(p, st, s, d)
    if n == stage.queries:
        decode = p.decode_seconds[s, d]
        if prefix_hit == 0.0 and context_hit == 0.0:
            prefill = p.clean_seconds[s, d] - decode
            return cost_of(turn, load, transfer, prefill, decode, moved, 0.0)
    else:
        decode = decode_seconds(p, s, d, n)
    prefill = prefill_seconds(p, s, d, n, prefix_hit, context_hit)
    return cost_of(turn, load, transfer, prefill, decode, moved, 0.0)


@kernel
def migrated_cost(
    p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, cost: Cost, source: int
) -> Cost:
    """A shard's cost if ``source`` sends ``d`` the prefix tokens of stage ``s`` that ``d`` lacks.

    Where ``source`` has none that ``d`` lacks it is ``cost``. A shard whose source is still
    computing the prefix waits for it until it is there; `migrated_estimate` says when that is
    expected.
    """
    if p.stages[s].prefix < 0:
        return cost
    there = max(st.now, st.prefix_there[source, p.stages[s].prefix])
    return _migrated(p, st, s, d, n, cost, source, there)


@kernel
def migrated_estimate(
    p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, cost: Cost, source: int
) -> Cost:
    """Like `migrated_cost`, but waits until the source is expected to have the prefix."""
    if p.stages[s].prefix < 0:
        return cost
    return _migrated(p, st, s, d, n, cost, source, prefix_estimate(p, st, s, source))


@inlined
def _migrated(
    p: ProblemArrays,
    st: StateArrays,
    s: int,
    d: int,
    n: int,
    cost: Cost,
    source: int,
    there: float,
) -> Cost:
    stage = p.stages[s]
    if stage.kind == FIXED_STAGE or source == d:
        return cost
    here = prefix_hit_tokens(p, st, s, d)
    copied = prefix_hit_tokens(p, st, s, source) - here
    if copied <= 0.0:
        return cost
    size = copied * p.models[stage.model].kv
    turn = max(cost.turn, there)
    seconds = over_link(p, source, d, size)
    share = n / stage.queries
    if p.eager:
        transfer, moved = transfer_seconds(p, st, s, d, share, turn)
        transfer = max(transfer, there + seconds - turn)
    else:
        planned = max(drain_estimate(p, st, d), prefix_estimate(p, st, s, source))
        transfer, moved = prefix_and_parents_seconds(p, st, s, d, share, source, seconds, planned)
    context_hit = context_hit_tokens(p, st, s, d)
    prefill = prefill_seconds(p, s, d, n, here + copied, context_hit)
    return cost_of(turn, cost.load, transfer, prefill, cost.decode, moved + size, copied)


@kernel
def whole_cost(p: ProblemArrays, st: StateArrays, s: int, d: int) -> Cost:
    """The estimated cost of all queries of ``s`` on ``d``, from its expected turn on."""
    return _shard_cost(p, st, s, d, p.stages[s].queries, drain_estimate(p, st, d))


@inlined
def end_estimate(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """EFT*: estimated end of all queries of ``s`` on ``d``; inf where it cannot run now."""
    if p.clean_seconds[s, d] == np.inf:
        return np.inf
    return _shard_cost(p, st, s, d, p.stages[s].queries, drain_estimate(p, st, d)).end


@inlined
def strict_end_estimate(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """The classical EFT: queue, transfer and clean cost; blind to residency and caches."""
    if p.clean_seconds[s, d] == np.inf:
        return np.inf
    turn = drain_estimate(p, st, d)
    if turn == np.inf:
        return np.inf  # down: there is no time from then on in which inputs could come
    transfer, _ = transfer_seconds(p, st, s, d, 1.0, turn)
    return turn + transfer + p.clean_seconds[s, d]


@kernel
def end_estimates(p: ProblemArrays, st: StateArrays, s: int, ends: Floats) -> None:
    """Fill ``ends`` (D,) with `end_estimate`."""
    for d in range(ends.size):
        ends[d] = end_estimate(p, st, s, d)


@kernel
def split_queries(p: ProblemArrays, s: int, devices: Ints, k: int, counts: Ints) -> None:
    """Deal the queries of ``s`` over ``devices[:k]`` in proportion to speed, into ``counts``."""
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


@kernel
def placement_end(
    p: ProblemArrays, st: StateArrays, s: int, devices: Ints, counts: Ints, k: int
) -> float:
    """Estimated end of stage ``s`` split over ``devices[:k]`` with ``counts[:k]`` queries.

    With contention the shards do not see what the others of the placement will book: the end may
    be later.
    """
    if k == 1:
        return end_estimate(p, st, s, devices[0])
    end = 0.0
    for i in range(k):
        turn = drain_estimate(p, st, devices[i])
        end = max(end, shard_cost(p, st, s, devices[i], counts[i], turn).end)
    return end + (k - 1) * p.gather_s
