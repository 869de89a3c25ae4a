"""What devices have to do: one set of numbers for those that batch and those that do not."""

from __future__ import annotations

from typing import NamedTuple

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.admission import wave_of
from fate_gym.kernel.batching.pace import GRAZE, iterations_until, pace_of, seconds_of
from fate_gym.kernel.batching.waves import rests
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.schema import DECODING, JOINED, ProblemArrays, StateArrays


class Load(NamedTuple):
    """The shards of a device.

    Attributes:
        queries: that run together.
        reserved: KV that these need, as a share of the memory beside the weights of their model.
        waiting: shards in line.
        tokens: still to be computed for all.
    """

    queries: int
    reserved: float
    waiting: int
    tokens: float


@inlined
def has_work(p: ProblemArrays, st: StateArrays, d: int) -> bool:
    """Whether something runs or waits on device ``d``."""
    if st.devices[d].queue_head >= 0:
        return True
    return bool(p.batching) and st.batches[d].sequences > 0


@kernel
def load_of(p: ProblemArrays, st: StateArrays, d: int) -> Load:
    """The load of device ``d``, without what nobody can know: actual lengths and noise to come."""
    if p.batching:
        return _load_of_batch(p, st, d)
    number = st.devices[d].queue_head
    if number < 0:
        return Load(0, 0.0, 0, 0.0)
    s, k = slot_of(p, number)
    slot = st.slots[s, k]
    queries = wave_of(p, s, d, slot.queries)
    reserved = 0.0
    if p.stages[s].model >= 0:
        kv = p.models[p.stages[s].model].kv
        held = p.stages[s].prefix_tokens * kv + queries * context_bytes(p, s)
        reserved = _share(p, d, p.stages[s].model, held)
    left = 0.0
    if slot.busy > 0.0:
        left = min(1.0, max(0.0, (slot.start + slot.busy - st.now) / slot.busy))
    waiting, more = _waiting(p, st, slot.next)
    tokens = left * _tokens(p, s, slot.queries, True) + more
    return Load(queries, reserved, waiting, tokens)


@inlined
def _load_of_batch(p: ProblemArrays, st: StateArrays, d: int) -> Load:
    batch = st.batches[d]
    waiting, tokens = _waiting(p, st, st.devices[d].queue_head)
    reserved = 0.0
    if batch.sequences > 0 and batch.serving >= 0:
        reserved = _share(p, d, batch.serving, batch.reserved + batch.pinned)
    for first in (batch.admitted, batch.prompt, batch.decoder):
        number = first
        while number >= 0:
            s, k = slot_of(p, number)
            tokens += _tokens_of_lane(p, st, s, k, batch.steps)
            number = st.slots[s, k].next
    if tokens > 0.0 and not rests(st, d) and batch.serving >= 0:
        tokens -= _tokens_since(p, st, d)
    return Load(batch.sequences, reserved, waiting, max(0.0, tokens))


@inlined
def _share(p: ProblemArrays, d: int, m: int, size: float) -> float:
    """``size`` bytes as a share of what the weights of model ``m`` leave of the memory."""
    room = p.devices[d].memory - p.models[m].weight_bytes
    return min(1.0, max(0.0, size / room)) if room > 0.0 else 0.0


@inlined
def _waiting(p: ProblemArrays, st: StateArrays, first: int) -> tuple[int, float]:
    """How many shards of a queue wait from ``first`` on, and their tokens."""
    count, tokens = 0, 0.0
    number = first
    while number >= 0:
        s, k = slot_of(p, number)
        count += 1
        if p.batching:
            lane = st.lanes[s, k]
            tokens += _tokens(p, s, lane.waiting, lane.number < 0)
        else:
            tokens += _tokens(p, s, st.slots[s, k].queries, True)
        number = next_in_queue(p, st, number)
    return count, tokens


@inlined
def _tokens(p: ProblemArrays, s: int, queries: int, with_prefix: bool) -> float:
    """Tokens of ``queries`` queries of stage ``s``, prompts and outputs."""
    stage = p.stages[s]
    own = stage.prompt_tokens + stage.inherited_tokens + stage.output_tokens
    return float(queries * own + (stage.prefix_tokens if with_prefix else 0))


@inlined
def _tokens_of_lane(p: ProblemArrays, st: StateArrays, s: int, k: int, steps: int) -> float:
    """Tokens that an admitted shard lacked at the last change of its device's batch."""
    lane = st.lanes[s, k]
    # Those of waves to come.
    tokens = _tokens(p, s, lane.waiting, False)
    if lane.state < JOINED:
        return tokens + _tokens(p, s, lane.wave, True)
    made = lane.made
    if lane.state == DECODING:
        made += steps - lane.since
    # Who is longer than expected makes one more at least.
    least = 0 if p.stages[s].output_tokens == 0 else 1
    output = lane.wave * max(least, p.stages[s].output_tokens - made)
    prompt = lane.prompt if p.stages[s].model >= 0 else 0
    return tokens + float(output + prompt)


@inlined
def _tokens_since(p: ProblemArrays, st: StateArrays, d: int) -> float:
    """Tokens that the iterations since the last change of the batch have computed."""
    batch = st.batches[d]
    passed = st.now - batch.time
    if batch.ahead == 0 or passed <= 0.0:
        return 0.0
    pace = pace_of(p, st, d)
    iterations = min(iterations_until(pace, passed), batch.ahead)
    if seconds_of(pace, iterations) > passed + GRAZE:
        iterations -= 1
    tokens = pace.chunk
    if batch.prompt < 0 or not p.prefill_first:
        tokens += batch.decoding
    return float(iterations * tokens)
