"""A proxy of KVFlow: evicts what workflows need last, and routes stages to their prefix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.base import Decision, DecisionView, Retention
from policies.proxies.base import Ranking, Routed, least
from policies.proxies.dag import FAR, steps_to_execution


class Kvflow(Ranking, Routed):
    """Values caches by steps to execution; stages follow their prefix.

    Source: Pan et al., "KVFlow: Efficient Prefix Caching for Accelerating LLM-Based Multi-Agent
    Workflows" (arXiv 2507.07400).

    Taken: an agent's steps to execution in the step graph (the largest of its parents + 1, since
    it needs them all); a shared prefix is as near as its nearest user; the furthest data is
    evicted first, and dynamic suffixes before fixed prefixes; requests are served first come,
    first served, except that those whose prefix is still loading come later.

    Inferred: the published system has one engine; here a stage goes to the device that caches most
    of its prefix, ties to the one with fewest requests under way (queries on batching devices,
    stages on exclusive ones). A prefix is loading while it is
    being computed and no device has the whole of it. Suffixes are the contexts that children
    inherit. Left out: prefetching for agents within 2 steps, since there is no tier of cache
    behind the device.

    Sees neither residency, costs nor critical paths.

    Args:
        name: the policy's name in results.
        boosted: keep the order and eviction, but choose the device by EFT*.
    """

    def __init__(self, *, name: str = "kvflow", boosted: bool = False) -> None:
        super().__init__(name=name, boosted=boosted)

    def reset(self, view: DecisionView, seed: int) -> None:
        """Allocate the tables of steps."""
        super().reset(view, seed)
        stages, _, _, prefixes, _, _ = view.compiled.shape
        self._prefix_steps = np.zeros(prefixes, np.int64)
        self._context_steps = np.zeros(stages, np.int64)
        self._ranked_at = -1

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Rank cached data once per event; then route and start stages."""
        return [*self.ranked(view), *super().decide(view)]

    def retention(self, view: DecisionView) -> Retention:
        """Value prefixes above contexts; within each, fewer steps away means more valuable."""
        p, st = view.compiled.arrays, view.state
        self._prefix_steps[:] = FAR
        self._context_steps[:] = FAR
        for workflow in view.arrived:
            steps_to_execution(p, st, workflow, self._prefix_steps, self._context_steps)
        return Retention(
            prefixes=2.0 * FAR - self._prefix_steps, contexts=-1.0 - self._context_steps
        )

    def loading(self, view: DecisionView, stage: int) -> bool:
        """Whether the stage's prefix is on some device, but complete on none."""
        holders = view.cached_prefix_tokens(stage) > 0
        return bool(holders.any() and view.prefix_loading(stage)[holders].all())

    def key(self, view: DecisionView, stage: int) -> Any:
        return self.loading(view, stage), self._turn[stage]

    def route(self, view: DecisionView, stage: int) -> int:
        cached = view.cached_prefix_tokens(stage)
        return least(-cached, view.eligible(stage), self.load())
