"""The trees of prefixes: what of a path is cached, what two paths share.

A path is a prefix key and a number of tokens, counted from the root: it needs so many of the last
key, and of each ancestor those up to the start of the key behind it. Keys have larger numbers than
their ancestors.
"""

from __future__ import annotations

from typing import NamedTuple

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import ProblemArrays, Stage, StateArrays


@inlined
def has_prefix(p: ProblemArrays, stage: Stage) -> bool:
    """Whether a stage has a prefix that is cached."""
    return bool(stage.prefix_tokens > 0 and p.models[stage.model].kv > 0.0)


@inlined
def extends_prefix(p: ProblemArrays, stage: Stage) -> bool:
    """Whether a stage leaves its prompt and its output as a part of its prefix."""
    longer = stage.written_tokens > stage.prefix_tokens
    return bool(longer and p.models[stage.model].kv > 0.0)


@inlined
def cached_hit(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> int:
    """How many of the first ``tokens`` tokens of key ``q`` device ``d`` holds, without a gap."""
    return _path_hit(p, st, d, q, tokens, False)


@inlined
def computed_hit(p: ProblemArrays, st: StateArrays, d: int, q: int, tokens: int) -> int:
    """Of those, on a batching device, the ones that are computed or about to be."""
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
    """When what device ``d`` caches of the path of key ``q`` is there."""
    there = 0.0
    while q >= 0:
        if st.prefix_tokens[d, q] > 0:
            there = max(there, st.prefix_there[d, q])
        q = p.prefixes[q].parent
    return there


@inlined
def need_of(p: ProblemArrays, stage: Stage, q: int) -> int:
    """Up to where the prefix of a stage needs key ``q``; 0: it is not on its path."""
    key, need = stage.prefix, stage.prefix_tokens
    # An ancestor has a smaller number.
    while key > q:
        need = p.prefixes[key].start
        key = p.prefixes[key].parent
    return need if key == q else 0


@inlined
def common_tokens(p: ProblemArrays, a: int, tokens_a: int, b: int, tokens_b: int) -> int:
    """With how many of the same tokens two paths begin; keys may be -1."""
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
    """With how many of the same tokens the prefixes of two stages begin."""
    stage, other = p.stages[s], p.stages[u]
    return common_tokens(p, stage.prefix, stage.prefix_tokens, other.prefix, other.prefix_tokens)


@kernel
def left_by(p: ProblemArrays, s: int, u: int) -> int:
    """Tokens of the prefix of stage ``u`` that are cached where stage ``s`` has just ended."""
    stage, other = p.stages[s], p.stages[u]
    return common_tokens(p, other.prefix, other.prefix_tokens, stage.written, stage.written_tokens)


@inlined
def unpinned_bytes(p: ProblemArrays, st: StateArrays, s: int, d: int) -> float:
    """Bytes of the prefix path of stage ``s``, which has a model, that no wave pins on ``d``."""
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
    """Tokens of the entries along a path, each from its start on.

    Attributes:
        held: what they hold.
        kept: what they will hold once the path is cached.
        pinned: what those hold that waves pin.
    """

    held: int
    kept: int
    pinned: int


@inlined
def path_tokens(p: ProblemArrays, st: StateArrays, s: int, d: int) -> PathTokens:
    """The entries of the prefix path of stage ``s`` on device ``d``."""
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
