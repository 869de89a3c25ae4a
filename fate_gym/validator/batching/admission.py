"""Admission and join of a wave: whether it may, what it fetches, finds and evicts.

Re-implements "Admission" of docs/execution-model.md.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import replace

from fate_gym.validator.batching.engine import Engine
from fate_gym.validator.batching.waves import Wave
from fate_gym.validator.memory import cached_of, cut, evict, find_hits, grow_path, prefix_path
from fate_gym.validator.network import Inflow, book, flows_into, seconds_from
from fate_gym.validator.state import Flow, Memory
from fate_gym.validator.world import CONTEXT, TOLERANCE, Piece

_ROUNDING = 1e-6
"""Tokens above a whole number that are due to rounding: hits are fractions."""


def may_admit(engine: Engine, wave: Wave) -> bool:
    """Return whether the head of the queue may be admitted."""
    if not engine.admitted:
        return True
    job, other = wave.job, engine.admitted[0].job
    if job.seconds is not None or other.seconds is not None or job.node.model != other.node.model:
        return False
    if any(running.job.left > 0 for running in engine.admitted):
        return False
    queries = sum(running.queries for running in engine.admitted) + wave.queries
    if queries > engine.serving.max_sequences:
        return False
    assert job.node.model is not None
    entries, pinned = engine.memory.kv, engine.pinned
    more = 0.0
    for piece in prefix_path(engine.state, job.node):
        here = entries[piece.key].amount if piece.key in pinned else piece.start
        more += max(0, piece.need - here) * job.kv
    held = math.fsum(entries[key].bytes for key in pinned) + engine.reserved
    return job.node.model.weight_bytes + held + more + wave.reserved <= engine.machine.limit


def admit(engine: Engine, wave: Wave, now: float, peers: list[Engine]) -> None:
    """Admit a wave at ``now``."""
    job, state = wave.job, engine.state
    known = cached_of(engine.memory, prefix_path(state, job.node), computed=True)
    wave.hits = replace(find_hits(state, job.node, engine.memory), prefix=known)
    inflow = Inflow(now, wave.hits, [])
    if job.found.start == math.inf:
        job.found.start = now
        inflow = _fetch(engine, wave, now, peers)
        job.found.transfer = inflow.transfer
        job.found.bytes_moved = inflow.bytes_moved
        job.found.copied = inflow.hits.copied
    wave.fetch = inflow.fetch
    loaded = now
    if job.node.model is not None:
        loaded = _take_memory(engine, wave, now)
        job.found.context_hit += wave.queries * wave.hits.cached
        missing = job.node.inherited - wave.hits.cached - wave.hits.gone
        job.found.context_new += wave.queries * missing
    wave.hits = inflow.hits
    launch = 0.0 if job.seconds is not None else engine.machine.facts.prefill_launch_s * job.noise
    wave.there = max(loaded, now + inflow.transfer * job.noise) + launch
    if job.paused is None:
        job.left -= wave.queries
    job.paused = None
    engine.admitted.append(wave)
    insort(state.events, now)


def join(engine: Engine, wave: Wave) -> None:
    """Let a wave whose inputs are there join: count what is left to compute."""
    job, hits, stage = wave.job, wave.hits, wave.job.node.stage
    wave.joined, wave.done = True, 0
    engine.prompts.append(wave)
    if job.seconds is not None:
        wave.tokens = 1
        job.found.first = engine.border
        return
    p, known = stage.prefix_tokens, hits.prefix if hits.copied else 0
    if wave.path:
        known = max(known, cached_of(engine.memory, wave.path, computed=True))
        compute(engine.memory, wave.path)
    wave.known = known
    new, inherited = float(p - known), job.node.inherited
    each = stage.prompt_tokens + inherited - hits.cached - hits.gone + wave.made
    wave.tokens = max(wave.queries, math.ceil(new + wave.queries * each - _ROUNDING))
    attended = p + stage.prompt_tokens + inherited + wave.made - each / 2
    wave.pairs = new * (known + new / 2) + wave.queries * each * attended
    if job.found.prefix is None:
        job.found.prefix = known


def compute(memory: Memory, path: list[Piece]) -> None:
    """Mark all of a path as computed, or about to be."""
    for piece in path:
        entry = memory.kv[piece.key]
        entry.computed = max(entry.computed, piece.need)


def _fetch(engine: Engine, wave: Wave, now: float, peers: list[Engine]) -> Inflow:
    """Return what moves to a shard at its first admission."""
    state, job = engine.state, wave.job
    inflow = Inflow(now, wave.hits, flows_into(state, job.node, job.row))
    if job.row["source"] != -1:
        _copy_prefix(engine, wave, inflow, peers)
    if state.world.problem.options.contention:
        fetching = (other for peer in peers for other in peer.admitted if not other.joined)
        booked = [other.fetch for other in fetching if other.fetch]
        book(state, inflow, engine.machine.node, now, booked)
    else:
        inflow.transfer = seconds_from(state, inflow.flows, now)
    return inflow


def _copy_prefix(engine: Engine, wave: Wave, inflow: Inflow, peers: list[Engine]) -> None:
    """Add the prefix that is copied from another device."""
    state, job = engine.state, wave.job
    source, where = job.row["source"], f"{engine.state.at(job.row)}: source"
    if source == engine.number or not 0 <= source < len(peers) or job.node.model is None:
        state.faults.stop(f"{where}: device {source} has nothing to copy from")
    path, there = prefix_path(state, job.node), peers[source]
    keys = [piece.key for piece in path]
    is_missing = any(other.lacks.intersection(keys) for other in there.admitted)
    has = 0 if is_missing else cached_of(there.memory, path, computed=True)
    copied = has - wave.hits.prefix
    if copied <= 0:
        state.faults.append(f"{where}: device {source} has no more of the prefix")
        return
    there.memory.touch_path(keys)
    link = state.world.link(source, engine.number)
    inflow.flows.append(Flow(link, copied * job.kv, inflow.turn))
    inflow.hits = replace(wave.hits, prefix=has, copied=copied)


def _take_memory(engine: Engine, wave: Wave, now: float) -> float:
    """Make room for a wave; return when its model's weights are loaded."""
    job, state, memory, row = wave.job, engine.state, engine.memory, wave.job.row
    assert job.node.model is not None
    limit, others = engine.machine.limit, engine.pinned
    for parent in wave.hits.tokens:
        memory.touch((CONTEXT, parent))
    wave.path = prefix_path(state, job.node)
    known = cached_of(memory, wave.path, computed=True)
    wave.lacks = {piece.key for piece in wave.path if piece.need > known}
    grow_path(memory, wave.path, job.kv)
    model = state.world.models.index(job.node.model.name)
    missing = 0.0 if model in memory.weights else job.node.model.weight_bytes
    kept = others | {piece.key for piece in wave.path}

    def held() -> float:
        return memory.used() + engine.reserved + missing + wave.reserved

    while held() > limit and evict(state, row, kept, model, now):
        pass
    if held() > limit:
        for piece in wave.path:
            if piece.key not in others:
                cut(memory, piece, piece.need, job.kv)
    # A wave that ran alone may have grown beyond the memory before it was preempted.
    if held() > limit * (1 + TOLERANCE) and wave.room == job.node.stage.output_tokens:
        got = held()
        state.faults.append(f"{state.at(row)}: memory: limit {limit!r} bytes, got {got!r}")
    memory.weights.pop(model, None)
    memory.weights[model] = job.node.model.weight_bytes
    if missing:
        load = state.world.load_seconds(job.node.model, engine.machine)
        engine.loaded[model] = now + load * job.noise
        if now == job.found.start:
            job.found.load = load
    return engine.loaded[model]
