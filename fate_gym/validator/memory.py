"""What a device caches, and what it evicts.

Re-implements the section "Memory" of docs/execution-model.md, and the cached tokens of "Prefill".
"""

from __future__ import annotations

import math
from collections.abc import Container

from fate_gym.validator.costs import Costs
from fate_gym.validator.state import Entry, Hits, Memory, Row, State
from fate_gym.validator.world import CONTEXT, PREFIX, TOLERANCE, WEIGHTS, Node, Piece

_VALUES = {PREFIX: "prefixes", CONTEXT: "contexts", WEIGHTS: "models"}
_GRAZE = 1e-9
"""Seconds that count as the same moment."""


def prefix_path(state: State, node: Node) -> list[Piece]:
    """Return the pieces of the prefix tree that a stage needs, the last first; [] without KV."""
    if node.model is None or node.model.kv_bytes_per_token == 0:
        return []
    return state.world.path(node.stage, node.stage.prefix_tokens)


def written_path(state: State, node: Node) -> list[Piece]:
    """Return the pieces that a stage which extends its prefix leaves; [] if it does not."""
    if not node.stage.extends_prefix or not node.model or node.model.kv_bytes_per_token == 0:
        return []
    stage = node.stage
    whole = stage.prefix_tokens + stage.prompt_tokens + stage.output_tokens
    return state.world.path(stage, whole)


def cached_of(memory: Memory, path: list[Piece], *, computed: bool = False) -> int:
    """Return how many tokens of a path a device has, from the root on without a gap."""
    hit = 0
    for piece in reversed(path):
        entry = memory.kv.get(piece.key, Entry(0, 0.0))
        held = entry.computed if computed else entry.amount
        hit = max(hit, min(held, piece.need))
        if held < piece.need:
            break
    return hit


def grow_path(memory: Memory, path: list[Piece], kv: float, there: float = 0.0) -> None:
    """Grow the entries of a path to cover it, and touch them, the root last."""
    for piece in path:
        known = memory.kv.pop(piece.key, Entry(0, 0.0))
        tokens = max(known.amount, piece.need)
        moment = there if piece.need > known.amount else known.there
        size = (tokens - piece.start) * kv
        memory.kv[piece.key] = Entry(tokens, size, moment, known.computed)


def cut(memory: Memory, piece: Piece, tokens: int, kv: float) -> None:
    """Cut an entry to end at ``tokens``."""
    entry = memory.kv[piece.key]
    entry.amount, entry.bytes = tokens, (tokens - piece.start) * kv
    entry.computed = min(entry.computed, tokens)


def find_hits(state: State, node: Node, memory: Memory) -> Hits:
    """Return what a shard of a stage would find cached on a device."""
    tokens: dict[int, float] = {}
    gone = 0
    for parent, edge in node.parents:
        source = state.world.nodes[parent].stage
        context = memory.kv.get((CONTEXT, parent))
        if context is not None and edge.inherited_tokens > 0 and source.model == node.stage.model:
            tokens[parent] = edge.inherited_tokens * context.amount / source.queries
        if parent in state.vanished_by:
            gone += edge.inherited_tokens
    return Hits(cached_of(memory, prefix_path(state, node)), tokens, gone=gone)


def commit(state: State, node: Node, row: Row, hits: Hits, end: float) -> None:
    """Carry out the six steps of a commit on its device's memory."""
    assert node.model is not None
    device = row["device"]
    machine, memory = state.world.machines[device], state.memories[device]
    kv, path = node.model.kv_bytes_per_token, prefix_path(state, node)
    for parent in hits.tokens:
        memory.touch((CONTEXT, parent))
    grow_path(memory, path, kv, end)
    own = {piece.key for piece in path}
    model = state.world.models.index(node.model.name)
    queries: int = min(row["queries"], Costs(state.world, node, machine).batch)
    working = queries * node.query_tokens * kv
    missing = 0.0 if model in memory.weights else node.model.weight_bytes

    def held() -> float:
        return memory.used() + missing + working

    while held() > machine.limit and evict(state, row, own, model, row["committed"]):
        pass
    if held() > machine.limit:
        for piece in path:
            cut(memory, piece, piece.need, kv)
    if held() > machine.limit * (1 + TOLERANCE):
        limit, got = machine.limit, held()
        state.faults.append(f"{state.at(row)}: memory: limit {limit!r} bytes, got {got!r}")
    if node.has_heirs and kv > 0:
        memory.kv[CONTEXT, node.number] = Entry(queries, working)
    grow_path(memory, written_path(state, node), kv, end)
    memory.weights.pop(model, None)
    memory.weights[model] = node.model.weight_bytes


def evict(state: State, row: Row, kept: Container[tuple[int, int]], model: int, now: float) -> bool:
    """Evict for a shard what is worth least now; return False if nothing can go.

    Entries in ``kept``, prefixes with a cached branch, and the shard's own model stay.
    """
    device = row["device"]
    memory = state.memories[device]
    parents = state.world.parents
    inner = {(PREFIX, parents.get(number, -1)) for kind, number in memory.kv if kind == PREFIX}
    entries = [key for key in memory.kv if key not in kept and key not in inner]
    idle = [(WEIGHTS, other) for other in memory.weights if other != model]
    if not entries and not idle:
        return False
    # `min` takes the first of equals: the least recently used.
    kind, key = min(entries or idle, key=lambda item: _value(state, device, now, *item))
    size = memory.kv.pop((kind, key)).bytes if entries else memory.weights.pop(key)
    state.evicted.append((row["index"], device, kind, key, size))
    return True


def _value(state: State, device: int, now: float, kind: int, key: int) -> float:
    """Return what a cached object is worth by the policy's retention."""
    if kind == PREFIX and _said(state, "until", device, key, math.inf) < now - _GRAZE:
        return 0.0
    return _said(state, _VALUES[kind], device, key, 0.0)


def _said(state: State, name: str, device: int, key: int, default: float) -> float:
    """Return one number of the policy's retention."""
    values = getattr(state.retention, name, None)
    if values is None:
        return default
    return float(values[device][key] if values.ndim == 2 else values[key])
