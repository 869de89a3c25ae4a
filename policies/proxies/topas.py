"""A proxy of TOPAS: weighs the longest remaining path against prefix savings, one hop ahead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Floats, Ints, kernel
from fate_gym.kernel.schema import DONE, TOOL_STAGE, ProblemArrays, StateArrays
from policies.base import Assignment, Decision, DecisionView, Retention
from policies.bounds import Weight
from policies.proxies.base import Ordered, Ranking
from policies.proxies.dag import count_hops_ahead


class Topas(Ranking, Ordered):
    """Scores placements by their outcome: path shortened + prefixes reused - prefixes moved.

    Source: Ni et al., "TOPAS: Workflow-Aware Prefix-State Scheduling for Multi-Agent LLM Serving"
    (arXiv 2608.25523). The full text was not available; the rule follows its abstract.

    Taken: which prefixes stay and which requests run is decided together, by a score of the state
    after the decision: the reduction of each task's longest remaining service path, plus what
    prefixes will save downstream, less the cost of moving prefixes; tasks age, so that none
    starves. Downstream means one hop ahead and no further.

    Inferred: the score is in seconds, with weights of 1, plus ``aging`` for each second since the
    task last started a stage. The reduction by a stage is the difference between the largest upward
    rank of the task's unfinished stages with and without it. A prefix saves its prefill, in
    profiled seconds (mean over the devices), in proportion to the cached tokens; moving a prefix
    means computing the part that is missing. The published system has one engine; here every pair
    of a ready stage and a device on which it starts now is scored, and the best pair is taken until
    none is left; ties go to a device that has the model, then to the one with fewest requests. A
    prefix is worth what it saves the calls that are ready or one hop ahead; an inherited context is
    worth the prefill of its tokens for each query. Left out: preemption, since started stages run
    to completion.

    Sees neither links, queues behind running stages, nor differences between devices.

    Args:
        name: the policy's name in results.
        aging: score in seconds per second of waiting.
        boosted: order stages by their best score, but choose the device by EFT*.
    """

    def __init__(self, *, name: str = "topas", aging: Weight = 0.1, boosted: bool = False) -> None:
        super().__init__(name=name)
        self._aging, self._boosted = aging, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the tasks."""
        super().reset(view, seed)
        stages = view.compiled.arrays.stages.size
        self._ahead = np.full(stages, -1, np.int64)
        self._shorter = np.zeros(stages)
        self._saved = np.zeros(stages)
        self._started: dict[int, float] = {}
        self._ranked_at = -1

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Rank prefixes once per event; then take the best pairs."""
        decisions = self.ranked(view)
        decided = super().decide(view) if self._boosted else self.best(view)
        for one in decided:
            if isinstance(one, Assignment):
                self._started[view.request(one.stage).workflow] = view.now
        return [*decisions, *decided]

    def learn(self, view: DecisionView) -> None:
        """Update what prefixes save, which calls are ahead, and how stages shorten paths."""
        p, st = view.compiled.arrays, view.state
        able = np.isfinite(p.clean_seconds)
        self._saved = (view.compiled.prefix_seconds * able).sum(axis=1)
        self._saved /= np.maximum(1, able.sum(axis=1))
        for workflow in view.arrived:
            if st.workflows["left"][workflow] > 0:
                count_hops_ahead(p, st, workflow, self._ahead)
                shorten(p, st, workflow, self._shorter)

    def retention(self, view: DecisionView) -> Retention:
        """Value prefixes and contexts by the seconds that they save calls one hop ahead."""
        p, st = view.compiled.arrays, view.state
        prefixes, contexts = np.zeros(p.prefixes.size), np.zeros(p.stages.size)
        for workflow in view.arrived:
            if st.workflows["left"][workflow] > 0:
                value_kept(p, workflow, self._ahead, self._saved, prefixes, contexts)
        return Retention(prefixes=prefixes, contexts=contexts)

    def best(self, view: DecisionView) -> list[Assignment]:
        """Take the pairs of stage and device with the largest scores, one after the other."""
        if not view.any_open:
            return []
        load = view.outstanding_queries() if view.batching else view.outstanding()
        pairs = []
        for number, stage in enumerate(view.ready):
            able = view.eligible(stage)
            able = able[view.starts_now(stage)[able]]
            if able.size:
                score, absent = self.score(view, stage), ~view.resident(stage)
                keys = [(-score[d], bool(absent[d]), int(load[d]), number) for d in able]
                pairs += [(key, stage, int(d)) for key, d in zip(keys, able, strict=True)]
        taken: dict[int, int] = {}
        for _, stage, device in sorted(pairs):
            if stage not in taken and device not in taken.values():
                taken[stage] = device
                if view.batching:
                    break  # where the next starts depends on this one; `decide` is called again
        return [Assignment(stage, (device,)) for stage, device in taken.items()]

    def order(self, view: DecisionView) -> Sequence[int]:
        """Return the ready stages by their best score; ties by time ready."""
        ready = view.ready
        best = {stage: self.score(view, stage)[view.eligible(stage)].max() for stage in ready}
        return sorted(ready, key=lambda stage: -best[stage])

    def score(self, view: DecisionView, stage: int) -> NDArray[np.float64]:
        """Score (D,), in seconds gained, of running a stage on each device."""
        workflow = view.request(stage).workflow
        since = self._started.get(workflow, view.arrival(workflow))
        missing = 1.0 - self.share(view, stage)
        gain: NDArray[np.float64] = self._shorter[stage] - self._saved[stage] * missing
        gain += self._aging * (view.now - since)
        for child in self.children(view, stage):
            gain += self._saved[child] * self.share(view, child, stage)
        return gain

    def share(
        self, view: DecisionView, stage: int, after: int | None = None
    ) -> NDArray[np.float64]:
        """Share (D,) of a stage's prefix that is cached, or will be once ``after`` has run."""
        tokens = view.request(stage).prefix_tokens
        if tokens == 0:
            return np.ones(view.devices)
        cached = view.cached_prefix_tokens(stage).astype(np.float64)
        if after is not None:
            left = dict(view.prefix_path(after, prompt=True))
            common = [min(t, left[key]) for key, t in view.prefix_path(stage) if key in left]
            cached = np.maximum(cached, max(common, default=0))
        return cached / tokens

    def children(self, view: DecisionView, stage: int) -> list[int]:
        """Return the calls one hop ahead of a stage: its children, looking through tools."""
        p = view.compiled.arrays
        s = p.stages[stage]
        found: list[int] = []
        for child in p.edges["child"][p.out_edges[s["children_from"] : s["children_to"]]].tolist():
            if p.stages["kind"][child] == TOOL_STAGE:
                found += self.children(view, child)
            elif p.stages["model"][child] >= 0:
                found.append(child)
        return found


@kernel
def shorten(p: ProblemArrays, st: StateArrays, workflow: int, shorter: Floats) -> None:
    """Fill the seconds by which each stage (S,) of one workflow shortens its longest path."""
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    longest, second, of = 0.0, 0.0, -1
    for s in range(first, last):
        if st.stages[s].status == DONE:
            continue
        rank = p.stages[s].upward_rank
        if rank > longest:
            longest, second, of = rank, longest, s
        elif rank > second:
            second = rank
    for s in range(first, last):
        shorter[s] = 0.0
    if of >= 0:
        shorter[of] = longest - second


@kernel
def value_kept(
    p: ProblemArrays, workflow: int, ahead: Ints, saved: Floats, prefixes: Floats, contexts: Floats
) -> None:
    """Add to ``prefixes`` (Q,) and ``contexts`` (S,) the seconds they save one workflow's calls.

    Only calls at most one hop ``ahead`` (S,) count; ``saved`` (S,) are seconds of whole prefixes.
    """
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    for s in range(first, last):
        stage = p.stages[s]
        if ahead[s] < 0 or stage.model < 0:
            continue
        a_token = saved[s] / max(1, stage.prefix_tokens)
        q, tokens = stage.prefix, stage.prefix_tokens
        while q >= 0:
            start = p.prefixes[q].start
            prefixes[q] += a_token * max(0, tokens - start)
            tokens = min(tokens, start)
            q = p.prefixes[q].parent
        for e in range(stage.parents_from, stage.parents_to):
            a_query = p.edges[e].inherited_tokens * stage.queries
            contexts[p.edges[e].parent] += a_token * a_query
