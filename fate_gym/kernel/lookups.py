"""What views show of a state, for all devices at once. Functions fill an array (D,)."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Floats, Ints, inlined, kernel
from fate_gym.kernel.advance import can_wait
from fate_gym.kernel.batching.admission import wave_of
from fate_gym.kernel.batching.foresight import foresee
from fate_gym.kernel.cost import Cost, context_hit_tokens, decode_seconds, prefill_seconds
from fate_gym.kernel.draws import choice_draw
from fate_gym.kernel.estimate import drain_estimate, migrated_estimate, turn_of, whole_cost
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.openings import is_open, starts_now
from fate_gym.kernel.prefixes import cached_hit, path_there
from fate_gym.kernel.schema import (
    DONE,
    TOOL_STAGE,
    VANISHED,
    ProblemArrays,
    StateArrays,
)
from fate_gym.kernel.transfer import transfer_seconds


@kernel
def event_ahead(p: ProblemArrays, st: StateArrays) -> bool:
    """Return whether an event lies ahead that is worth waiting for."""
    return can_wait(p, st)


@kernel
def outstanding(p: ProblemArrays, st: StateArrays, out: Ints) -> None:
    """Count the shards that run or wait."""
    for d in range(out.size):
        out[d] = _length(p, st, st.devices[d].queue_head)
        if p.batching:
            batch = st.batches[d]
            for head in (batch.admitted, batch.prompt, batch.decoder):
                out[d] += _length(p, st, head)


@inlined
def _length(p: ProblemArrays, st: StateArrays, head: int) -> int:
    count = 0
    number = head
    while number >= 0:
        count += 1
        number = next_in_queue(p, st, number)
    return count


@kernel
def outstanding_queries(p: ProblemArrays, st: StateArrays, out: Ints) -> None:
    """Count the queries that run or wait, without those of waves that have ended."""
    for d in range(out.size):
        out[d] = _queries(p, st, st.devices[d].queue_head, 0)
        if p.batching:
            batch = st.batches[d]
            for head in (batch.admitted, batch.prompt, batch.decoder):
                out[d] += _queries(p, st, head, 1)


@inlined
def _queries(p: ProblemArrays, st: StateArrays, head: int, runs: int) -> int:
    """Return the queries of the shards in a list; ``runs``: 1 if their waves are admitted."""
    count = 0
    number = head
    while number >= 0:
        s, k = slot_of(p, number)
        if p.batching:
            count += st.lanes[s, k].waiting + runs * st.lanes[s, k].wave
        else:
            count += st.slots[s, k].queries
        number = next_in_queue(p, st, number)
    return count


@kernel
def headroom(p: ProblemArrays, st: StateArrays, s: int, out: Floats) -> None:
    """Bytes of memory available to the KV of stage ``s``."""
    m = p.stages[s].model
    for d in range(out.size):
        weights = 0.0 if m < 0 else p.models[m].weight_bytes
        if p.batching:
            batch = st.batches[d]
            out[d] = p.devices[d].memory - weights - batch.reserved - batch.pinned
            continue
        if m >= 0 and st.resident[d, m]:
            weights = 0.0
        free = p.devices[d].memory - st.devices[d].weight_bytes
        out[d] = free - st.devices[d].kv_bytes - weights


@kernel
def open_devices(p: ProblemArrays, st: StateArrays, out: Ints) -> None:
    """1 where some stage may start now."""
    for d in range(out.size):
        out[d] = is_open(p, st, d)


@kernel
def starting(p: ProblemArrays, st: StateArrays, s: int, out: Ints) -> None:
    """1 where the whole stage would start now."""
    for d in range(out.size):
        hosts = p.clean_seconds[s, d] < np.inf
        out[d] = hosts and starts_now(p, st, s, d, p.stages[s].queries)


@kernel
def prefills(p: ProblemArrays, s: int, cached: Ints, out: Floats) -> None:
    """Prefill seconds of the whole stage with ``cached`` prefix tokens; inf: cannot run."""
    for d in range(out.size):
        if p.clean_seconds[s, d] == np.inf:
            out[d] = np.inf
        elif p.stages[s].model < 0:
            out[d] = 0.0
        else:
            hit = float(min(cached[d], p.stages[s].prefix_tokens))
            out[d] = prefill_seconds(p, s, d, p.stages[s].queries, hit, 0.0)


@kernel
def full_batches(p: ProblemArrays, s: int, out: Floats) -> None:
    """Seconds of the whole stage as its share of full batches; inf: cannot run."""
    for d in range(out.size):
        out[d] = p.clean_seconds[s, d]
        if out[d] < np.inf and p.stages[s].model >= 0:
            batch = p.batch[s, d]
            share = p.stages[s].queries / batch
            out[d] += share * decode_seconds(p, s, d, batch) - p.decode_seconds[s, d]


@kernel
def local_bytes(p: ProblemArrays, st: StateArrays, s: int, out: Floats) -> None:
    """Bytes of the stage's inputs that lie on each device."""
    for d in range(out.size):
        out[d] = 0.0
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        edge = p.edges[e]
        parent = p.stages[edge.parent]
        if parent.kind == TOOL_STAGE:
            continue
        for k in range(st.stages[edge.parent].shards):
            slot = st.slots[edge.parent, k]
            # Outputs of a device that has failed since are on its host, or lost.
            if slot.device >= 0 and not slot.on_host:
                out[slot.device] += edge.bytes * slot.queries / parent.queries


@kernel
def prefix_hits(p: ProblemArrays, st: StateArrays, s: int, out: Ints) -> None:
    """Prefix tokens that are cached, or that an admitted shard is to compute."""
    stage = p.stages[s]
    for d in range(out.size):
        out[d] = cached_hit(p, st, d, stage.prefix, stage.prefix_tokens)


@kernel
def loading_prefixes(p: ProblemArrays, st: StateArrays, s: int, out: Ints) -> None:
    """1 where part of the cached prefix is still to be computed."""
    for d in range(out.size):
        out[d] = path_there(p, st, d, p.stages[s].prefix) > st.now


@kernel
def context_hits(p: ProblemArrays, st: StateArrays, s: int, out: Floats) -> None:
    """Inherited tokens of one query that need no prefill."""
    for d in range(out.size):
        out[d] = context_hit_tokens(p, st, s, d)


@kernel
def transfers(p: ProblemArrays, st: StateArrays, s: int, out: Floats) -> None:
    """Seconds to bring the stage's inputs, from its turn (batching: from now); inf: down."""
    for d in range(out.size):
        out[d] = np.inf
        if st.devices[d].drains_at < np.inf:
            out[d], _ = transfer_seconds(p, st, s, d, 1.0, turn_of(p, st, d))


@kernel
def drain_estimates(p: ProblemArrays, st: StateArrays, out: Floats) -> None:
    """When the queue is expected to be empty; inf: down."""
    for d in range(out.size):
        out[d] = drain_estimate(p, st, d)


@kernel
def turns(p: ProblemArrays, st: StateArrays, s: int, prompts: int, out: Floats) -> None:
    """Time at which the whole stage would begin behind all that waits; inf: cannot run, or down.

    With ``prompts`` 1: the time at which the prompts ahead of its own are computed as well.
    """
    for d in range(out.size):
        out[d] = np.inf
        if p.clean_seconds[s, d] == np.inf or st.devices[d].drains_at == np.inf:
            continue
        if p.batching:
            out[d] = _batch_turn(p, st, s, d, prompts)
        else:
            out[d] = drain_estimate(p, st, d)


@kernel
def _batch_turn(p: ProblemArrays, st: StateArrays, s: int, d: int, prompts: int) -> float:
    stage = p.stages[s]
    f = foresee(p, st, s, d, stage.queries, -1, 1, 0)
    if not prompts or stage.model < 0:
        return f.turn
    own = prefill_seconds(p, s, d, wave_of(p, s, d, stage.queries), 0.0, 0.0)
    return f.turn + max(0.0, f.first - f.turn - f.transfer - own)


@kernel
def whole_estimate(p: ProblemArrays, st: StateArrays, s: int, d: int, source: int) -> Cost:
    """Return the cost of the whole stage on ``d``; ``source`` sends its prefix, -1: none does."""
    cost = whole_cost(p, st, s, d)
    if source >= 0:
        cost = migrated_estimate(p, st, s, d, p.stages[s].queries, cost, source)
    return cost


@kernel
def draws_made(p: ProblemArrays, st: StateArrays, out: Floats) -> None:
    """Fill ``out`` (S,) for choosers that have drawn; other entries stay unchanged."""
    for s in range(p.stages.size):
        made = st.stages[s].status == DONE and st.stages[s].note != VANISHED
        if p.stages[s].chooses and made:
            out[s] = choice_draw(p, st, s)
