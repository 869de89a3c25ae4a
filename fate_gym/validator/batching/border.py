"""The steps of a border: ends, first tokens, growth, admissions, joins."""

from __future__ import annotations

from fate_gym.validator.batching.admission import admit, compute, join, may_admit
from fate_gym.validator.batching.engine import Engine
from fate_gym.validator.batching.growth import grow
from fate_gym.validator.batching.waves import Job, Wave
from fate_gym.validator.memory import grow_path, written_path
from fate_gym.validator.state import Entry
from fate_gym.validator.world import CONTEXT


def at_border(engine: Engine, peers: list[Engine]) -> None:
    """Carry out all steps of a border, at the end of an iteration or on a resting device."""
    if engine.runs:
        engine.finish()
    else:
        engine.border, engine.rest = engine.next_border, 0.0
    for wave in [wave for wave in engine.decoding if wave.made >= wave.job.target]:
        engine.decoding.remove(wave)
        _end(engine, wave)
    complete = [wave for wave in engine.prompts if not wave.in_prompt]
    engine.prompts = [wave for wave in engine.prompts if wave.in_prompt]
    for wave in complete:
        wave.lacks = set()
        found = wave.job.found
        found.first = min(found.first, engine.border)
    for wave in [wave for wave in complete if wave.made + 1 >= wave.job.target]:
        complete.remove(wave)
        _end(engine, wave)
    for wave in complete:
        wave.made += 1
        engine.decoding.append(wave)
    if engine.state.world.problem.options.length_uncertainty > 0:
        grow(engine)
    _admit_and_join(engine, engine.border, peers)


def commit(engine: Engine, job: Job, now: float, peers: list[Engine]) -> None:
    """Add a shard to the queue; if no iteration is under way, this moment is a border."""
    engine.queue.append(job)
    if engine.runs:
        return
    if not engine.about_to_run and now > engine.border:
        engine.border, engine.rest = now, 0.0
    _admit_and_join(engine, max(engine.border, now), peers)


def _admit_and_join(engine: Engine, now: float, peers: list[Engine]) -> None:
    while engine.queue:
        job = engine.queue[0]
        wave = job.next_wave
        if any(other.job is job for other in engine.admitted) or not may_admit(engine, wave):
            break
        admit(engine, wave, now, peers)
        if job.left == 0:
            engine.queue.pop(0)
    for wave in engine.admitted:
        if not wave.joined and engine.is_there(wave):
            join(engine, wave)


def _end(engine: Engine, wave: Wave) -> None:
    """End a wave that has all its tokens; what a child may use of its KV stays cached."""
    job, memory = wave.job, engine.memory
    engine.admitted.remove(wave)
    path = written_path(engine.state, job.node)
    grow_path(memory, path, job.kv)
    compute(memory, path)
    if job.node.has_heirs and job.kv > 0 and not job.is_void:
        key = (CONTEXT, job.node.number)
        known = memory.kv.pop(key, Entry(0, 0.0))
        queries = known.amount + wave.queries
        memory.kv[key] = Entry(queries, queries * job.node.query_tokens * job.kv)
    if job.left == 0:
        engine.on_end(job, engine.border)
