"""Session metrics: the latencies that users see, tokens prefilled again, and prefix hits.

A *turn* is a workflow; one that belongs to no session is a single turn. Its latency is
end - arrival, and it arrives when its user has finished thinking, so latencies contain no think
time. An *owner* is a session, or a workflow that belongs to none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fate_gym.metrics.arrays import Bools, Floats, Ints, Records
from fate_gym.metrics.prefix_memory import prefix_memory_share
from fate_gym.metrics.serving import first_ready, stage_times, summarised
from fate_gym.sim.occupancy import steps

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem, Trace


@dataclass(frozen=True)
class PrefixTokens:
    """Prefix tokens of the R shards of a trace. Those of shards that were lost are 0.

    A key of the prefix tree is *shared* if stages of more than one owner have it on the path that
    they need or leave behind, in the problem; the others lie *within* an owner. Levels are
    therefore the same for every policy.

    Attributes:
        again: (R,) tokens of ``prefix_new`` that a shard committed earlier had already computed or
            decoded, on any device, with the same model. Prefixes that are copied from another
            device are hits. Where the shards of a stage compute the same prefix on several devices,
            all but the first do it again.
        shared_hit: (R,) tokens of ``prefix_hit`` in shared keys.
        shared_wanted: (R,) tokens in shared keys, hit or new.
        within_hit: (R,) tokens of ``prefix_hit`` in other keys.
        within_wanted: (R,) tokens in other keys, hit or new.
    """

    again: Floats
    shared_hit: Floats
    shared_wanted: Floats
    within_hit: Floats
    within_wanted: Floats


def prefix_tokens(trace: Trace, compiled: CompiledProblem) -> PrefixTokens:
    """Return the prefix tokens of every shard, see `PrefixTokens`."""
    paths, shared = compiled.prefix_paths, shared_keys(compiled).tolist()
    shards = trace.shards
    stages = compiled.arrays.stages[shards["stage"]]
    counted = _computes(compiled, shards)
    hits = shards["prefix_hit"].tolist()
    ends = {
        name: stages[name].tolist()
        for name in ("prefix", "prefix_tokens", "written", "written_tokens")
    }
    again = np.zeros(shards.size)
    hit, wanted = np.zeros((2, shards.size)), np.zeros((2, shards.size))
    known = [0] * len(shared)
    for row in np.flatnonzero(counted & (stages["written"] >= 0)).tolist():
        cached = hits[row]
        for key, first, last in paths.to(ends["prefix"][row], ends["prefix_tokens"][row]):
            level = 0 if shared[key] else 1
            wanted[level, row] += last - first
            hit[level, row] += min(max(cached - first, 0.0), last - first)
            again[row] += max(0.0, min(last, known[key]) - max(first, cached))
        for key, _, last in paths.to(ends["written"][row], ends["written_tokens"][row]):
            known[key] = max(known[key], last)
    return PrefixTokens(again, hit[0], wanted[0], hit[1], wanted[1])


def shared_keys(compiled: CompiledProblem) -> Bools:
    """Return (Q,) which prefix keys several owners share, see `PrefixTokens`."""
    stages, paths = compiled.arrays.stages, compiled.prefix_paths
    session = compiled.arrays.workflows["session"].astype(np.int64)
    owner = np.where(session > 0, session, -1 - np.arange(session.size))[stages["workflow"]]
    owners: list[set[int]] = [set() for _ in range(len(paths.parent))]
    for stage in np.flatnonzero(stages["written"] >= 0).tolist():
        row = stages[stage]
        for end, tokens in (("prefix", "prefix_tokens"), ("written", "written_tokens")):
            for key, _, _ in paths.to(int(row[end]), int(row[tokens])):
                owners[key].add(int(owner[stage]))
    return np.array([len(some) > 1 for some in owners], dtype=bool)


def prefilled_tokens(trace: Trace, compiled: CompiledProblem) -> Floats:
    """Return (R,) tokens that each shard prefills: prefix_new + context_new + its own prompts.

    Its own prompts are queries x prompt tokens. What a preempted shard computes a second time is
    not in the trace, and not counted. 0 for shards that were lost, tools and fixed stages.
    """
    shards = trace.shards
    own = shards["queries"] * compiled.arrays.stages["prompt_tokens"][shards["stage"]]
    tokens = shards["prefix_new"] + shards["context_new"] + own
    found: Floats = np.where(_computes(compiled, shards), tokens, 0.0)
    return found


def _computes(compiled: CompiledProblem, shards: Records) -> Bools:
    """Return (R,) which shards belong to model stages and were not lost."""
    found: Bools = (shards["lost"] == 0) & (compiled.model_of[shards["stage"]] >= 0)
    return found


def turn_ttft(trace: Trace, compiled: CompiledProblem) -> Floats:
    """Return (W,) the time to first token of each turn, seconds.

    From when the first of its model stages with output became ready (if several did, the one that
    comes first in the problem) to the first token of that stage. Tools before it do not count. NaN
    without such a stage.
    """
    ttft, ready = stage_times(trace, compiled).ttft, first_ready(trace, compiled)
    found = np.full(len(trace.workflow_end), np.nan)
    answers = np.flatnonzero(~np.isnan(ttft))
    # Assigned in reverse: the stage that was ready first overwrites the others.
    order = answers[np.lexsort((answers, ready[answers]))][::-1]
    found[trace.workflow_of[order]] = ttft[order]
    return found


def session_latencies(trace: Trace, compiled: CompiledProblem) -> Floats:
    """Return (sessions,) seconds in which at least one turn of each session is under way.

    That is the time from its first arrival to its last end, without the time in which the user
    thinks and nothing is under way. Sessions are in the order of first use; workflows without one
    are left out.
    """
    session: Ints = compiled.arrays.workflows["session"]
    return np.array(
        [
            steps(trace.workflow_arrival[own], trace.workflow_end[own]).positive_seconds()
            for own in (session == number for number in range(1, int(session.max(initial=0)) + 1))
        ]
    )


def session_metrics(trace: Trace, compiled: CompiledProblem) -> dict[str, float]:
    """Return the session metrics of a whole run. A mean or rate of nothing is NaN.

    Returns:
        * ``latency_p50``, ``latency_p95``, ``latency_p99``: seconds, over turns;
        * ``turn_ttft_mean``, ``turn_ttft_p50``, ``turn_ttft_p95``, ``turn_ttft_p99``: seconds, over
          turns, see `turn_ttft`;
        * ``session_latency_mean`` and its percentiles: seconds, over sessions, see
          `session_latencies`;
        * ``prefilled_tokens``: see the function of that name; ``again_tokens``: those of them that
          are prefilled again, see `PrefixTokens`; ``again_share``: the second over the first;
        * ``shared_hit_rate``: prefix tokens found in a cache / prefix tokens wanted, in keys that
          several owners share; ``within_hit_rate``: in the other keys. (The third level, contexts
          inherited inside a workflow, is ``context_hit_rate`` of `fate_gym.metrics.mechanism`.)
        * ``prefix_memory_share``: see `fate_gym.metrics.prefix_memory`.
    """
    tokens = prefix_tokens(trace, compiled)
    filled, again = prefilled_tokens(trace, compiled).sum(), tokens.again.sum()
    latencies = summarised("latency", trace.latencies)
    del latencies["latency_mean"]
    return {
        **latencies,
        **summarised("turn_ttft", turn_ttft(trace, compiled)),
        **summarised("session_latency", session_latencies(trace, compiled)),
        "prefilled_tokens": float(filled),
        "again_tokens": float(again),
        "again_share": _ratio(again, filled),
        "shared_hit_rate": _ratio(tokens.shared_hit.sum(), tokens.shared_wanted.sum()),
        "within_hit_rate": _ratio(tokens.within_hit.sum(), tokens.within_wanted.sum()),
        "prefix_memory_share": prefix_memory_share(trace, compiled),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else float("nan")
