"""Quick estimates for batching devices, used when a play compares devices.

`fate_gym.kernel.estimate` simulates the device ahead. A play compares thousands of placements, so
it assumes instead that the batch stays as it is and computes the time of only one iteration. The
consequences of a choice are not estimated: the play simulates them.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.admission import wave_of, waves_of
from fate_gym.kernel.batching.pace import iteration_seconds, stop_of
from fate_gym.kernel.batching.waves import runs_nothing
from fate_gym.kernel.cost import (
    context_hit_tokens,
    decode_seconds,
    prefill_seconds,
    prefix_hit_tokens,
)
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.openings import starts_now
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays
from fate_gym.kernel.transfer import transfer_seconds
from policies.fate.plans.schema import Workspace


@kernel
def find_turns(p: ProblemArrays, st: StateArrays, ws: Workspace, d: int) -> None:
    """Fill ``joins`` (when the prompts on ``d`` are computed) and ``turn`` (when ``d`` is free)."""
    device, batch = ws.devices[d], st.batches[d]
    device.joins = device.turn = st.now
    if st.devices[d].drains_at == np.inf:
        device.joins = device.turn = np.inf
        return
    prompts, steps = 0, 0
    for head in (batch.admitted, batch.prompt):
        number = head
        while number >= 0:
            s, k = slot_of(p, number)
            prompts += _prompt_tokens(p, st, s, k)
            steps = max(steps, p.stages[s].output_tokens)
            number = next_in_queue(p, st, number)
    number = batch.decoder
    while number >= 0:
        s, k = slot_of(p, number)
        steps = max(steps, stop_of(st, s, k) - batch.steps)
        number = next_in_queue(p, st, number)
    if not runs_nothing(st, d) and batch.serving >= 0:
        many = batch.sequences
        step = iteration_seconds(p, d, batch.serving, many, many, batch.context)
        # At the rate of long prompts, whose iterations are compute-bound.
        device.joins += prompts * _token_seconds(p, d, batch.serving)
        device.turn = device.joins + steps * step
    elif not runs_nothing(st, d):
        s, k = slot_of(p, max(batch.admitted, batch.prompt))
        device.turn = max(st.now, st.lanes[s, k].there) + p.clean_seconds[s, d]
    number = st.devices[d].queue_head
    while number >= 0:
        s, k = slot_of(p, number)
        device.turn += p.clean_seconds[s, d] * st.slots[s, k].queries / p.stages[s].queries
        number = next_in_queue(p, st, number)


@inlined
def _prompt_tokens(p: ProblemArrays, st: StateArrays, s: int, k: int) -> int:
    """Prompt tokens that the wave in a slot still has to compute, also if it has not joined yet."""
    lane, stage = st.lanes[s, k], p.stages[s]
    if lane.prompt > 0:
        return lane.prompt
    return lane.wave * (stage.prompt_tokens + stage.inherited_tokens)


@inlined
def _token_seconds(p: ProblemArrays, d: int, m: int) -> float:
    tokens = p.token_budget
    return iteration_seconds(p, d, m, tokens, 0, 0) / tokens


@kernel
def joined_end(
    p: ProblemArrays, st: StateArrays, ws: Workspace, s: int, d: int, n: int, strict: int
) -> float:
    """Estimate when ``n`` queries of stage ``s`` end on ``d``, in the batch if they can join it."""
    device, stage = ws.devices[d], p.stages[s]
    joins = device.free > 0 and starts_now(p, st, s, d, n)
    begin = device.joins if joins else device.turn
    transfer, _ = transfer_seconds(p, st, s, d, n / stage.queries, begin)
    if stage.kind == FIXED_STAGE:
        return begin + transfer + p.clean_seconds[s, d]
    load, prefix, context = 0.0, 0.0, 0.0
    if not strict:
        if st.resident[d, stage.model] == 0 and device.brings != stage.model:
            load = p.load_seconds[stage.model, d]
        prefix, context = prefix_hit_tokens(p, st, s, d), context_hit_tokens(p, st, s, d)
    prefill = prefill_seconds(p, s, d, n, prefix, context)
    decode = decode_seconds(p, s, d, n)
    if joins and not runs_nothing(st, d):
        many = st.batches[d].sequences + wave_of(p, s, d, n)
        own = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens
        own = wave_of(p, s, d, n) * (own + stage.output_tokens // 2)
        tokens = st.batches[d].context + own
        step = iteration_seconds(p, d, stage.model, many, many, tokens)
        decode = waves_of(p, s, d, n) * stage.output_tokens * step
    return begin + max(load, transfer) + prefill + decode
