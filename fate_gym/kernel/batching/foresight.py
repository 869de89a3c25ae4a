"""Estimates by playing a batching device forward, without new shards and unexpected events.

Waves are copied into a `Scene`; the state is left as it is. Shards keep the order in which they
were or will be admitted. What is cached now is assumed to stay cached.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import Floats, inlined, kernel
from fate_gym.kernel.batching.expected import loaded_by, there_by
from fate_gym.kernel.batching.pace import (
    iterations_until,
    seconds_of,
)
from fate_gym.kernel.batching.scene import Scene, scene_in, scene_words
from fate_gym.kernel.batching.scene_admission import admit, join, let_in
from fate_gym.kernel.batching.scene_steps import catch_up, decode, end_waves, iterate, scene_pace
from fate_gym.kernel.batching.waves import rests
from fate_gym.kernel.numbers import next_in_queue, slot_of
from fate_gym.kernel.schema import (
    ADMITTED,
    DECODING,
    ENDED,
    GRAZE,
    JOINED,
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
            admit(p, st, d, scene, last)
        wake = join(p, st, d, scene)
        if scene.in_line == 0 and scene.decoding == 0:
            if wake == np.inf:
                break
            scene.border = wake
            continue
        if scene.border < gate - GRAZE:
            wake = min(wake, gate)
        pace = scene_pace(p, d, scene)
        k = pace.most
        if wake < np.inf:
            k = iterations_until(pace, wake - scene.border)
        iterate(p, scene, k)
        scene.border += seconds_of(pace, k)
        end_waves(p, scene, last)
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
        catch_up(p, st, d, scene)


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
        let_in(p, scene, i)
    if lane.state == ADMITTED:
        scene.fetching += 1
    elif lane.state == JOINED:
        scene.line[scene.in_line] = i
        scene.in_line += 1
    elif lane.state == DECODING:
        one.made = lane.made + st.batches[d].steps - lane.since
        decode(p, scene, i, max(1, p.stages[s].output_tokens - one.made))
