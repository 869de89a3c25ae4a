"""A fork of a batching device under uncertainty: what is seen stays, what is not is drawn anew."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.border import iterate, schedule
from fate_gym.kernel.batching.pace import GRAZE, iterations_until, pace_of, seconds_of
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
    """Let what lies ahead of ``d`` be as estimated in ``out``, or as its seed draws it.

    Tokens that are made by the last border stay made.
    """
    batch = out.batches[d]
    loaded = batch.loaded_at
    _load_anew(p, out, d)
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
    """Let the iterations pass that are over by now."""
    batch = out.batches[d]
    pace = pace_of(p, out, d)
    passed = out.now - batch.time
    k = min(iterations_until(pace, passed), batch.ahead)
    if seconds_of(pace, k) > passed + GRAZE:
        k -= 1
    if k > 0:
        iterate(p, out, d, k)
        batch.time += seconds_of(pace, k)


@inlined
def _load_anew(p: ProblemArrays, out: StateArrays, d: int) -> None:
    """Weights that are being loaded are there when that is expected, or drawn."""
    batch = out.batches[d]
    if batch.loaded_at <= out.now or batch.admitted < 0 or batch.serving < 0:
        return
    s, k = slot_of(p, batch.admitted)  # the first: it has begun to load them
    noise = noise_factor(p, out, s, d) if out.origin == SAMPLED else 1.0
    loaded = out.lanes[s, k].admitted_at + p.load_seconds[batch.serving, d] * noise
    batch.loaded_at = max(out.now, loaded)


@inlined
def _draw_anew(p: ProblemArrays, out: StateArrays, d: int, s: int, k: int, loaded: float) -> None:
    """Draw anew for the shard in a slot; ``loaded`` is when the weights were to be there."""
    lane = out.lanes[s, k]
    before = lane.noise
    lane.noise = 1.0
    lane.output = p.stages[s].output_tokens
    if out.origin == SAMPLED:
        lane.noise = noise_factor(p, out, s, d)
        lane.output = actual_tokens(p, out, s)
    if lane.output > 0:
        made = lane.made
        if lane.state == DECODING:
            made += out.batches[d].steps - lane.since
        lane.output = max(lane.output, made + 1)
    if lane.state == ADMITTED:
        launch = 0.0 if p.stages[s].model < 0 else p.launch_s
        there = lane.admitted_at + (lane.there - lane.admitted_at) * lane.noise / before
        if abs(lane.there - launch * before - loaded) <= GRAZE:
            there = out.batches[d].loaded_at + launch * lane.noise  # it waits for the weights
        lane.there = max(out.now, there)
