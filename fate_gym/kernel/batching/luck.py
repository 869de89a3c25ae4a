"""Forking a batching device under uncertainty: keep what is visible, redraw the rest."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.border import iterate, schedule
from fate_gym.kernel.batching.expected import loaded_by, there_by
from fate_gym.kernel.batching.pace import iterations_passed, pace_of, seconds_of
from fate_gym.kernel.batching.waves import enter, rests
from fate_gym.kernel.draws import actual_tokens, noise_factor
from fate_gym.kernel.numbers import slot_number, slot_of
from fate_gym.kernel.schema import (
    ADMITTED,
    DECODING,
    SAMPLED,
    ProblemArrays,
    StateArrays,
)


@kernel
def forget_luck(p: ProblemArrays, out: StateArrays, d: int) -> None:
    """Replace the future of ``d`` in ``out`` by estimates, or by draws from its seed.

    Tokens made by the last border stay made.
    """
    batch = out.batches[d]
    loaded = batch.loaded_at
    batch.loaded_at = loaded_by(p, out, d, int(out.origin == SAMPLED))
    if not rests(out, d):
        _catch_up(p, out, d)
    decoders = batch.decoder
    batch.decoder = -1
    batch.noise = 0.0
    while decoders >= 0:
        s, k = slot_of(p, decoders)
        decoders = out.slots[s, k].next
        _draw_anew(p, out, d, s, k, loaded)
        lane = out.lanes[s, k]
        batch.noise += lane.wave * lane.noise
        enter(p, out, d, slot_number(p, s, k), DECODING)
    for first in (batch.admitted, batch.prompt, out.devices[d].queue_head):
        number = first
        while number >= 0:
            s, k = slot_of(p, number)
            _draw_anew(p, out, d, s, k, loaded)
            number = out.slots[s, k].next
    schedule(p, out, d)


@inlined
def _catch_up(p: ProblemArrays, out: StateArrays, d: int) -> None:
    """Pass the iterations that are over by now."""
    batch = out.batches[d]
    pace = pace_of(p, out, d)
    k = iterations_passed(pace, out.now - batch.time, batch.ahead)
    if k > 0:
        iterate(p, out, d, k)
        batch.time += seconds_of(pace, k)


@inlined
def _draw_anew(p: ProblemArrays, out: StateArrays, d: int, s: int, k: int, loaded: float) -> None:
    """Redraw the shard in a slot; ``loaded`` is when the weights were to be there before."""
    lane = out.lanes[s, k]
    noise = 1.0
    lane.output = p.stages[s].output_tokens
    if out.origin == SAMPLED:
        noise = noise_factor(p, out, s, k, d)
        lane.output = actual_tokens(p, out, s)
    if lane.output > 0:
        made = lane.made
        if lane.state == DECODING:
            made += out.batches[d].steps - lane.since
        lane.output = max(lane.output, made + 1)
    if lane.state == ADMITTED:
        lane.there = there_by(p, out, s, k, loaded, out.batches[d].loaded_at, noise)
    lane.noise = noise
