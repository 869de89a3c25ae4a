"""What a device caches, and what it evicts.

Re-implements the section "Memory" of docs/execution-model.md, and the cached tokens of "Prefill".
"""

from __future__ import annotations

from collections.abc import Container

from fate_gym.validator.costs import Costs
from fate_gym.validator.state import Entry, Hits, Memory, Row, State
from fate_gym.validator.world import TOLERANCE, Node

PREFIX, CONTEXT, WEIGHTS = 0, 1, 2
"""Kinds of evicted objects."""

_VALUES = {PREFIX: "prefixes", CONTEXT: "contexts", WEIGHTS: "models"}
_NO_ENTRY = (PREFIX, -1)


def prefix_key(state: State, node: Node) -> tuple[int, int]:
    """The key of a stage's prefix entry; number -1 (never cached) without a group."""
    key = (node.stage.model or "", node.stage.prefix_group or "")
    return PREFIX, state.world.prefixes.index(key) if key in state.world.prefixes else -1


def find_hits(state: State, node: Node, memory: Memory) -> Hits:
    """What a shard of a stage would find cached on a device."""
    entry = memory.kv.get(prefix_key(state, node), Entry(0, 0.0))
    tokens: dict[int, float] = {}
    gone = 0
    for parent, edge in node.parents:
        source = state.world.nodes[parent].stage
        context = memory.kv.get((CONTEXT, parent))
        if context is not None and edge.inherited_tokens > 0 and source.model == node.stage.model:
            tokens[parent] = edge.inherited_tokens * context.amount / source.queries
        if parent in state.vanished_by:
            gone += edge.inherited_tokens
    return Hits(min(node.stage.prefix_tokens, entry.amount), tokens, gone=gone)


def commit(state: State, node: Node, row: Row, hits: Hits, end: float) -> None:
    """The five steps of a commit on the memory of its device."""
    assert node.model is not None
    device = row["device"]
    machine, memory = state.world.machines[device], state.memories[device]
    kv, p = node.model.kv_bytes_per_token, node.stage.prefix_tokens
    for parent in hits.tokens:
        memory.touch((CONTEXT, parent))
    # A stage without prefix tokens has no entry of its own, whatever its group.
    own = prefix_key(state, node) if p > 0 else _NO_ENTRY
    if p > 0 and kv > 0:
        known = memory.kv.pop(own, Entry(0, 0.0))
        tokens = max(known.amount, p)
        there = end if p > known.amount else known.there
        memory.kv[own] = Entry(tokens, tokens * kv, there)

    model = state.world.models.index(node.model.name)
    queries: int = min(row["queries"], Costs(state.world, node, machine).batch)
    working = queries * node.query_tokens * kv
    missing = 0.0 if model in memory.weights else node.model.weight_bytes

    def held() -> float:
        return memory.used() + missing + working

    while held() > machine.limit and evict(state, row, {own}, model):
        pass
    if held() > machine.limit and own in memory.kv:
        memory.kv[own] = Entry(p, p * kv, memory.kv[own].there)
    if held() > machine.limit * (1 + TOLERANCE):
        limit, got = machine.limit, held()
        state.faults.append(f"{state.at(row)}: memory: limit {limit!r} bytes, got {got!r}")
    if node.has_heirs and kv > 0:
        memory.kv[CONTEXT, node.number] = Entry(queries, working)
    memory.weights.pop(model, None)
    memory.weights[model] = node.model.weight_bytes


def evict(state: State, row: Row, kept: Container[tuple[int, int]], model: int) -> bool:
    """Evict for a shard what is worth least, but neither KV that is kept nor its own model.

    False when there is nothing.
    """
    device = row["device"]
    memory = state.memories[device]
    entries = [key for key in memory.kv if key not in kept]
    idle = [(WEIGHTS, other) for other in memory.weights if other != model]
    if not entries and not idle:
        return False
    # `min` takes the first of equals: the least recently used.
    kind, key = min(entries or idle, key=lambda item: _value(state, device, *item))
    size = memory.kv.pop((kind, key)).bytes if entries else memory.weights.pop(key)
    state.evicted.append((row["index"], device, kind, key, size))
    return True


def _value(state: State, device: int, kind: int, key: int) -> float:
    """What the policy's retention says a cached thing is worth."""
    values = getattr(state.retention, _VALUES[kind], None)
    if values is None:
        return 0.0
    return float(values[device][key] if values.ndim == 2 else values[key])
