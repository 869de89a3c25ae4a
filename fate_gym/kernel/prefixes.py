"""Prefix trees: what of a path is cached, and what two paths share.

A path is a prefix key and a number of tokens counted from the root. It needs that many tokens of
its key, and each ancestor up to the start of the next key on the path. Keys have larger numbers
than their ancestors.
"""

from __future__ import annotations

from typing import NamedTuple

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import ProblemArrays, Stage, StateArrays


@inlined
def has_prefix(p: ProblemArrays, stage: Stage) -> bool:
    """Return whether a stage has a prefix that can be cached."""
    return bool(stage.prefix_tokens > 0 and p.models[stage.model].kv > 0.0)


@inlined
def extends_prefix(p: ProblemArrays, stage: Stage) -> bool:
    """Return whether a stage leaves its prompt and output cached as a part of its prefix."""
    longer = stage.written_tokens > stage.prefix_tokens
    return bool(longer and p.models[stage.model].kv > 0.0)


@inlined
def cached_hit(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> int:
    """Return how many of the first ``tokens`` tokens of key ``q`` ``d`` holds without a gap."""
    return _path_hit(p, st, d, q, tokens, False)


@inlined
def computed_hit(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> int:
    """Return `cached_hit` of batching device ``d`` for tokens computed or about to be."""
    return _path_hit(p, st, d, q, tokens, True)


@kernel
def _path_hit(
    p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int, computed: bool
) -> int:
    hit = need = tokens
    while q >= 0:
        start = p.prefixes[q].start
        held = st.computed[d, q] if computed else st.prefix_tokens[d, q]
        if held < need:
            hit = max(start, held)
        need = start
        q = p.prefixes[q].parent
    return hit


@inlined
def path_there(p: ProblemArrays, st: StateArrays, d: int, q: int) -> float:
    """Return when all that device ``d`` caches of the path of key ``q`` is computed."""
    there = 0.0
    while q >= 0:
        if st.prefix_tokens[d, q] > 0:
            there = max(there, st.prefix_there[d, q])
        q = p.prefixes[q].parent
    return there


@inlined
def need_of(p: ProblemArrays, stage: Stage, q: int) -> int:
    """Return up to which token a stage's prefix needs key ``q``; 0: not on its path."""
    key, need = stage.prefix, stage.prefix_tokens
    # An ancestor has a smaller number.
    while key > q:
        need = p.prefixes[key].start
        key = p.prefixes[key].parent
    return need if key == q else 0


@inlined
def common_tokens(p: ProblemArrays, a: int, tokens_a: int, b: int, tokens_b: int) -> int:
    """Return the number of tokens with which two paths both begin; keys may be -1."""
    while a != b:
        if a < 0 or b < 0:
            return 0
        if a > b:
            tokens_a = min(tokens_a, p.prefixes[a].start)
            a = p.prefixes[a].parent
        else:
            tokens_b = min(tokens_b, p.prefixes[b].start)
            b = p.prefixes[b].parent
    return 0 if a < 0 else min(tokens_a, tokens_b)


@inlined
def shared_tokens(p: ProblemArrays, s: int, u: int) -> int:
    """Return the number of tokens with which the prefixes of two stages both begin."""
    stage, other = p.stages[s], p.stages[u]
    return common_tokens(p, stage.prefix, stage.prefix_tokens, other.prefix, other.prefix_tokens)


@kernel
def left_by(p: ProblemArrays, s: int, u: int) -> int:
    """Return the prefix tokens of stage ``u`` that are cached where stage ``s`` just ended."""
    stage, other = p.stages[s], p.stages[u]
    return common_tokens(p, other.prefix, other.prefix_tokens, stage.written, stage.written_tokens)


@inlined
def unpinned_bytes(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Return the bytes of the prefix path of stage ``s`` that no wave pins on ``d``.

    The stage must have a model.
    """
    stage = p.stages[s]
    if not has_prefix(p, stage):
        return 0.0
    tokens = 0
    q, need = stage.prefix, stage.prefix_tokens
    while q >= 0:
        start = p.prefixes[q].start
        here = st.prefix_tokens[d, q] if st.pins[d, q] > 0 else start
        tokens += max(0, need - here)
        need = start
        q = p.prefixes[q].parent
    return tokens * p.models[stage.model].kv


class PathTokens(NamedTuple):
    """Tokens of the entries along a path, each counted from its start.

    Attributes:
        held: tokens that the entries hold.
        kept: tokens that they will hold once the path is cached.
        pinned: tokens held by the entries that waves pin.
    """

    held: int
    kept: int
    pinned: int


@inlined
def path_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> PathTokens:
    """Return the `PathTokens` of the prefix path of stage ``s`` on device ``d``."""
    held = kept = pinned = 0
    q, need = p.stages[s].prefix, p.stages[s].prefix_tokens
    while q >= 0 and need > 0:
        start = p.prefixes[q].start
        here = max(start, st.prefix_tokens[d, q])
        held += here - start
        kept += max(here, need) - start
        if p.batching and st.pins[d, q] > 0:
            pinned += here - start
        need = start
        q = p.prefixes[q].parent
    return PathTokens(held, kept, pinned)
