"""Admission of a scene's shards, which join the batch when their inputs are there."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.admission import inflow_of, wave_of
from fate_gym.kernel.batching.border import prompt_of
from fate_gym.kernel.batching.scene import Scene
from fate_gym.kernel.cost import context_hit_tokens
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.prefixes import computed_hit, has_prefix, left_by, shared_tokens
from fate_gym.kernel.schema import (
    ADMITTED,
    ENDED,
    FIXED_STAGE,
    GRAZE,
    JOINED,
    QUEUED,
    ProblemArrays,
    StateArrays,
)


@inlined
def _fits(p: ProblemArrays, d: int, scene: Scene, i: int, wave: int) -> bool:
    """Return whether a wave of the shard at position ``i``, first in the queue, may be admitted."""
    if scene.sequences == 0:
        return True
    one = scene.shards[i]
    stage = p.stages[one.stage]
    if stage.model < 0 or stage.model != scene.serving:
        return False
    if scene.sequences + wave > p.max_batch:
        return False
    if scene.unfinished > 0:
        return False
    taken = scene.taken + wave * context_bytes(p, one.stage)
    taken += _prefix_bytes(p, scene, i)
    return bool(taken + p.models[stage.model].weight_bytes <= p.devices[d].memory)


@inlined
def _prefix_bytes(p: ProblemArrays, scene: Scene, i: int) -> float:
    """Return the prefix bytes of the shard at position ``i`` not shared with admitted ones."""
    one = scene.shards[i]
    stage = p.stages[one.stage]
    if stage.model < 0 or not has_prefix(p, stage):
        return 0.0
    shared = 0
    for n in range(scene.admitted):
        j = scene.inside[n]
        if j != i and p.stages[scene.shards[j].stage].prefix >= 0:
            shared = max(shared, shared_tokens(p, one.stage, scene.shards[j].stage))
    return (stage.prefix_tokens - shared) * p.models[stage.model].kv


@kernel
def let_in(p: ProblemArrays, scene: Scene, i: int) -> None:
    """Account for the wave at position ``i``, which is being admitted."""
    # Each prefix adds only the tokens that it does not share with those before.
    scene.taken += _wave_bytes(p, scene, i) + _prefix_bytes(p, scene, i)
    scene.inside[scene.admitted] = i
    scene.admitted += 1
    scene.unfinished += scene.shards[i].waiting > 0


@kernel
def let_out(p: ProblemArrays, scene: Scene, i: int) -> None:
    """Release the memory of the wave at position ``i``."""
    for n in range(scene.admitted):
        if scene.inside[n] == i:
            scene.admitted -= 1
            scene.inside[n] = scene.inside[scene.admitted]
            break
    scene.taken -= _wave_bytes(p, scene, i) + _prefix_bytes(p, scene, i)
    scene.unfinished -= scene.shards[i].waiting > 0


@inlined
def _wave_bytes(p: ProblemArrays, scene: Scene, i: int) -> float:
    one = scene.shards[i]
    if p.stages[one.stage].model < 0:
        return 0.0
    return one.wave * context_bytes(p, one.stage)


@inlined
def admit(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, last: int) -> None:
    """Admit waves from the head of the queue while they fit."""
    scene.look = 0
    while scene.queue_head < scene.shards.size:
        i = scene.queue_head
        one = scene.shards[i]
        if one.state == QUEUED:
            wave = wave_of(p, one.stage, d, one.waiting)
            if not _fits(p, d, scene, i, wave):
                break
            _admit_one(p, st, d, scene, i, wave, last)
        scene.queue_head += 1


@kernel
def _admit_one(
    p: ProblemArrays,
    st: StateArrays,
    d: int,
    scene: Scene,
    i: int,
    wave: int,
    last: int,
) -> None:
    one = scene.shards[i]
    s, time = one.stage, max(st.now, scene.border)
    stage = p.stages[s]
    load = 0.0
    seen = one.again or one.blind
    if stage.model >= 0 and not st.resident[d, stage.model] and not seen:
        load = p.load_seconds[stage.model, d]
        for j in range(i):  # an earlier shard of the same model has loaded it
            if p.stages[scene.shards[j].stage].model == stage.model:
                load = 0.0
    if scene.sequences == 0:
        scene.loaded = time + load
    seconds, moved, copied = 0.0, 0.0, 0
    if not one.again:
        inflow = inflow_of(p, st, s, d, one.waiting, one.source)
        seconds, moved, copied = inflow.seconds, inflow.moved, inflow.copied
        if p.eager:
            seconds = max(0.0, seconds - (time - st.now))
    launch = 0.0 if stage.model < 0 else p.devices[d].launch_s
    one.there = max(scene.loaded, time + seconds) + launch
    if i == last and not one.again:
        scene.turn, scene.load, scene.transfer = time, load, seconds
        scene.moved, scene.copied, scene.first = moved, copied, np.inf
    one.again = 1
    one.wave = wave
    one.waiting -= wave
    one.prompt = copied
    one.state = ADMITTED
    let_in(p, scene, i)
    scene.sequences += wave
    scene.serving = stage.model
    scene.fetching += 1
    if stage.model >= 0 and not one.blind:
        one.context_hit = context_hit_tokens(p, st, s, d)


@inlined
def join(p: ProblemArrays, st: StateArrays, d: int, scene: Scene) -> float:
    """Let shards whose inputs are there join; return when the next inputs are, inf if none."""
    wake = np.inf
    if scene.fetching == 0:
        return wake
    for i in range(scene.shards.size):
        one = scene.shards[i]
        if one.state != ADMITTED:
            continue
        if one.there > scene.border + GRAZE:
            wake = min(wake, one.there)
            continue
        _measure(p, st, d, scene, i)
        one.state, one.begun = JOINED, 1
        scene.line[scene.in_line] = i
        scene.in_line += 1
        scene.fetching -= 1
    return wake


@kernel
def _measure(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, i: int) -> None:
    one = scene.shards[i]
    s = one.stage
    stage = p.stages[s]
    if stage.kind == FIXED_STAGE:
        one.prompt = 1
        return
    cached = 0
    if has_prefix(p, stage) and not one.blind:
        cached = computed_hit(p, st, d, stage.prefix, stage.prefix_tokens)
        cached += one.prompt  # copied tokens
        for j in range(scene.shards.size):
            other = scene.shards[j]
            if other.begun and p.stages[other.stage].model == stage.model:
                if other.state == ENDED:
                    cached = max(cached, left_by(p, other.stage, s))
                else:
                    cached = max(cached, shared_tokens(p, other.stage, s))
        cached = min(cached, stage.prefix_tokens)
    own = stage.prompt_tokens + stage.inherited_tokens + one.made
    context = stage.prefix_tokens + own
    prompt, attended = prompt_of(
        stage.prefix_tokens, cached, one.wave, own - one.context_hit, context
    )
    one.prompt = prompt
    seconds = p.models[stage.model].attention * attended / p.devices[d].attention_flops
    one.pair_s = seconds / prompt
