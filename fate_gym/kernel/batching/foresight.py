"""Estimates by playing a batching device forward: no new shards, nothing unexpected.

Waves are copied into a `Scene`; the state is left as it is. Shards keep the order in which they
were or will be admitted. What is cached now is assumed to stay cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import Floats, inlined, kernel
from fate_gym.kernel.batching.admission import inflow_of, wave_of
from fate_gym.kernel.batching.border import prompt_of
from fate_gym.kernel.batching.expected import loaded_by, there_by
from fate_gym.kernel.batching.pace import (
    Pace,
    chunk_of,
    iteration_seconds,
    iterations_passed,
    iterations_until,
    pace_of,
    seconds_of,
)
from fate_gym.kernel.batching.scene import Scene, scene_in, scene_words
from fate_gym.kernel.batching.waves import rests
from fate_gym.kernel.cost import context_hit_tokens
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.prefixes import computed_hit, has_prefix, left_by, shared_tokens
from fate_gym.kernel.schema import (
    ADMITTED,
    DECODING,
    ENDED,
    FIXED_STAGE,
    GRAZE,
    JOINED,
    QUEUED,
    ProblemArrays,
    StateArrays,
)


class Foresight(NamedTuple):
    """Expected times and costs of a shard that joins a device's queue. Times in seconds.

    Attributes:
        turn: when it is admitted.
        load: seconds to load its model.
        transfer: seconds until its inputs are there.
        moved: bytes that come from elsewhere.
        copied: prefix tokens that another device sends.
        first: when its first tokens are there.
        end: when it ends.
        drained: when the device has nothing left to do.
        others: sum of the ends of all other shards.
    """

    turn: float
    load: float
    transfer: float
    moved: float
    copied: int
    first: float
    end: float
    drained: float
    others: float


class Added(NamedTuple):
    """The shard that `foresee` adds to a queue."""

    stage: int
    queries: int
    source: int
    blind: int


@kernel
def foresee(
    p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, source: int, blind: int, full: int
) -> Foresight:
    """Play ``d`` forward with ``n`` queries of stage ``s`` added at the end of its queue.

    Args:
        p: the problem.
        st: the state.
        s: a stage that may run there; -1: no shard is added.
        d: a device that is up.
        n: queries.
        source: the device that sends the prefix, -1: none.
        blind: 1: as if nothing were loaded or cached for the stage.
        full: 0: stop once the added shard has ended; 1: play until all shards have.
    """
    count = _shards_of(p, st, d) + (1 if s >= 0 else 0)
    words = np.zeros(scene_words(count), np.int64)
    added = Added(s, n, source, blind)
    found = _foresee(p, st, scene_in(words, count), d, added, full)
    words[0] = 0  # the last use of the buffer: until then numba keeps it
    return found


@kernel
def _foresee(
    p: ProblemArrays, st: StateArrays, scene: Scene, d: int, added: Added, full: int
) -> Foresight:
    """Do what `foresee` says in a scene of zeros."""
    _gather(p, st, d, scene)
    last = scene.shards.size - 1 if added.stage >= 0 else -1
    if last >= 0:
        one = scene.shards[last]
        one.stage, one.waiting = added.stage, added.queries
        one.source, one.blind = added.source, added.blind
    _play(p, st, d, scene, last, full)
    drained, others = st.now, 0.0
    for i in range(scene.shards.size):
        end = scene.shards[i].end
        drained = max(drained, end)
        others += end if i != last else 0.0
    return Foresight(
        scene.turn,
        scene.load,
        scene.transfer,
        scene.moved,
        scene.copied,
        scene.first,
        scene.shards[last].end if last >= 0 else drained,
        drained,
        others,
    )


@kernel
def foresee_ends(p: ProblemArrays, st: StateArrays, d: int, ends: Floats) -> None:
    """Raise ``ends`` (S,) to the expected ends of the shards on ``d``, which must be up."""
    count = _shards_of(p, st, d)
    words = np.zeros(scene_words(count), np.int64)
    _foresee_ends(p, st, scene_in(words, count), d, ends)
    words[0] = 0  # the last use of the buffer: until then numba keeps it


@kernel
def _foresee_ends(p: ProblemArrays, st: StateArrays, scene: Scene, d: int, ends: Floats) -> None:
    """Do what `foresee_ends` says in a scene of zeros."""
    _gather(p, st, d, scene)
    _play(p, st, d, scene, -1, 1)
    for i in range(scene.shards.size):
        one = scene.shards[i]
        ends[one.stage] = max(ends[one.stage], one.end)


@kernel
def _play(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, last: int, full: int) -> None:
    """Play until all shards have ended, or with ``full`` 0 the one at position ``last``."""
    gate = st.now
    while True:
        if scene.look and scene.border >= gate - GRAZE:
            _admit(p, st, d, scene, last)
        wake = _join(p, st, d, scene)
        if scene.in_line == 0 and scene.decoding == 0:
            if wake == np.inf:
                break
            scene.border = wake
            continue
        if scene.border < gate - GRAZE:
            wake = min(wake, gate)
        pace = _pace(p, d, scene)
        k = pace.most
        if wake < np.inf:
            k = iterations_until(pace, wake - scene.border)
        _iterate(p, scene, k)
        scene.border += seconds_of(pace, k)
        _end(p, scene, last)
        if last >= 0 and not full and scene.shards[last].state == ENDED:
            break


@inlined
def _shards_of(p: ProblemArrays, st: StateArrays, d: int) -> int:
    """Return how many shards are on ``d``, in its batch and in its queue."""
    batch, count = st.batches[d], 0
    for head in (batch.decoder, batch.prompt, batch.admitted, st.devices[d].queue_head):
        number = head
        while number >= 0:
            count += 1
            number = next_in_queue(p, st, number)
    return count


@inlined
def _gather(p: ProblemArrays, st: StateArrays, d: int, scene: Scene) -> None:
    """Copy the shards of ``d`` into a scene of zeros."""
    batch = st.batches[d]
    scene.border = st.now if rests(st, d) else batch.time
    scene.loaded = loaded_by(p, st, d, 0) if st.noisy else batch.loaded_at
    scene.sequences = batch.sequences
    scene.serving = batch.serving if batch.sequences > 0 else -2
    scene.look = 1
    i = 0
    for head in (batch.decoder, batch.prompt, batch.admitted, st.devices[d].queue_head):
        number = head
        while number >= 0:
            _copy_lane(p, st, d, scene, number, i)
            number = next_in_queue(p, st, number)
            i += 1
    if st.noisy and not rests(st, d):
        _catch_up(p, st, d, scene)


@inlined
def _copy_lane(
    p: ProblemArrays, st: StateArrays, d: int, scene: Scene, number: int, i: int
) -> None:
    s, k = slot_of(p, number)
    lane, one = st.lanes[s, k], scene.shards[i]
    one.stage, one.state = s, lane.state
    one.wave, one.waiting = lane.wave, lane.waiting
    one.prompt, one.made = lane.prompt, lane.made
    one.source, one.blind = lane.source, lane.blind
    one.again, one.begun = lane.number >= 0, lane.state >= JOINED
    one.there, one.pair_s = lane.there, lane.pair_s
    if st.noisy and lane.state == ADMITTED:
        was, loaded = st.batches[d].loaded_at, scene.loaded
        one.there = there_by(p, st, s, k, was, loaded, 1.0)
    one.context_hit = lane.context_hit
    if ADMITTED <= lane.state <= DECODING:
        _let_in(p, scene, i)
    if lane.state == ADMITTED:
        scene.fetching += 1
    elif lane.state == JOINED:
        scene.line[scene.in_line] = i
        scene.in_line += 1
    elif lane.state == DECODING:
        one.made = lane.made + st.batches[d].steps - lane.since
        _decode(p, scene, i, max(1, p.stages[s].output_tokens - one.made))


@inlined
def _decode(p: ProblemArrays, scene: Scene, i: int, steps: int) -> None:
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
def _catch_up(p: ProblemArrays, st: StateArrays, d: int, scene: Scene) -> None:
    """Pass the iterations that are over by now: that they are is visible, despite the noise."""
    pace = pace_of(p, st, d)
    k = iterations_passed(pace, st.now - scene.border, st.batches[d].ahead)
    if k > 0:
        _iterate(p, scene, k)
        scene.border += seconds_of(pace, k)
        for j in range(scene.first_decoder, scene.behind):
            one = scene.shards[scene.decoders[j]]
            one.stop = max(one.stop, scene.steps + 1)


@inlined
def _fits(p: ProblemArrays, d: int, scene: Scene, i: int, wave: int) -> bool:
    """Return whether the wave at position ``i``, head of the queue, may be admitted."""
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
def _let_in(p: ProblemArrays, scene: Scene, i: int) -> None:
    """Account for the wave at position ``i``, which is being admitted."""
    # Each path adds only what those before it in the tree lack.
    scene.taken += _wave_bytes(p, scene, i) + _prefix_bytes(p, scene, i)
    scene.inside[scene.admitted] = i
    scene.admitted += 1
    scene.unfinished += scene.shards[i].waiting > 0


@kernel
def _let_out(p: ProblemArrays, scene: Scene, i: int) -> None:
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
def _admit(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, last: int) -> None:
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
    _let_in(p, scene, i)
    scene.sequences += wave
    scene.serving = stage.model
    scene.fetching += 1
    if stage.model >= 0 and not one.blind:
        one.context_hit = context_hit_tokens(p, st, s, d)


@inlined
def _join(p: ProblemArrays, st: StateArrays, d: int, scene: Scene) -> float:
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


@kernel
def _pace(p: ProblemArrays, d: int, scene: Scene) -> Pace:
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
def _iterate(p: ProblemArrays, scene: Scene, iterations: int) -> None:
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


@kernel
def _end(p: ProblemArrays, scene: Scene, last: int) -> None:
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
            _decode(p, scene, i, output - one.made)
    for turn in range(complete, scene.in_line):
        scene.line[turn - complete] = scene.line[turn]
    scene.in_line -= complete


@inlined
def _end_wave(p: ProblemArrays, scene: Scene, i: int) -> None:
    _let_out(p, scene, i)
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
