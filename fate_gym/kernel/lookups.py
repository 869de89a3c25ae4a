"""What views show of a state, for all devices at once. Arrays are (D,) and filled."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Floats, Ints, inlined, kernel
from fate_gym.kernel.advance import can_wait
from fate_gym.kernel.cost import Cost, context_hit_tokens, prefill_seconds
from fate_gym.kernel.draws import choice_draw
from fate_gym.kernel.estimate import drain_estimate, migrated_estimate, whole_cost
from fate_gym.kernel.numbers import next_in_queue
from fate_gym.kernel.openings import is_open, starts_now
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
    """Whether an event lies ahead that is worth waiting for."""
    return can_wait(p, st)


@kernel
def outstanding(p: ProblemArrays, st: StateArrays, out: Ints) -> None:
    """Shards that run or wait."""
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
def open_devices(p: ProblemArrays, st: StateArrays, out: Ints) -> int:
    """1 where some stage may start now; returns how many these are."""
    count = 0
    for d in range(out.size):
        out[d] = is_open(p, st, d)
        count += out[d]
    return count


@kernel
def starting(p: ProblemArrays, st: StateArrays, s: int, out: Ints) -> None:
    """1 where the whole stage would start now."""
    for d in range(out.size):
        hosts = p.clean_seconds[s, d] < np.inf
        out[d] = hosts and starts_now(p, st, s, d, p.stages[s].queries)


@kernel
def prefills(p: ProblemArrays, s: int, cached: Ints, out: Floats) -> None:
    """Prefill of the whole stage with ``cached`` prefix tokens; inf: cannot run."""
    for d in range(out.size):
        if p.clean_seconds[s, d] == np.inf:
            out[d] = np.inf
        elif p.stages[s].model < 0:
            out[d] = 0.0
        else:
            hit = float(min(cached[d], p.stages[s].prefix_tokens))
            out[d] = prefill_seconds(p, s, d, p.stages[s].queries, hit, 0.0)


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
            # Where the device has failed since, what it had put out is on its host.
            if not slot.on_host:
                out[slot.device] += edge.bytes * slot.queries / parent.queries


@kernel
def context_hits(p: ProblemArrays, st: StateArrays, s: int, out: Floats) -> None:
    """Inherited tokens of one query that need no prefill."""
    for d in range(out.size):
        out[d] = context_hit_tokens(p, st, s, d)


@kernel
def transfers(p: ProblemArrays, st: StateArrays, s: int, out: Floats) -> None:
    """Seconds to bring the stage's inputs, from the time the queue has drained; inf: down."""
    for d in range(out.size):
        turn = drain_estimate(p, st, d)
        out[d] = np.inf
        if turn < np.inf:
            out[d], _ = transfer_seconds(p, st, s, d, 1.0, turn)


@kernel
def drain_estimates(p: ProblemArrays, st: StateArrays, out: Floats) -> None:
    """When the queue is expected to be empty; inf: down."""
    for d in range(out.size):
        out[d] = drain_estimate(p, st, d)


@kernel
def whole_estimate(p: ProblemArrays, st: StateArrays, s: int, d: int, source: int) -> Cost:
    """What the whole stage costs on ``d``, if ``source`` (-1: nobody) sends its prefix."""
    cost = whole_cost(p, st, s, d)
    if source >= 0:
        cost = migrated_estimate(p, st, s, d, p.stages[s].queries, cost, source)
    return cost


@kernel
def draws_made(p: ProblemArrays, st: StateArrays, out: Floats) -> None:
    """Fill ``out`` (S,) where a chooser has drawn; the rest stays."""
    for s in range(p.stages.size):
        made = st.stages[s].status == DONE and st.stages[s].note != VANISHED
        if p.stages[s].chooses and made:
            out[s] = choice_draw(p, st, s)
