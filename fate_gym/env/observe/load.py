"""The load of devices, in the same terms for exclusive and batching ones."""

from __future__ import annotations

from fate_gym.env.schema import Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.admission import wave_of
from fate_gym.kernel.batching.pace import iterations_passed, pace_of
from fate_gym.kernel.batching.waves import rests
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.schema import DECODING, JOINED, ProblemArrays, StateArrays


@inlined
def has_work(p: ProblemArrays, st: StateArrays, d: int) -> bool:
    """Return whether something runs or waits on device ``d``."""
    if st.devices[d].queue_head >= 0:
        return True
    return bool(p.batching) and st.batches[d].sequences > 0


@kernel
def measure_load(run: Run, d: int) -> None:
    """Measure the load of device ``d`` from estimated lengths, without noise."""
    p, st, now = run.problem, run.state, run.episode.devices[d]
    now.head = st.devices[d].queue_head + 2
    now.running_seconds, now.running_tokens, now.reserved = 0.0, 0.0, 0.0
    if p.batching:
        _measure_batch(run, d)
        return
    now.queries, now.waiting, now.tokens = 0, 0, 0.0
    number = st.devices[d].queue_head
    if number < 0:
        return
    s, k = slot_of(p, number)
    slot = st.slots[s, k]
    now.queries = wave_of(p, s, d, slot.queries)
    if p.stages[s].model >= 0:
        kv = p.models[p.stages[s].model].kv
        held = p.stages[s].prefix_tokens * kv + now.queries * context_bytes(p, s)
        now.reserved = _share(p, d, p.stages[s].model, held)
    now.running_since, now.running_seconds = slot.start, slot.busy
    now.running_tokens = _tokens(p, s, slot.queries, True)
    now.waiting, now.tokens = _waiting(p, st, slot.next)


@inlined
def _measure_batch(run: Run, d: int) -> None:
    p, st, now = run.problem, run.state, run.episode.devices[d]
    batch = st.batches[d]
    now.waiting, tokens = _waiting(p, st, st.devices[d].queue_head)
    if batch.sequences > 0 and batch.serving >= 0:
        now.reserved = _share(p, d, batch.serving, batch.reserved + batch.pinned)
    for first in (batch.admitted, batch.prompt, batch.decoder):
        number = first
        while number >= 0:
            s, k = slot_of(p, number)
            tokens += _tokens_of_lane(p, st, s, k, batch.steps)
            number = st.slots[s, k].next
    if tokens > 0.0 and not rests(st, d) and batch.serving >= 0:
        tokens -= _tokens_since(p, st, d)
    now.queries, now.tokens = batch.sequences, max(0.0, tokens)


@inlined
def _share(p: ProblemArrays, d: int, m: int, size: float) -> float:
    """Return ``size`` bytes as a share of the memory beside the weights of model ``m``."""
    room = p.devices[d].memory - p.models[m].weight_bytes
    return min(1.0, max(0.0, size / room)) if room > 0.0 else 0.0


@inlined
def _waiting(p: ProblemArrays, st: StateArrays, first: int) -> tuple[int, float]:
    """Return how many shards of a queue wait from ``first`` on, and their tokens."""
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
    """Return the prompt and output tokens of ``queries`` queries of stage ``s``."""
    stage = p.stages[s]
    own = stage.prompt_tokens + stage.inherited_tokens + stage.output_tokens
    return float(queries * own + (stage.prefix_tokens if with_prefix else 0))


@inlined
def _tokens_of_lane(p: ProblemArrays, st: StateArrays, s: int, k: int, steps: int) -> float:
    """Return the tokens that an admitted shard lacked at the last change of its batch."""
    lane = st.lanes[s, k]
    # Tokens of later waves.
    tokens = _tokens(p, s, lane.waiting, False)
    if lane.state < JOINED:
        return tokens + _tokens(p, s, lane.wave, True)
    made = lane.made
    if lane.state == DECODING:
        made += steps - lane.since
    # A wave that is longer than expected makes at least one more token.
    least = 0 if p.stages[s].output_tokens == 0 else 1
    output = lane.wave * max(least, p.stages[s].output_tokens - made)
    prompt = lane.prompt if p.stages[s].model >= 0 else 0
    return tokens + float(output + prompt)


@inlined
def _tokens_since(p: ProblemArrays, st: StateArrays, d: int) -> float:
    """Return the tokens that iterations since the last change of the batch have computed."""
    batch = st.batches[d]
    passed = st.now - batch.time
    if batch.ahead == 0 or passed <= 0.0:
        return 0.0
    pace = pace_of(p, st, d)
    iterations = iterations_passed(pace, passed, batch.ahead)
    tokens = pace.chunk
    if batch.prompt < 0 or not p.prefill_first:
        tokens += batch.decoding
    return float(iterations * tokens)
