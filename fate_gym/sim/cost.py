"""What a shard costs: load, transfer, prefill, decode (docs/execution-model.md).

Pure functions of the problem and the state, compiled. Nothing here changes the state, but for
``link_seconds``, which is scratch and zero again on return.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.contention import shared_fetch
from fate_gym.sim.layout import (
    FIXED_STAGE,
    TOOL_STAGE,
    VANISHED,
    Array,
    Buffer,
    ProblemView,
    Record,
    StateView,
    problem_view,
    state_view,
)


@inlined
def batch_limit(p: ProblemView, s: int, d: int) -> int:
    """Queries of stage ``s`` that fit in one wave on device ``d`` when all else is evicted."""
    st = p.stages[s]
    model = p.models[st.model]
    own = (st.prompt_tokens + st.inherited_tokens + st.output_tokens) * model.kv
    most = p.head[0].max_batch
    if own <= 0.0:
        return most
    room = p.devices[d].memory - model.weight_bytes - st.prefix_tokens * model.kv
    return max(1, min(most, int(room // own)))


@inlined
def _weights_seconds(device: Record, model: Record, tokens: float) -> float:
    """Seconds to read the weights that ``tokens`` tokens use: of a mixture, the experts drawn."""
    read = model.read_bytes
    if model.expert_bytes > 0.0:
        read -= model.expert_bytes * model.expert_miss**tokens
    return float(read / device.bandwidth)


@inlined
def _step_seconds(p: ProblemView, st: Record, device: Record, model: Record, batch: int) -> float:
    """Seconds of one decode step of ``batch`` queries."""
    context = st.prefix_tokens + st.prompt_tokens + st.inherited_tokens + 0.5 * st.output_tokens
    linear = 2.0 * (model.active + model.head) * (batch + p.head[0].ramp_tokens) / device.flops
    linear = max(linear, _weights_seconds(device, model, float(batch)))
    attention = batch * context * model.kv / device.attention_bandwidth
    between = batch * model.traffic / device.memory_rate
    return linear + attention + between + model.layers_s


@compiled
def decode_seconds(p: ProblemView, s: int, d: int, n: int) -> float:
    """Seconds to generate the output of ``n`` queries of stage ``s`` on device ``d``."""
    st = p.stages[s]
    if st.output_tokens == 0:
        return 0.0
    device = p.devices[d]
    model = p.models[st.model]
    batch = min(n, batch_limit(p, s, d))
    full = (n - 1) // batch
    total = _step_seconds(p, st, device, model, n - full * batch)
    if full > 0:
        total += full * _step_seconds(p, st, device, model, batch)
    return st.output_tokens * total


@inlined
def prefill_seconds(
    p: ProblemView, s: int, d: int, n: int, prefix_hit: float, context_hit: float
) -> float:
    """Seconds to prefill ``n`` queries, given the tokens that need none.

    ``prefix_hit`` tokens of the prefix and ``context_hit`` of each query are cached.
    """
    st = p.stages[s]
    device = p.devices[d]
    model = p.models[st.model]
    prefix = st.prefix_tokens - prefix_hit
    prompt = st.prompt_tokens + st.inherited_tokens
    own = prompt - context_hit
    tokens = prefix + n * own
    seconds = _weights_seconds(device, model, tokens)
    if tokens > 0.0:
        flops = 2.0 * (model.active + model.head * n / tokens)
        seconds = max(seconds, flops * (tokens + p.head[0].ramp_tokens) / device.flops)
        attended = prefix * (prefix_hit + 0.5 * prefix)
        attended += n * own * (st.prefix_tokens + prompt - 0.5 * own)
        seconds += model.attention * attended / device.attention_flops
        seconds += tokens * model.traffic / device.memory_rate
    return seconds + model.layers_s + p.head[0].launch_s


@inlined
def prefix_hit_tokens(p: ProblemView, st: StateView, s: int, d: int) -> float:
    """Tokens of the stage's prefix that device ``d`` caches."""
    stage = p.stages[s]
    if stage.prefix < 0:
        return 0.0
    return float(min(stage.prefix_tokens, st.prefix_tokens[d, stage.prefix]))


@inlined
def context_hit_tokens(p: ProblemView, st: StateView, s: int, d: int) -> float:
    """Inherited tokens of one query that need no prefill on ``d`` (a mean over the queries).

    They are cached there, or their parent has vanished.
    """
    stage = p.stages[s]
    hit = 0.0
    if stage.inherited_tokens == 0:
        return hit
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        if edge.inherited_tokens == 0:
            continue
        if st.stages[edge.parent].note == VANISHED:
            hit += edge.inherited_tokens
        elif edge.same_model:
            kept = kept_queries(st, int(edge.parent), d)
            if kept > 0:
                hit += edge.inherited_tokens * kept / p.stages[edge.parent].queries
    return hit


@inlined
def vanished_tokens(p: ProblemView, st: StateView, s: int) -> float:
    """Tokens that each query of stage ``s`` would have inherited from parents that vanished."""
    gone = 0.0
    if p.head[0].choosers > 0:
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            if st.stages[p.edges[e].parent].note == VANISHED:
                gone += p.edges[e].inherited_tokens
    return gone


@inlined
def kept_queries(st: StateView, s: int, d: int) -> int:
    """Queries of finished stage ``s`` whose contexts are cached on ``d``; below 1: none are."""
    for k in range(st.stages[s].shards):
        if st.slots[s, k].device == d:
            return st.slots[s, k].kept
    return 0


@inlined
def transfer_seconds(
    p: ProblemView, st: StateView, s: int, d: int, share: float, turn: float
) -> tuple[float, float]:
    """Seconds and bytes to bring the parents' outputs for ``share`` of the queries to ``d``.

    ``turn`` matters in two cases only. With eager transfers the result is what is left of them;
    with contention it includes the wait for the network, by what is booked.
    """
    if p.head[0].eager:
        return _eager_transfer(p, st, s, d, share, turn)
    seconds, moved = add_link_seconds(p, st, s, d, share)
    if seconds > 0.0:
        if p.head[0].contention:
            seconds, _, _, _ = shared_fetch(p.buffer, st.buffer, d, turn)
        st.link_seconds[:] = 0.0
    return seconds, moved


@inlined
def add_link_seconds(
    p: ProblemView, st: StateView, s: int, d: int, share: float
) -> tuple[float, float]:
    """Add what the parents send over each link into ``d`` to ``link_seconds``.

    Returns the most seconds of a link, and the bytes. The caller sets ``link_seconds`` to 0.
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
            st.link_seconds[host] += p.link_latency[d, d] + size / p.devices[d].host_bandwidth
            seconds = max(seconds, st.link_seconds[host])
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if slot.device == d:
                if slot.kept >= 0:
                    continue
                # The device has failed since: what it had put out comes back from the host.
                size = edge.bytes * share * slot.queries / parent.queries
                moved += size
                st.link_seconds[host] += p.link_latency[d, d] + size / p.devices[d].host_bandwidth
                seconds = max(seconds, st.link_seconds[host])
                continue
            size = edge.bytes * share * slot.queries / parent.queries
            link = p.link[slot.device, d]
            moved += size
            st.link_seconds[link] += (
                p.link_latency[slot.device, d] + size / p.link_bandwidth[slot.device, d]
            )
            seconds = max(seconds, st.link_seconds[link])
    return seconds, moved


@compiled
def _eager_transfer(
    p: ProblemView, st: StateView, s: int, d: int, share: float, turn: float
) -> tuple[float, float]:
    stage = p.stages[s]
    if turn == np.inf:
        return 0.0, 0.0  # the device is down; the rest of `turn` would not be a number
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
            size = edge.bytes * share * slot.queries / parent.queries
            if slot.device == d and slot.kept < 0:
                moved += size
                delay = p.link_latency[d, d] + size / p.devices[d].host_bandwidth
                there = max(there, end + delay)
            elif slot.device != d:
                moved += size
                delay = p.link_latency[slot.device, d] + size / p.link_bandwidth[slot.device, d]
                there = max(there, end + delay)
    # A device that is down has no turn; what would come there is no reason to choose it.
    return (there - turn if turn < np.inf else 0.0), moved


@compiled
def tool_transfer_seconds(p: ProblemView, st: StateView, s: int) -> tuple[float, float]:
    """Seconds and bytes to bring the parents' outputs of a tool stage to the host."""
    stage = p.stages[s]
    now = st.head[0].now
    seconds = 0.0
    moved = 0.0
    for e in range(stage.parents_from, stage.parents_to):
        edge = p.edges[e]
        parent = p.stages[edge.parent]
        if edge.bytes <= 0.0 or parent.kind == TOOL_STAGE:
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            if slot.kept < 0:
                continue
            d = slot.device
            size = edge.bytes * slot.queries / parent.queries
            moved += size
            delay = p.link_latency[d, d] + size / p.devices[d].host_bandwidth
            if p.head[0].eager:
                seconds = max(seconds, st.stages[edge.parent].end + delay - now)
            else:
                st.link_seconds[d] += delay
                seconds = max(seconds, st.link_seconds[d])
    if seconds > 0.0:
        st.link_seconds[:] = 0.0
    return seconds, moved


@inlined
def drain_estimate(p: ProblemView, st: StateView, d: int) -> float:
    """When the queue of device ``d`` is expected to drain, not before now; inf: it is down."""
    dev = st.devices[d]
    now = st.head[0].now
    if not st.head[0].noisy:
        return max(now, dev.drains_at)
    if dev.queue_head < 0:
        return max(now, dev.drains_at)
    shards = p.head[0].max_shards
    running = st.slots[dev.queue_head // shards, dev.queue_head % shards]
    return max(now, running.start + running.busy) + (dev.backlog - running.busy)


@inlined
def prefix_estimate(p: ProblemView, st: StateView, s: int, source: int) -> float:
    """When ``source`` is expected to have the prefix of stage ``s``, not before now.

    With noise nobody knows when a shard that computes it will end: the whole queue counts.
    """
    there = max(st.head[0].now, st.prefix_there[source, p.stages[s].prefix])
    if st.head[0].noisy and there > st.head[0].now:
        there = drain_estimate(p, st, source)
    return there


@inlined
def shard_cost(
    p: ProblemView, st: StateView, s: int, d: int, n: int, turn: float
) -> tuple[float, float, float, float, float]:
    """Estimated (load, transfer, prefill, decode, bytes moved) of ``n`` queries of ``s`` on ``d``.

    ``turn`` is the time at which the device's queue has drained: with contention, as it is
    expected. The state is the one that the device will be in then.
    """
    stage = p.stages[s]
    transfer, moved = transfer_seconds(p, st, s, d, n / stage.queries, turn)
    if stage.kind == FIXED_STAGE:
        return 0.0, transfer, 0.0, p.clean_seconds[s, d], moved
    load = 0.0 if st.resident[d, stage.model] else p.load_seconds[stage.model, d]
    prefix_hit = prefix_hit_tokens(p, st, s, d)
    context_hit = context_hit_tokens(p, st, s, d)
    if n == stage.queries:
        decode = p.decode_seconds[s, d]
        if prefix_hit == 0.0 and context_hit == 0.0:
            return load, transfer, p.clean_seconds[s, d] - decode, decode, moved
    else:
        decode = decode_seconds(p, s, d, n)
    prefill = prefill_seconds(p, s, d, n, prefix_hit, context_hit)
    return load, transfer, prefill, decode, moved


@compiled
def migrated_cost(
    problem: Buffer, state: Buffer, s: int, d: int, n: int, turn: float, source: int, expected: bool
) -> tuple[float, float, float, float, float]:
    """What changes if ``source`` sends ``d`` the prefix tokens of stage ``s`` that ``d`` lacks.

    Returns (tokens copied, turn, transfer, prefill, bytes moved); 0 tokens: nothing changes, and
    the rest has no meaning. A shard whose source is still computing the prefix waits for it:
    until it is there, or with ``expected`` until the source's queue is expected to drain.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    stage = p.stages[s]
    if stage.kind == FIXED_STAGE or source == d:
        return 0.0, turn, 0.0, 0.0, 0.0
    here = prefix_hit_tokens(p, st, s, d)
    copied = prefix_hit_tokens(p, st, s, source) - here
    if copied <= 0.0:
        return 0.0, turn, 0.0, 0.0, 0.0
    size = copied * p.models[stage.model].kv
    seconds = p.link_latency[source, d] + size / p.link_bandwidth[source, d]
    there = max(st.head[0].now, st.prefix_there[source, stage.prefix])
    if expected:
        there = prefix_estimate(p, st, s, source)
    turn = max(turn, there)
    if p.head[0].eager:
        transfer, moved = transfer_seconds(p, st, s, d, n / stage.queries, turn)
        transfer = max(transfer, there + seconds - turn)
    else:
        # The prefix shares its link with what comes from the parents.
        st.link_seconds[p.link[source, d]] = seconds
        transfer, moved = add_link_seconds(p, st, s, d, n / stage.queries)
        transfer = max(transfer, seconds)
        if p.head[0].contention:
            planned = max(drain_estimate(p, st, d), prefix_estimate(p, st, s, source))
            transfer, _, _, _ = shared_fetch(problem, state, d, planned)
        st.link_seconds[:] = 0.0
    context_hit = context_hit_tokens(p, st, s, d)
    prefill = prefill_seconds(p, s, d, n, here + copied, context_hit)
    return copied, turn, transfer, prefill, moved + size


@inlined
def end_estimate(p: ProblemView, st: StateView, s: int, d: int) -> float:
    """EFT*: estimated end of all queries of ``s`` on ``d``; inf where it cannot run now."""
    if p.clean_seconds[s, d] == np.inf:
        return np.inf
    turn = drain_estimate(p, st, d)
    load, transfer, prefill, decode, _ = shard_cost(p, st, s, d, int(p.stages[s].queries), turn)
    return turn + max(load, transfer) + prefill + decode


@compiled
def split_queries(p: ProblemView, s: int, devices: Array, k: int, counts: Array) -> None:
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


@compiled
def placement_end(
    p: ProblemView, st: StateView, s: int, devices: Array, counts: Array, k: int
) -> float:
    """Estimated end of stage ``s`` split over ``devices[:k]`` with ``counts[:k]`` queries.

    With contention the shards do not see what the others of the placement will book: the end may
    be later.
    """
    if k == 1:
        return end_estimate(p, st, s, devices[0])
    end = 0.0
    for i in range(k):
        d = devices[i]
        turn = drain_estimate(p, st, d)
        load, transfer, prefill, decode, _ = shard_cost(p, st, s, d, counts[i], turn)
        end = max(end, turn + max(load, transfer) + prefill + decode)
    return end + (k - 1) * p.head[0].gather_s


@inlined
def strict_end_estimate(p: ProblemView, st: StateView, s: int, d: int) -> float:
    """The classical EFT: queue, transfer and clean cost; blind to residency and caches."""
    if p.clean_seconds[s, d] == np.inf:
        return np.inf
    turn = drain_estimate(p, st, d)
    if turn == np.inf:
        return np.inf  # down: there is no time from then on in which inputs could come
    transfer, _ = transfer_seconds(p, st, s, d, 1.0, turn)
    return turn + transfer + p.clean_seconds[s, d]


__all__ = [
    "add_link_seconds",
    "batch_limit",
    "context_hit_tokens",
    "decode_seconds",
    "drain_estimate",
    "end_estimate",
    "kept_queries",
    "migrated_cost",
    "placement_end",
    "prefill_seconds",
    "prefix_estimate",
    "prefix_hit_tokens",
    "shard_cost",
    "split_queries",
    "strict_end_estimate",
    "tool_transfer_seconds",
    "transfer_seconds",
    "vanished_tokens",
]
