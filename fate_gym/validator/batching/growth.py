"""Waves that make more tokens than estimated, and what is preempted for them.

Re-implements "Uncertain lengths" of docs/execution-model.md.
"""

from __future__ import annotations

from fate_gym.validator.batching.engine import Engine
from fate_gym.validator.batching.waves import Wave
from fate_gym.validator.memory import cut, evict
from fate_gym.validator.world import PREFIX


def grow(engine: Engine) -> None:
    """Let waves that have used up their reservation reserve more, in the order of admission."""
    for wave in list(engine.admitted):
        if wave not in engine.decoding or wave.made < wave.room:
            continue
        _make_room(engine, wave)
        if wave in engine.admitted:
            wave.room += wave.job.growth


def _make_room(engine: Engine, wave: Wave) -> None:
    """Evict and preempt until a wave can grow, is preempted itself, or is alone."""
    job, state, memory = wave.job, engine.state, engine.memory
    assert job.node.model is not None
    model = state.world.models.index(job.node.model.name)
    more = wave.queries * job.growth * job.kv
    while memory.used() + engine.reserved + more > engine.machine.limit:
        if evict(state, job.row, engine.pinned, model, engine.border):
            continue
        last = engine.admitted[-1]
        if last is wave and len(engine.admitted) == 1:
            return
        _preempt(engine, last)
        if last is wave:
            return


def _preempt(engine: Engine, wave: Wave) -> None:
    """Preempt a wave: its memory is freed, and its shard heads the queue again."""
    job = wave.job
    engine.admitted.remove(wave)
    for waves in (engine.prompts, engine.decoding):
        if wave in waves:
            waves.remove(wave)
    _forget_uncomputed(engine, wave)
    wave.joined, wave.lacks = False, set()
    wave.fetch, wave.path = None, []
    wave.tokens = wave.done = 0
    wave.room = max(job.node.stage.output_tokens, wave.made + job.growth)
    job.found.preempted += 1
    job.paused = wave
    if job in engine.queue:
        engine.queue.remove(job)
    engine.queue.insert(0, job)


def _forget_uncomputed(engine: Engine, wave: Wave) -> None:
    """Remove what was never computed of the prefix of a wave that is no longer admitted."""
    memory, reached = engine.memory, wave.known + wave.done
    for piece in wave.path:
        entry = memory.kv[piece.key]
        if wave.in_prompt and reached < wave.job.node.stage.prefix_tokens:
            entry.computed = min(entry.computed, reached)
        parents = engine.state.world.parents
        inner = {parents.get(number) for kind, number in memory.kv if kind == PREFIX}
        if piece.key in engine.pinned or piece.key[1] in inner:
            continue
        if entry.computed <= piece.start:
            del memory.kv[piece.key]
        else:
            cut(memory, piece, entry.computed, wave.job.kv)
