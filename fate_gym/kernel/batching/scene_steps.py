"""Iterations of a scene: how long they take, and what ends with them."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.pace import (
    Pace,
    chunk_of,
    iteration_seconds,
    iterations_passed,
    pace_of,
    seconds_of,
)
from fate_gym.kernel.batching.scene import Scene
from fate_gym.kernel.batching.scene_admission import let_out
from fate_gym.kernel.schema import (
    DECODING,
    ENDED,
    FIXED_STAGE,
    QUEUED,
    ProblemArrays,
    StateArrays,
)


@kernel
def scene_pace(p: ProblemArrays, d: int, scene: Scene) -> Pace:
    """Return the pace from the border on; at least one wave must have joined."""
    decoding = scene.decoding
    left = p.token_budget - (0 if p.prefill_first else decoding)
    tokens, logits, chunk, pairs = 0, 0, 0, 0.0
    for turn in range(scene.in_line):
        one = scene.shards[scene.line[turn]]
        s = one.stage
        if p.stages[s].kind == FIXED_STAGE:
            return Pace(p.clean_seconds[s, d], 0.0, 1, 0)
        taken = chunk_of(p, left, one.prompt, tokens)
        if taken == 0:
            break
        tokens += taken
        left -= taken
        pairs += taken * one.pair_s
        if taken < one.prompt:
            chunk = taken if turn == 0 else 0
            break
        logits += one.wave
    most = 1
    if chunk > 0:
        most = (scene.shards[scene.line[0]].prompt - 1) // chunk
    if tokens > 0 and p.prefill_first:
        decoding = 0
    context = 0
    if decoding > 0:
        context = scene.context
        steps = scene.shards[scene.decoders[scene.first_decoder]].stop - scene.steps
        if tokens == 0:
            most = steps
        elif chunk > 0:
            most = min(most, steps)
    m = scene.serving
    first = pairs + iteration_seconds(p, d, m, tokens + decoding, logits + decoding, context)
    growth = decoding * p.models[m].kv / p.devices[d].attention_bandwidth
    return Pace(first, growth, most, chunk)


@kernel
def iterate(p: ProblemArrays, scene: Scene, iterations: int) -> None:
    """Do ``iterations`` iterations in which the batch does not change; time is left as it is."""
    left = p.token_budget - (0 if p.prefill_first else scene.decoding)
    taken = 0
    for turn in range(scene.in_line):
        one = scene.shards[scene.line[turn]]
        chunk = chunk_of(p, left, one.prompt, taken)
        one.prompt -= chunk * iterations
        left -= chunk
        taken += chunk
        if one.prompt > 0:
            break
    if taken == 0 or not p.prefill_first:
        scene.steps += iterations
        scene.context += iterations * scene.decoding


@inlined
def decode(p: ProblemArrays, scene: Scene, i: int, steps: int) -> None:
    """Let the wave at position ``i`` decode from now on, for ``steps`` steps."""
    one = scene.shards[i]
    stage = p.stages[one.stage]
    one.state = DECODING
    one.stop = scene.steps + steps
    own = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens + one.made
    scene.decoding += one.wave
    scene.context += one.wave * own
    one.made -= scene.steps
    # Reuse the space of waves at the front that have ended.
    if scene.first_decoder > 0 and scene.behind == scene.decoders.size:
        for j in range(scene.first_decoder, scene.behind):
            scene.decoders[j - scene.first_decoder] = scene.decoders[j]
        scene.behind -= scene.first_decoder
        scene.first_decoder = 0
    j = scene.behind
    scene.behind += 1
    while j > scene.first_decoder and scene.shards[scene.decoders[j - 1]].stop > one.stop:
        scene.decoders[j] = scene.decoders[j - 1]
        j -= 1
    scene.decoders[j] = i


@kernel
def end_waves(p: ProblemArrays, scene: Scene, last: int) -> None:
    """End decoding waves and prompts that are complete at the border."""
    while scene.first_decoder < scene.behind:
        i = scene.decoders[scene.first_decoder]
        one = scene.shards[i]
        if one.stop > scene.steps:
            break
        scene.first_decoder += 1
        stage = p.stages[one.stage]
        own = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens
        scene.decoding -= one.wave
        scene.context -= one.wave * (own + one.made + scene.steps)
        _end_wave(p, scene, i)
    complete = 0
    while complete < scene.in_line and scene.shards[scene.line[complete]].prompt == 0:
        i = scene.line[complete]
        one = scene.shards[i]
        complete += 1
        output = p.stages[one.stage].output_tokens
        if i == last and scene.first == np.inf:
            scene.first = scene.border
        one.made += 1 if output > 0 else 0
        if one.made >= output:
            _end_wave(p, scene, i)
        else:
            decode(p, scene, i, output - one.made)
    for turn in range(complete, scene.in_line):
        scene.line[turn - complete] = scene.line[turn]
    scene.in_line -= complete


@inlined
def _end_wave(p: ProblemArrays, scene: Scene, i: int) -> None:
    let_out(p, scene, i)
    one = scene.shards[i]
    scene.sequences -= one.wave
    scene.look = 1
    one.wave = 0
    one.made = 0
    one.end = scene.border
    if one.waiting > 0:
        # Head of the queue again: no later shard has been admitted.
        one.state = QUEUED
        scene.queue_head = i
    else:
        one.state = ENDED


@kernel
def catch_up(p: ProblemArrays, st: StateArrays, d: int, scene: Scene) -> None:
    """Do the iterations that have ended by now, which is visible even with noise."""
    pace = pace_of(p, st, d)
    k = iterations_passed(pace, st.now - scene.border, st.batches[d].ahead)
    if k > 0:
        iterate(p, scene, k)
        scene.border += seconds_of(pace, k)
        for j in range(scene.first_decoder, scene.behind):
            one = scene.shards[scene.decoders[j]]
            one.stop = max(one.stop, scene.steps + 1)
