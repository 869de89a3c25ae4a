"""Estimates of what a shard costs on a device, and of when it ends.

On an exclusive device they are sums (`fate_gym.kernel.cost`); a batching device is played forward
(`fate_gym.kernel.batching.foresight`).
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Floats, Ints, inlined, kernel
from fate_gym.kernel.batching.foresight import foresee
from fate_gym.kernel.cost import (
    Cost,
    context_hit_tokens,
    cost_of,
    decode_seconds,
    prefill_seconds,
    prefix_hit_tokens,
)
from fate_gym.kernel.numbers import slot_of
from fate_gym.kernel.prefixes import path_there
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays
from fate_gym.kernel.transfer import over_link, prefix_and_parents_seconds, transfer_seconds


@kernel
def _batch_alone(p: ProblemArrays, st: StateArrays, d: int) -> tuple[float, float]:
    if st.devices[d].drains_at == np.inf:
        return np.inf, 0.0
    if st.batches[d].sequences == 0 and st.devices[d].queue_head < 0:
        return st.now, 0.0
    alone = foresee(p, st, -1, d, 0, -1, 0, 1)
    return alone.drained, alone.others


@kernel
def _batch_end(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, blind: int) -> float:
    if st.devices[d].drains_at == np.inf:
        return np.inf
    return foresee(p, st, s, d, n, -1, blind, 0).end


@kernel
def _batch_cost(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, source: int) -> Cost:
    """Return the cost of a shard on a batching device; *busy* is how much later it drains."""
    if st.devices[d].drains_at == np.inf:
        return cost_of(np.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    drained, others = _batch_alone(p, st, d)
    return _cost_in_batch(p, st, s, d, n, source, drained, others)


@kernel
def _cost_in_batch(
    p: ProblemArrays,
    st: StateArrays,
    s: int,
    d: int,
    n: int,
    source: int,
    drained: float,
    others: float,
) -> Cost:
    f = foresee(p, st, s, d, n, source, 0, 1)
    prefill = f.first - (f.turn + max(f.load, f.transfer))
    busy = f.drained - drained
    delay = max(0.0, f.others - others)  # not below 0 by rounding
    return Cost(
        f.turn,
        f.load,
        f.transfer,
        prefill,
        f.end - f.first,
        f.moved,
        float(f.copied),
        busy,
        f.end,
        delay,
    )


@inlined
def shard_end(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int) -> float:
    """Return the estimated end of ``n`` queries of stage ``s`` on ``d``, which may run it."""
    if p.batching:
        return _batch_end(p, st, s, d, n, 0)
    return _shard_cost(p, st, s, d, n, drain_estimate(p, st, d)).end


@inlined
def drain_estimate(p: ProblemArrays, st: StateArrays, d: int) -> float:
    """Return when the queue of ``d`` is expected to drain, not before now; inf: it is down."""
    if p.batching:
        return _batch_alone(p, st, d)[0]
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
def undisturbed(p: ProblemArrays, st: StateArrays, d: int) -> tuple[float, float]:
    """Return when ``d`` drains if no shard is added, and the sum of its shards' ends.

    The sum is 0 on an exclusive device; the first value is inf if the device is down.
    """
    if p.batching:
        return _batch_alone(p, st, d)
    return drain_estimate(p, st, d), 0.0


@inlined
def prefix_estimate(p: ProblemArrays, st: StateArrays, s: int, source: int) -> float:
    """Return when ``source`` is expected to have the prefix of stage ``s``, not before now.

    With noise it is unknown when a shard that computes the prefix will end, so the whole queue
    counts.
    """
    there = max(st.now, path_there(p, st, source, p.stages[s].prefix))
    if not p.batching and st.noisy and there > st.now:
        there = drain_estimate(p, st, source)
    return there


@kernel
def shard_cost(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, turn: float) -> Cost:
    """Return the estimated cost of ``n`` queries of stage ``s`` on device ``d``.

    ``turn`` is when the device's queue has drained (with contention: is expected to have). The
    state must be the one in which the device will be then.
    """
    if p.batching:
        return _batch_cost(p, st, s, d, n, -1)
    return _shard_cost(p, st, s, d, n, turn)


@inlined
def cost_beside(
    p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, drained: float, others: float
) -> Cost:
    """Return `shard_cost` on a device that is up, given `undisturbed` for it.

    Saves work when many shards are compared against the same queue or batch.
    """
    if p.batching:
        return _cost_in_batch(p, st, s, d, n, -1, drained, others)
    return shard_cost(p, st, s, d, n, drained)


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
    """Return a shard's cost if ``source`` sends ``d`` the prefix tokens that ``d`` lacks.

    It is ``cost`` if there are none. If the source is still computing the prefix, the shard waits
    until it is there; see `migrated_estimate` for when that is expected.
    """
    if p.stages[s].prefix < 0:
        return cost
    there = max(st.now, path_there(p, st, source, p.stages[s].prefix))
    return _migrated(p, st, s, d, n, cost, source, there)


@kernel
def migrated_estimate(
    p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, cost: Cost, source: int
) -> Cost:
    """Return `migrated_cost`, but waiting until the source is expected to have the prefix."""
    if p.stages[s].prefix < 0:
        return cost
    if p.batching:
        return _batch_cost(p, st, s, d, n, source)
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
    """Return the estimated cost of all queries of ``s`` on ``d``, from its expected turn on."""
    return shard_cost(p, st, s, d, p.stages[s].queries, turn_of(p, st, d))


@inlined
def turn_of(p: ProblemArrays, st: StateArrays, d: int) -> float:
    """Return the ``turn`` argument of `shard_cost`; batching devices ignore it."""
    return st.now if p.batching else drain_estimate(p, st, d)


@inlined
def end_estimate(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Return EFT*: the estimated end of all queries of ``s`` on ``d``; inf: it cannot run now."""
    if p.clean_seconds[s, d] == np.inf:
        return np.inf
    return shard_end(p, st, s, d, p.stages[s].queries)


@inlined
def strict_end_estimate(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Return the classical EFT: queue, transfer and clean cost, blind to residency and caches."""
    if p.clean_seconds[s, d] == np.inf:
        return np.inf
    if p.batching:
        return _batch_end(p, st, s, d, p.stages[s].queries, 1)
    turn = drain_estimate(p, st, d)
    if turn == np.inf:
        return np.inf  # down: no turn from which a transfer could be counted
    transfer, _ = transfer_seconds(p, st, s, d, 1.0, turn)
    return turn + transfer + p.clean_seconds[s, d]


@kernel
def end_estimates(p: ProblemArrays, st: StateArrays, s: int, ends: Floats) -> None:
    """Fill ``ends`` (D,) with `end_estimate`."""
    for d in range(ends.size):
        ends[d] = end_estimate(p, st, s, d)


@kernel
def placement_end(
    p: ProblemArrays, st: StateArrays, s: int, devices: Ints, counts: Ints, k: int
) -> float:
    """Return the estimated end of ``s`` split over ``devices[:k]`` with ``counts[:k]`` queries.

    With contention, shards do not see what the placement's other shards will book: the actual end
    may be later.
    """
    if k == 1:
        return end_estimate(p, st, s, devices[0])
    end = 0.0
    for i in range(k):
        end = max(end, shard_end(p, st, s, devices[i], counts[i]))
    return end + (k - 1) * p.gather_s
