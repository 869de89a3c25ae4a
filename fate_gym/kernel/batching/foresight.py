"""Estimates by playing a batching device forward: no new shards, nothing unexpected.

Waves are copied into a `Scene`; the state is left as it is. Shards keep the order in which they
were or will be admitted. What is cached now is assumed to stay cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import Floats, Ints, inlined, kernel
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


class Scene(NamedTuple):
    """The N shards of a device. Fields have shape (N,) and the meaning of `schema.Lane`."""

    stage: Ints
    state: Ints
    wave: Ints
    waiting: Ints
    prompt: Ints
    stop: Ints  # decoding waves: the step count at which it ends
    made: Ints  # tokens of each query so far; while decoding, minus the steps so far
    again: Ints  # 1: its inputs are there already
    begun: Ints  # 1: one of its waves has joined
    source: Ints
    blind: Ints
    inside: Ints  # positions of admitted shards, in any order
    line: Ints  # positions of shards whose prompt is computed, in the order in which they joined
    decoders: Ints  # positions of decoding shards, by `stop`
    there: Floats
    pair_s: Floats
    context_hit: Floats
    end: Floats


class Clock(NamedTuple):
    """The mutable values of a scene while it is played.

    Attributes:
        times: (3,) indexed by the constants below.
        counts: (13,) indexed by the constants below.
        found: (6,) turn, load, transfer, moved, copied and first of the last shard.
    """

    times: Floats
    counts: Ints
    found: Floats


BORDER, LOADED, TAKEN = 0, 1, 2
"""`Clock.times`: the border, when the weights are there, and the KV bytes of admitted waves."""
IN_LINE = 0
"""`Clock.counts`: length of `Scene.line`."""
DECODES, CONTEXT, STEPS = 1, 2, 3
"""Queries that decode, the tokens that they attend to, the steps made so far."""
FIRST, BEHIND = 4, 5
"""Bounds of the part of `Scene.decoders` in use: FIRST to BEHIND - 1."""
SEQUENCES, SERVING, FETCHING = 6, 7, 8
"""Admitted queries, their model (-2: none admitted), admitted waves that have not joined."""
HEAD, LOOK = 9, 10
"""No shard is queued before position HEAD; LOOK is 1 if the head has to be checked again."""
INSIDE, UNFINISHED = 11, 12
"""Length of `Scene.inside`; how many of these have further waves."""


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
    scene, clock = _gather(p, st, s, d, n, source, blind)
    last = scene.stage.size - 1 if s >= 0 else -1
    _play(p, st, d, scene, clock, last, full)
    drained, others = st.now, 0.0
    for i in range(scene.stage.size):
        drained = max(drained, scene.end[i])
        others += scene.end[i] if i != last else 0.0
    f = clock.found
    end = scene.end[last] if last >= 0 else drained
    return Foresight(f[0], f[1], f[2], f[3], int(f[4]), f[5], end, drained, others)


@kernel
def foresee_ends(p: ProblemArrays, st: StateArrays, d: int, ends: Floats) -> None:
    """Raise ``ends`` (S,) to the expected ends of the shards on ``d``, which must be up."""
    scene, clock = _gather(p, st, -1, d, 0, -1, 0)
    _play(p, st, d, scene, clock, -1, 1)
    for i in range(scene.stage.size):
        ends[scene.stage[i]] = max(ends[scene.stage[i]], scene.end[i])


@kernel
def _play(
    p: ProblemArrays, st: StateArrays, d: int, scene: Scene, clock: Clock, last: int, full: int
) -> None:
    """Play until all shards have ended, or with ``full`` 0 the one at position ``last``."""
    times, counts, gate = clock.times, clock.counts, st.now
    while True:
        if counts[LOOK] and times[BORDER] >= gate - GRAZE:
            _admit(p, st, d, scene, clock, last)
        wake = _join(p, st, d, scene, clock)
        if counts[IN_LINE] == 0 and counts[DECODES] == 0:
            if wake == np.inf:
                break
            times[BORDER] = wake
            continue
        if times[BORDER] < gate - GRAZE:
            wake = min(wake, gate)
        pace = _pace(p, d, scene, clock)
        k = pace.most
        if wake < np.inf:
            k = iterations_until(pace, wake - times[BORDER])
        _iterate(p, scene, clock, k)
        times[BORDER] += seconds_of(pace, k)
        _end(p, scene, clock, last)
        if last >= 0 and not full and scene.state[last] == ENDED:
            break


@inlined
def _gather(
    p: ProblemArrays, st: StateArrays, s: int, d: int, n: int, source: int, blind: int
) -> tuple[Scene, Clock]:
    batch = st.batches[d]
    count = 1 if s >= 0 else 0
    heads = (batch.decoder, batch.prompt, batch.admitted, st.devices[d].queue_head)
    for head in heads:
        number = head
        while number >= 0:
            count += 1
            number = next_in_queue(p, st, number)
    ints = np.zeros((14, count), np.int64)
    floats = np.zeros((4, count))
    scene = Scene(
        ints[0], ints[1], ints[2], ints[3], ints[4], ints[5], ints[6], ints[7], ints[8],
        ints[9], ints[10], ints[11], ints[12], ints[13], floats[0], floats[1], floats[2], floats[3],
    )  # fmt: skip
    clock = Clock(np.zeros(3), np.zeros(13, np.int64), np.zeros(6))
    clock.times[BORDER] = st.now if rests(st, d) else batch.time
    clock.times[LOADED] = loaded_by(p, st, d, 0) if st.noisy else batch.loaded_at
    clock.counts[SEQUENCES] = batch.sequences
    clock.counts[SERVING] = batch.serving if batch.sequences > 0 else -2
    clock.counts[LOOK] = 1
    i = 0
    for head in heads:
        number = head
        while number >= 0:
            _copy_lane(p, st, d, scene, clock, number, i)
            number = next_in_queue(p, st, number)
            i += 1
    if s >= 0:
        scene.stage[i], scene.waiting[i] = s, n
        scene.source[i], scene.blind[i] = source, blind
    if st.noisy and not rests(st, d):
        _catch_up(p, st, d, scene, clock)
    return scene, clock


@inlined
def _copy_lane(
    p: ProblemArrays, st: StateArrays, d: int, scene: Scene, clock: Clock, number: int, i: int
) -> None:
    s, k = slot_of(p, number)
    lane = st.lanes[s, k]
    scene.stage[i], scene.state[i] = s, lane.state
    scene.wave[i], scene.waiting[i] = lane.wave, lane.waiting
    scene.prompt[i], scene.made[i] = lane.prompt, lane.made
    scene.again[i], scene.source[i], scene.blind[i] = lane.number >= 0, lane.source, lane.blind
    scene.there[i], scene.pair_s[i] = lane.there, lane.pair_s
    if st.noisy and lane.state == ADMITTED:
        was, loaded = st.batches[d].loaded_at, clock.times[LOADED]
        scene.there[i] = there_by(p, st, s, k, was, loaded, 1.0)
    scene.context_hit[i] = lane.context_hit
    scene.begun[i] = lane.state >= JOINED
    if ADMITTED <= lane.state <= DECODING:
        _let_in(p, scene, clock, i)
    if lane.state == ADMITTED:
        clock.counts[FETCHING] += 1
    elif lane.state == JOINED:
        scene.line[clock.counts[IN_LINE]] = i
        clock.counts[IN_LINE] += 1
    elif lane.state == DECODING:
        scene.made[i] = lane.made + st.batches[d].steps - lane.since
        _decode(p, scene, clock, i, max(1, p.stages[s].output_tokens - scene.made[i]))


@inlined
def _decode(p: ProblemArrays, scene: Scene, clock: Clock, i: int, steps: int) -> None:
    """Let the wave at position ``i`` decode from now on, for ``steps`` steps."""
    counts, stage = clock.counts, p.stages[scene.stage[i]]
    scene.state[i] = DECODING
    scene.stop[i] = counts[STEPS] + steps
    own = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens + scene.made[i]
    counts[DECODES] += scene.wave[i]
    counts[CONTEXT] += scene.wave[i] * own
    scene.made[i] -= counts[STEPS]
    # Reuse the space of waves at the front that have ended.
    if counts[FIRST] > 0 and counts[BEHIND] == scene.decoders.size:
        for j in range(counts[FIRST], counts[BEHIND]):
            scene.decoders[j - counts[FIRST]] = scene.decoders[j]
        counts[BEHIND] -= counts[FIRST]
        counts[FIRST] = 0
    j = counts[BEHIND]
    counts[BEHIND] += 1
    while j > counts[FIRST] and scene.stop[scene.decoders[j - 1]] > scene.stop[i]:
        scene.decoders[j] = scene.decoders[j - 1]
        j -= 1
    scene.decoders[j] = i


@kernel
def _catch_up(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, clock: Clock) -> None:
    """Pass the iterations that are over by now: that they are is visible, despite the noise."""
    pace = pace_of(p, st, d)
    k = iterations_passed(pace, st.now - clock.times[BORDER], st.batches[d].ahead)
    if k > 0:
        _iterate(p, scene, clock, k)
        clock.times[BORDER] += seconds_of(pace, k)
        for j in range(clock.counts[FIRST], clock.counts[BEHIND]):
            i = scene.decoders[j]
            scene.stop[i] = max(scene.stop[i], clock.counts[STEPS] + 1)


@inlined
def _fits(p: ProblemArrays, d: int, scene: Scene, clock: Clock, i: int, wave: int) -> bool:
    """Return whether the wave at position ``i``, head of the queue, may be admitted."""
    if clock.counts[SEQUENCES] == 0:
        return True
    stage = p.stages[scene.stage[i]]
    if stage.model < 0 or stage.model != clock.counts[SERVING]:
        return False
    if clock.counts[SEQUENCES] + wave > p.max_batch:
        return False
    if clock.counts[UNFINISHED] > 0:
        return False
    taken = clock.times[TAKEN] + wave * context_bytes(p, scene.stage[i])
    taken += _prefix_bytes(p, scene, clock, i)
    return bool(taken + p.models[stage.model].weight_bytes <= p.devices[d].memory)


@inlined
def _prefix_bytes(p: ProblemArrays, scene: Scene, clock: Clock, i: int) -> float:
    """Return the prefix bytes of the shard at position ``i`` not shared with admitted ones."""
    stage = p.stages[scene.stage[i]]
    if stage.model < 0 or not has_prefix(p, stage):
        return 0.0
    shared = 0
    for n in range(clock.counts[INSIDE]):
        j = scene.inside[n]
        if j != i and p.stages[scene.stage[j]].prefix >= 0:
            shared = max(shared, shared_tokens(p, scene.stage[i], scene.stage[j]))
    return (stage.prefix_tokens - shared) * p.models[stage.model].kv


@kernel
def _let_in(p: ProblemArrays, scene: Scene, clock: Clock, i: int) -> None:
    """Account for the wave at position ``i``, which is being admitted."""
    # Each path adds only what those before it in the tree lack.
    clock.times[TAKEN] += _wave_bytes(p, scene, i) + _prefix_bytes(p, scene, clock, i)
    scene.inside[clock.counts[INSIDE]] = i
    clock.counts[INSIDE] += 1
    clock.counts[UNFINISHED] += scene.waiting[i] > 0


@kernel
def _let_out(p: ProblemArrays, scene: Scene, clock: Clock, i: int) -> None:
    """Release the memory of the wave at position ``i``."""
    for n in range(clock.counts[INSIDE]):
        if scene.inside[n] == i:
            clock.counts[INSIDE] -= 1
            scene.inside[n] = scene.inside[clock.counts[INSIDE]]
            break
    clock.times[TAKEN] -= _wave_bytes(p, scene, i) + _prefix_bytes(p, scene, clock, i)
    clock.counts[UNFINISHED] -= scene.waiting[i] > 0


@inlined
def _wave_bytes(p: ProblemArrays, scene: Scene, i: int) -> float:
    if p.stages[scene.stage[i]].model < 0:
        return 0.0
    return scene.wave[i] * context_bytes(p, scene.stage[i])


@inlined
def _admit(
    p: ProblemArrays, st: StateArrays, d: int, scene: Scene, clock: Clock, last: int
) -> None:
    counts = clock.counts
    counts[LOOK] = 0
    while counts[HEAD] < scene.stage.size:
        i = counts[HEAD]
        if scene.state[i] == QUEUED:
            wave = wave_of(p, scene.stage[i], d, scene.waiting[i])
            if not _fits(p, d, scene, clock, i, wave):
                break
            _admit_one(p, st, d, scene, clock, i, wave, last)
        counts[HEAD] += 1


@kernel
def _admit_one(
    p: ProblemArrays,
    st: StateArrays,
    d: int,
    scene: Scene,
    clock: Clock,
    i: int,
    wave: int,
    last: int,
) -> None:
    s, time = scene.stage[i], max(st.now, clock.times[BORDER])
    stage = p.stages[s]
    load = 0.0
    seen = scene.again[i] or scene.blind[i]
    if stage.model >= 0 and not st.resident[d, stage.model] and not seen:
        load = p.load_seconds[stage.model, d]
        for j in range(i):  # an earlier shard of the same model has loaded it
            if p.stages[scene.stage[j]].model == stage.model:
                load = 0.0
    if clock.counts[SEQUENCES] == 0:
        clock.times[LOADED] = time + load
    seconds, moved, copied = 0.0, 0.0, 0
    if not scene.again[i]:
        inflow = inflow_of(p, st, s, d, scene.waiting[i], scene.source[i])
        seconds, moved, copied = inflow.seconds, inflow.moved, inflow.copied
        if p.eager:
            seconds = max(0.0, seconds - (time - st.now))
    launch = 0.0 if stage.model < 0 else p.devices[d].launch_s
    scene.there[i] = max(clock.times[LOADED], time + seconds) + launch
    if i == last and not scene.again[i]:
        f = clock.found
        f[0], f[1], f[2], f[3], f[4] = time, load, seconds, moved, float(copied)
        f[5] = np.inf
    scene.again[i] = 1
    scene.wave[i] = wave
    scene.waiting[i] -= wave
    scene.prompt[i] = copied
    scene.state[i] = ADMITTED
    _let_in(p, scene, clock, i)
    clock.counts[SEQUENCES] += wave
    clock.counts[SERVING] = stage.model
    clock.counts[FETCHING] += 1
    if stage.model >= 0 and not scene.blind[i]:
        scene.context_hit[i] = context_hit_tokens(p, st, s, d)


@inlined
def _join(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, clock: Clock) -> float:
    """Let shards whose inputs are there join; return when the next inputs are, inf if none."""
    counts, wake = clock.counts, np.inf
    if counts[FETCHING] == 0:
        return wake
    for i in range(scene.stage.size):
        if scene.state[i] != ADMITTED:
            continue
        if scene.there[i] > clock.times[BORDER] + GRAZE:
            wake = min(wake, scene.there[i])
            continue
        _measure(p, st, d, scene, i)
        scene.state[i], scene.begun[i] = JOINED, 1
        scene.line[counts[IN_LINE]] = i
        counts[IN_LINE] += 1
        counts[FETCHING] -= 1
    return wake


@kernel
def _measure(p: ProblemArrays, st: StateArrays, d: int, scene: Scene, i: int) -> None:
    s = scene.stage[i]
    stage = p.stages[s]
    if stage.kind == FIXED_STAGE:
        scene.prompt[i] = 1
        return
    cached = 0
    if has_prefix(p, stage) and not scene.blind[i]:
        cached = computed_hit(p, st, d, stage.prefix, stage.prefix_tokens)
        cached += scene.prompt[i]  # copied tokens
        for j in range(scene.stage.size):
            if scene.begun[j] and p.stages[scene.stage[j]].model == stage.model:
                ended = scene.state[j] == ENDED
                left = (
                    left_by(p, scene.stage[j], s) if ended else shared_tokens(p, scene.stage[j], s)
                )
                cached = max(cached, left)
        cached = min(cached, stage.prefix_tokens)
    own = stage.prompt_tokens + stage.inherited_tokens + scene.made[i]
    context = stage.prefix_tokens + own
    prompt, attended = prompt_of(
        stage.prefix_tokens, cached, scene.wave[i], own - scene.context_hit[i], context
    )
    scene.prompt[i] = prompt
    seconds = p.models[stage.model].attention * attended / p.devices[d].attention_flops
    scene.pair_s[i] = seconds / prompt


@kernel
def _pace(p: ProblemArrays, d: int, scene: Scene, clock: Clock) -> Pace:
    """Return the pace from the border on; at least one wave must have joined."""
    counts = clock.counts
    decoding = counts[DECODES]
    left = p.token_budget - (0 if p.prefill_first else decoding)
    tokens, logits, chunk, pairs = 0, 0, 0, 0.0
    for turn in range(counts[IN_LINE]):
        i = scene.line[turn]
        s = scene.stage[i]
        if p.stages[s].kind == FIXED_STAGE:
            return Pace(p.clean_seconds[s, d], 0.0, 1, 0)
        taken = chunk_of(p, left, scene.prompt[i], tokens)
        if taken == 0:
            break
        tokens += taken
        left -= taken
        pairs += taken * scene.pair_s[i]
        if taken < scene.prompt[i]:
            chunk = taken if turn == 0 else 0
            break
        logits += scene.wave[i]
    most = 1
    if chunk > 0:
        most = (scene.prompt[scene.line[0]] - 1) // chunk
    if tokens > 0 and p.prefill_first:
        decoding = 0
    context = 0
    if decoding > 0:
        context = counts[CONTEXT]
        steps = scene.stop[scene.decoders[counts[FIRST]]] - counts[STEPS]
        if tokens == 0:
            most = steps
        elif chunk > 0:
            most = min(most, steps)
    m = counts[SERVING]
    first = pairs + iteration_seconds(p, d, m, tokens + decoding, logits + decoding, context)
    growth = decoding * p.models[m].kv / p.devices[d].attention_bandwidth
    return Pace(first, growth, most, chunk)


@kernel
def _iterate(p: ProblemArrays, scene: Scene, clock: Clock, iterations: int) -> None:
    counts = clock.counts
    left = p.token_budget - (0 if p.prefill_first else counts[DECODES])
    taken = 0
    for turn in range(counts[IN_LINE]):
        i = scene.line[turn]
        chunk = chunk_of(p, left, scene.prompt[i], taken)
        scene.prompt[i] -= chunk * iterations
        left -= chunk
        taken += chunk
        if scene.prompt[i] > 0:
            break
    if taken == 0 or not p.prefill_first:
        counts[STEPS] += iterations
        counts[CONTEXT] += iterations * counts[DECODES]


@kernel
def _end(p: ProblemArrays, scene: Scene, clock: Clock, last: int) -> None:
    """End decoding waves and prompts that are complete at the border."""
    counts = clock.counts
    while counts[FIRST] < counts[BEHIND]:
        i = scene.decoders[counts[FIRST]]
        if scene.stop[i] > counts[STEPS]:
            break
        counts[FIRST] += 1
        stage = p.stages[scene.stage[i]]
        own = stage.prefix_tokens + stage.prompt_tokens + stage.inherited_tokens
        counts[DECODES] -= scene.wave[i]
        counts[CONTEXT] -= scene.wave[i] * (own + scene.made[i] + counts[STEPS])
        _end_wave(p, scene, clock, i)
    complete = 0
    while complete < counts[IN_LINE] and scene.prompt[scene.line[complete]] == 0:
        i = scene.line[complete]
        complete += 1
        output = p.stages[scene.stage[i]].output_tokens
        if i == last and clock.found[5] == np.inf:
            clock.found[5] = clock.times[BORDER]
        scene.made[i] += 1 if output > 0 else 0
        if scene.made[i] >= output:
            _end_wave(p, scene, clock, i)
        else:
            _decode(p, scene, clock, i, output - scene.made[i])
    for turn in range(complete, counts[IN_LINE]):
        scene.line[turn - complete] = scene.line[turn]
    counts[IN_LINE] -= complete


@inlined
def _end_wave(p: ProblemArrays, scene: Scene, clock: Clock, i: int) -> None:
    _let_out(p, scene, clock, i)
    clock.counts[SEQUENCES] -= scene.wave[i]
    clock.counts[LOOK] = 1
    scene.wave[i] = 0
    scene.made[i] = 0
    scene.end[i] = clock.times[BORDER]
    if scene.waiting[i] > 0:
        # Head of the queue again: no later shard has been admitted.
        scene.state[i] = QUEUED
        clock.counts[HEAD] = i
    else:
        scene.state[i] = ENDED
