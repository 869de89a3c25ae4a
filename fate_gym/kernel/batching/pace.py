"""How long iterations take, and how many pass until something changes.

While the same queries decode and the same prompt fills the rest of the budget, each iteration
takes longer than the previous one by a constant: see `Pace`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import between_seconds, linear_seconds
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.schema import FIXED_STAGE, GRAZE, ProblemArrays, StateArrays


class Pace(NamedTuple):
    """The next iterations of a device.

    Attributes:
        first: seconds of the first one.
        growth: seconds by which each is longer than the one before.
        most: iterations until a prompt or a sequence ends.
        chunk: tokens that the first prompt takes in each, if they do not complete it; else 0.
    """

    first: float
    growth: float
    most: int
    chunk: int


@inlined
def seconds_of(pace: Pace, iterations: int) -> float:
    """Return the seconds of the next ``iterations`` iterations."""
    return iterations * (pace.first + 0.5 * pace.growth * (iterations - 1))


@inlined
def iterations_until(pace: Pace, seconds: float) -> int:
    """Return the least number of iterations that take ``seconds`` or more, up to rounding.

    At least one, at most ``pace.most``.
    """
    wanted = seconds - GRAZE
    if wanted <= pace.first or pace.most <= 1:
        return 1
    if wanted > seconds_of(pace, pace.most):
        return pace.most
    slope = pace.first - 0.5 * pace.growth
    root = np.sqrt(slope * slope + 2.0 * pace.growth * wanted)
    k = min(pace.most, max(1, int(np.ceil(2.0 * wanted / (slope + root)))))
    # Rounding may put the root off by some.
    while k > 1 and seconds_of(pace, k - 1) >= wanted:
        k -= 1
    while k < pace.most and seconds_of(pace, k) < wanted:
        k += 1
    return k


@inlined
def iterations_passed(pace: Pace, seconds: float, most: int) -> int:
    """Return how many of the next ``most`` iterations are over after ``seconds``.

    Up to rounding.
    """
    k = min(iterations_until(pace, seconds), most)
    return k - 1 if seconds_of(pace, k) > seconds + GRAZE else k


@inlined
def iteration_seconds(
    p: ProblemArrays, d: int, m: int, tokens: int, logits: int, context: int
) -> float:
    """Return the seconds of an iteration of model ``m``, without the attention of prompts.

    Args:
        p: the problem.
        d: the device.
        m: the model.
        tokens: tokens of decoding queries and prompts; at least one.
        logits: queries that produce a token.
        context: tokens that decoding queries attend to, summed over queries.
    """
    device, model = p.devices[d], p.models[m]
    linear = linear_seconds(device, model, float(tokens), float(logits))
    attention = context * model.kv / device.attention_bandwidth
    between = between_seconds(device, model, float(tokens))
    return linear + attention + between + model.layers * device.layer_s


@inlined
def chunk_of(p: ProblemArrays, left: int, missing: int, taken: int) -> int:
    """Return the tokens that the next prompt in line gets in an iteration.

    With 0, the prompts behind it get none either.

    Args:
        p: the problem.
        left: tokens left in the budget.
        missing: tokens that the prompt still lacks.
        taken: prompt tokens already in the iteration.
    """
    if p.prefill_first:
        return missing if taken == 0 or missing <= left else 0
    return max(0, min(missing, left))


@kernel
def pace_of(p: ProblemArrays, st: StateArrays, d: int) -> Pace:
    """Return the pace of device ``d`` from its border on; at least one wave must have joined."""
    batch = st.batches[d]
    left = p.token_budget
    if not p.prefill_first:
        left -= batch.decoding
    tokens, logits, chunk, pairs, noise = 0, 0, 0, 0.0, 0.0
    number = batch.prompt
    while number >= 0:
        s, k = slot_of(p, number)
        lane = st.lanes[s, k]
        if p.stages[s].kind == FIXED_STAGE:
            return Pace(p.clean_seconds[s, d] * lane.noise, 0.0, 1, 0)
        taken = chunk_of(p, left, lane.prompt, tokens)
        if taken == 0:
            break
        tokens += taken
        left -= taken
        pairs += taken * lane.pair_s
        noise += taken * lane.noise
        if taken < lane.prompt:
            chunk = taken if number == batch.prompt else 0
            break
        logits += lane.wave
        number = next_in_queue(p, st, number)
    decoding, context, most = 0, 0, 1
    if tokens == 0 or not p.prefill_first:
        decoding, context = batch.decoding, batch.context
        noise += batch.noise
    if chunk > 0:
        s, k = slot_of(p, batch.prompt)
        most = (st.lanes[s, k].prompt - 1) // chunk
    if decoding > 0 and (tokens == 0 or chunk > 0):
        steps = steps_left(p, st, d)
        most = steps if tokens == 0 else min(most, steps)
    m = batch.serving
    factor = noise / (tokens + decoding)
    first = pairs + iteration_seconds(p, d, m, tokens + decoding, logits + decoding, context)
    growth = decoding * p.models[m].kv / p.devices[d].attention_bandwidth
    return Pace(first * factor, growth * factor, most, chunk)


@inlined
def stop_of(st: StateArrays, s: int, k: int) -> int:
    """Return the device step count at which the decoding wave ends or needs more KV."""
    lane = st.lanes[s, k]
    return lane.since + min(lane.output, lane.granted) - lane.made


@inlined
def steps_left(p: ProblemArrays, st: StateArrays, d: int) -> int:
    """Return the steps until the first decoding wave of ``d`` stops; at least one."""
    s, k = slot_of(p, st.batches[d].decoder)
    return max(1, stop_of(st, s, k) - st.batches[d].steps)
