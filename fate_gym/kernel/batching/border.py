"""Borders of a batching device: shards arrive, iterations pass, waves end."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.admission import admit_from_queue, head_may_join
from fate_gym.kernel.batching.pace import (
    chunk_of,
    iterations_until,
    pace_of,
    seconds_of,
    stop_of,
)
from fate_gym.kernel.batching.paths import (
    drop_uncomputed,
    leave_path,
    path_is_there,
    take_back_claim,
    unpin_path,
)
from fate_gym.kernel.batching.waves import (
    begin_decoding,
    context_of,
    enter,
    leave,
    queue_first,
    reserved_bytes,
    rests,
    stop_decoding,
    youngest,
)
from fate_gym.kernel.events import push
from fate_gym.kernel.memory import compute_path, keep_more, make_room
from fate_gym.kernel.numbers import next_in_queue, shard_end_event, slot_number, slot_of
from fate_gym.kernel.prefixes import computed_hit, has_prefix
from fate_gym.kernel.schema import (
    DECODING,
    FIXED_STAGE,
    GRAZE,
    JOINED,
    LOSING,
    Lane,
    LogArrays,
    ProblemArrays,
    Stage,
    StateArrays,
)


@kernel
def come(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> None:
    """Handle a shard just committed to ``d``: at a border it is admitted at once, if it may be."""
    batch = st.batches[d]
    if rests(st, d):
        batch.time = st.now
    if batch.time >= st.now - GRAZE:
        admit_from_queue(p, st, log, d)
        _join(p, st, log, d)
    schedule(p, st, d)


@kernel
def pass_border(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> bool:
    """Go to the next border of ``d`` at which something changes, which is due now.

    Returns whether a wave ended or was admitted.
    """
    batch = st.batches[d]
    iterate(p, st, d, batch.ahead)
    batch.time = batch.changes_at
    ended = _end_decoding(p, st, log, d) + _complete_prompts(p, st, log, d)
    _grow(p, st, log, d)
    admitted = admit_from_queue(p, st, log, d)
    _join(p, st, log, d)
    schedule(p, st, d)
    return ended + admitted > 0


@kernel
def schedule(p: ProblemArrays, st: StateArrays, d: int) -> None:
    """Find the next border of ``d`` at which something changes."""
    batch = st.batches[d]
    wake = np.inf
    number = batch.admitted
    while number >= 0:
        s, k = slot_of(p, number)
        wake = min(wake, st.lanes[s, k].there)
        number = st.slots[s, k].next
    batch.ahead = 0
    batch.changes_at = wake
    if not rests(st, d):
        if head_may_join(p, st, d):
            wake = min(wake, st.now)
        pace = pace_of(p, st, d)
        batch.ahead = pace.most
        if wake < np.inf:
            batch.ahead = iterations_until(pace, wake - batch.time)
        batch.changes_at = batch.time + seconds_of(pace, batch.ahead)
    st.next_border = np.inf
    for i in range(p.devices.size):
        st.next_border = min(st.next_border, st.batches[i].changes_at)


@inlined
def iterate(p: ProblemArrays, st: StateArrays, d: int, iterations: int) -> None:
    """Pass ``iterations`` iterations during which the batch does not change."""
    batch = st.batches[d]
    if iterations == 0:
        return
    left = p.token_budget
    if not p.prefill_first:
        left -= batch.decoding
    taken = 0
    number = batch.prompt
    while number >= 0:
        s, k = slot_of(p, number)
        lane = st.lanes[s, k]
        chunk = chunk_of(p, left, lane.prompt, taken)
        lane.prompt -= chunk * iterations
        left -= chunk
        taken += chunk
        if lane.prompt > 0:
            break
        number = next_in_queue(p, st, number)
    if taken == 0 or not p.prefill_first:
        batch.steps += iterations
        batch.context += batch.decoding * iterations


@inlined
def _end_decoding(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> int:
    """End the decoding waves that have made all their tokens; return how many."""
    batch = st.batches[d]
    ended = 0
    number = batch.decoder
    while number >= 0:
        s, k = slot_of(p, number)
        lane = st.lanes[s, k]
        if stop_of(st, s, k) > batch.steps:
            break
        number = st.slots[s, k].next
        if lane.made + batch.steps - lane.since >= lane.output:
            stop_decoding(p, st, d, s, k)
            _end_wave(p, st, log, s, k)
            ended += 1
    return ended


@inlined
def _complete_prompts(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> int:
    """Move waves whose prompt is computed on to decoding, or end them; return how many end."""
    batch = st.batches[d]
    ended = 0
    while batch.prompt >= 0:
        number = batch.prompt
        s, k = slot_of(p, number)
        lane = st.lanes[s, k]
        if lane.prompt > 0:
            break
        leave(p, st, d, number)
        path_is_there(p, st, s, k)
        _log_first(st, log, lane.row)
        if lane.output > 0:
            lane.made += 1
        if lane.made >= lane.output:
            _end_wave(p, st, log, s, k)
            ended += 1
        else:
            begin_decoding(p, st, d, s, k)
    return ended


@inlined
def _log_first(st: StateArrays, log: LogArrays, row: int) -> None:
    """Log a shard's first tokens, unless logged before; for a fixed stage, its inputs' arrival."""
    if row < log.shards.size and log.shards[row].first == np.inf:
        log.shards[row].first = st.now


@inlined
def _give_back(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    """Give back the memory of a wave that stops running; it must not be in any list."""
    stage, lane = p.stages[s], st.lanes[s, k]
    d = st.slots[s, k].device
    batch = st.batches[d]
    reserved = reserved_bytes(p, st, s, k)
    st.devices[d].kv_bytes -= reserved
    batch.reserved -= reserved
    batch.sequences -= lane.wave
    batch.unfinished = 0 if lane.waiting > 0 else batch.unfinished
    if stage.model >= 0:
        unpin_path(p, st, s, d)


@kernel
def _end_wave(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    """End the wave in a slot; it must not be in any list."""
    stage, lane = p.stages[s], st.lanes[s, k]
    d = st.slots[s, k].device
    _give_back(p, st, s, k)
    if stage.model >= 0:
        leave_path(p, st, s, d)
    is_valid = st.stages[s].note != LOSING
    if is_valid and stage.keeps_context and p.models[stage.model].kv > 0.0:
        keep_more(p, st, s, k, lane.wave)
    lane.wave = 0
    if lane.waiting > 0:
        lane.made = 0
        lane.granted = stage.output_tokens
        queue_first(p, st, d, slot_number(p, s, k))
        return
    if lane.row < log.shards.size:
        row = log.shards[lane.row]
        row.end = st.now
        row.prefill_s = row.first - (row.start + max(row.load_s, row.transfer_s))
        row.decode_s = row.end - row.first
    slot = st.slots[s, k]
    slot.busy = st.now - slot.start
    push(st, st.now, shard_end_event(p, s, k))


# --- outputs longer than estimated ----------------------------------------------------------


@inlined
def growth_tokens(output: int) -> int:
    """Return the output tokens to reserve at a time once a wave outgrows its reservation."""
    return max(16, (output + 7) // 8)


@inlined
def _grow(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> None:
    """Let waves that have used up their reservation reserve more."""
    batch = st.batches[d]
    while batch.decoder >= 0:
        s, k = slot_of(p, batch.decoder)
        if stop_of(st, s, k) > batch.steps:
            break
        _grow_wave(p, st, log, s, k)


@kernel
def _grow_wave(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    stage, lane = p.stages[s], st.lanes[s, k]
    d = st.slots[s, k].device
    dev, batch, model = st.devices[d], st.batches[d], p.models[stage.model]
    number = slot_number(p, s, k)
    leave(p, st, d, number)
    tokens = growth_tokens(stage.output_tokens)
    lane.granted += tokens
    enter(p, st, d, number, DECODING)
    more = lane.wave * tokens * model.kv
    dev.kv_bytes += more
    batch.reserved += more
    limit = p.devices[d].memory
    if dev.weight_bytes + dev.kv_bytes > limit:
        make_room(p, st, log, s, d, -1, 0.0, lane.row)
    while model.weight_bytes + batch.pinned + batch.reserved > limit:
        victim = youngest(p, st, d)
        other, i = slot_of(p, victim)
        if victim == number and batch.sequences == lane.wave:
            break  # no other wave could make room
        _preempt(p, st, log, other, i)
        if victim == number:
            break


@kernel
def _preempt(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    """Preempt the wave in a slot: it gives back its memory and heads the queue again."""
    lane, d = st.lanes[s, k], st.slots[s, k].device
    if lane.state == DECODING:
        stop_decoding(p, st, d, s, k)
    else:
        if lane.state == JOINED:
            _stop_prompt(p, st, s, k)
        leave(p, st, d, slot_number(p, s, k))
    path_is_there(p, st, s, k)
    _give_back(p, st, s, k)
    drop_uncomputed(p, st, s, d)
    lane.waiting += lane.wave
    lane.wave = 0
    output = p.stages[s].output_tokens
    lane.granted = max(output, lane.made + growth_tokens(output))
    queue_first(p, st, d, slot_number(p, s, k))
    if lane.row < log.shards.size:
        log.shards[lane.row].preempted += 1


@inlined
def _stop_prompt(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    """Stop computing the prompt of the wave in a slot, and with it its prefix."""
    stage, lane = p.stages[s], st.lanes[s, k]
    if has_prefix(p, stage):
        tokens, _ = _prompt_of_lane(stage, lane)
        done = tokens - lane.prompt
        take_back_claim(p, st, s, st.slots[s, k].device, lane.prefix_hit, done)


# --- joins ---------------------------------------------------------------------------------


@inlined
def _join(p: ProblemArrays, st: StateArrays, log: LogArrays, d: int) -> None:
    """Let admitted waves whose inputs are there join."""
    number = st.batches[d].admitted
    while number >= 0:
        s, k = slot_of(p, number)
        behind = st.slots[s, k].next
        if st.lanes[s, k].there <= st.batches[d].time + GRAZE:
            leave(p, st, d, number)
            if p.stages[s].kind == FIXED_STAGE:
                st.lanes[s, k].prompt = 1
                st.lanes[s, k].pair_s = 0.0
                _log_first(st, log, st.lanes[s, k].row)
            else:
                _measure_prompt(p, st, log, s, k)
            enter(p, st, d, number, JOINED)
        number = behind


@kernel
def _measure_prompt(p: ProblemArrays, st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    """Set the prompt tokens of the wave in a slot, and the attention seconds that each takes."""
    stage, lane = p.stages[s], st.lanes[s, k]
    d = st.slots[s, k].device
    cached, whole = 0, stage.prefix_tokens
    if has_prefix(p, stage):
        cached = max(computed_hit(p, st, d, stage.prefix, whole), lane.prefix_hit)
        compute_path(p, st, d, stage.prefix, whole)
    lane.prefix_hit = cached
    lane.prompt, attended = _prompt_of_lane(stage, lane)
    seconds = p.models[stage.model].attention * attended / p.devices[d].attention_flops
    lane.pair_s = seconds / lane.prompt
    if lane.row < log.shards.size and log.shards[lane.row].prefix_new < 0.0:
        log.shards[lane.row].prefix_hit = cached
        log.shards[lane.row].prefix_new = stage.prefix_tokens - cached


@inlined
def _prompt_of_lane(stage: Stage, lane: Lane) -> tuple[int, float]:
    """Return `prompt_of` for a wave that joins or has joined."""
    context = context_of(stage, lane)
    own = context - stage.prefix_tokens - lane.context_hit
    return prompt_of(stage.prefix_tokens, lane.prefix_hit, lane.wave, own, context)


@inlined
def prompt_of(prefix: int, cached: int, wave: int, own: float, context: int) -> tuple[int, float]:
    """Return the prompt tokens of a wave, and the token pairs of their attention.

    Args:
        prefix: tokens that the queries share.
        cached: of these, the tokens that need no prefill.
        wave: number of queries.
        own: further tokens of each query that need prefill.
        context: tokens of each query, including the prefix and cached tokens.
    """
    new = prefix - cached
    tokens = max(wave, int(np.ceil(new + wave * own - GRAZE)))
    attended = new * (cached + 0.5 * new) + wave * own * (context - 0.5 * own)
    return tokens, attended
