"""A proxy of SAGA: sessions stay with their cache, work is stolen, urgent calls go first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fate_gym.jit import Floats, Ints, kernel
from fate_gym.kernel.schema import DONE, TOOL_STAGE, ProblemArrays, StateArrays
from policies.base import Assignment, Decision, DecisionView, Retention
from policies.bounds import Period, Share, Weight
from policies.proxies.base import Ranking, Routed, least
from policies.proxies.dag import count_hops_ahead
from policies.proxies.programs import Programs, calls_before, keys_left, returned, running_tools


class SagaAgents(Ranking, Routed):
    """Session affinity with work stealing; evicts what is least likely reused; urgent tasks first.

    Source: Guo, Wu & Yiu, "SAGA: Workflow-Atomic Scheduling for AI Agent Inference on GPU Clusters"
    (arXiv 2605.00528). The full text was not available: rules and constants are those documented
    by github.com/bettyguo/SAGA, judging by its name the first author's; eviction, times and urgency
    agree with what github.com/HCAHOI/agent-sched-bench takes from the paper's equations.

    Taken: a session's call goes to its worker if some of its data is cached there and the load is
    below ``most_load``, else to the worker with the least load. When the largest load is
    more than ``steal_ratio`` times the smallest, the least loaded worker takes the oldest call
    that waits for an overloaded one, with its cache; the session then stays there. The data evicted
    first has the largest sum of recency (0.3), 1 - predicted reuse (0.5) and size (0.2),
    each as a share of the largest; reuse is the sum over the next nodes of the execution graph of
    their probability times cached / (cached + new tokens). While a tool runs, the KV of the call
    before it is kept for the 95th percentile of the tool times seen so far, down to half of that
    as memory fills from 70 % to 90 %, 300 s at most. Of the calls waiting on a worker the most
    urgent goes first: urgency is the task's remaining work over the time to its deadline, which is
    1.5 times the expected completion time.

    Inferred: the load of a batching device is its queries over the most sequences, that of an
    exclusive one its stages, so that a busy one is full; the victim is the most loaded rather than
    a random one; the epochs of 100 ms are the events; a steal is made only if the victim has a call
    in its queue and the thief ends up with less load than the victim had. Reuse is at most 1, and
    data that sessions share counts for each of them; contexts that children inherit are ranked by
    reuse alone. A session is one of the problem, or a workflow that belongs to none; its task is
    the turn, and a turn that has ended has no next node. Work is in profiled seconds, mean over the
    devices; until the first tool returns, tool times count as ``first_tool`` seconds. Left out:
    prefetching, the slower tier of KV, and preemption of running stages.

    Sees neither links nor how long queues take.

    Args:
        name: the policy's name in results.
        most_load: share of a worker's slots from which sessions go elsewhere.
        steal_ratio: ratio of loads above which work is stolen.
        percentile: percentile of tool times for which KV is kept, 0..1.
        first_tool: tool time assumed before any is known, seconds.
        boosted: keep the order and eviction, but choose the device by EFT*.
    """

    def __init__(
        self,
        *,
        name: str = "saga_agents",
        most_load: Share = 0.8,
        steal_ratio: Weight = 2.0,
        percentile: Share = 0.95,
        first_tool: Period = 2.4,
        boosted: bool = False,
    ) -> None:
        super().__init__(name=name, boosted=boosted)
        self._most, self._ratio = most_load, steal_ratio
        self._percentile, self._first_tool = percentile, first_tool

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the sessions."""
        super().reset(view, seed)
        p = view.compiled.arrays
        self._programs = Programs(view)
        self._homes: dict[tuple[int, int], int] = {}
        self._where: dict[int, int] = {}
        self._stolen: dict[int, int] = {}
        self._tool_times: list[float] = []
        self._ends: dict[int, float] = {}
        self._used = np.zeros((view.devices, p.prefixes.size))
        self._ahead = np.full(p.stages.size, -1, np.int64)
        self._urgency: dict[int, float] = {}
        self._slots = int(p.max_batch) if view.batching else 1
        self._ranked_at = -1

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Rank cached data once per event; then route, steal and start."""
        decisions = self.ranked(view)
        decided = super().decide(view)
        for one in decided:
            if isinstance(one, Assignment):
                self._where[one.stage] = one.devices[0]
                self._used[one.devices[0], keys_left(view, one.stage)] = view.now
        return [*decisions, *decided]

    # --- eviction --------------------------------------------------------------------------------

    def learn(self, view: DecisionView) -> None:
        """Update when cached data was last used, and until when it is kept while tools run."""
        self._urgency = {}
        self._programs.meet(view)
        ends = view.state.stages["end"]
        for call in self._programs.ended_calls(view):
            if call in self._where:
                self._used[self._where[call], keys_left(view, call)] = ends[call]
        for tool in running_tools(view):
            for call in calls_before(view, tool):
                if call not in self._ends:
                    seconds = self.time_to_live(view, self._where.get(call, 0))
                    self._ends[call] = float(ends[call]) + seconds

    def time_to_live(self, view: DecisionView, device: int) -> float:
        """Seconds for which a call's KV is kept on a device while a tool runs."""
        times = sorted(self._tool_times) or [self._first_tool]
        seconds = times[math.ceil(self._percentile * len(times)) - 1]
        free = view.free_bytes()[device] / view.compiled.arrays.devices["memory"][device]
        pressure = min(1.0, max(0.0, (1.0 - float(free) - 0.7) / 0.2))
        return min(seconds * (1.0 - 0.5 * pressure), 300.0)

    def retention(self, view: DecisionView) -> Retention:
        """Return 1/2 - eviction score, between -1/2 and 1/2, plus 2 for data that is kept.

        When the time of kept data is over, its value is 0, in the middle, until the next event.
        """
        p, st = view.compiled.arrays, view.state
        reuse, contexts = np.zeros(p.prefixes.size), np.zeros(p.stages.size)
        for workflow in view.arrived:
            if st.workflows["left"][workflow] > 0:
                count_hops_ahead(p, st, workflow, self._ahead)
                foresee_reuse(p, st, workflow, self._ahead, reuse, contexts)
        size = np.maximum(st.prefix_tokens - p.prefixes["start"], 0)
        idle = np.where(size > 0, view.now - self._used, 0.0)
        score = 0.3 * idle / max(idle.max(initial=0.0), 1e-9) + 0.5 * (1.0 - reuse)
        score += 0.2 * size / max(size.max(initial=0), 1)
        until = np.full(score.shape, -np.inf)
        contexts = 0.5 * contexts
        for tool in running_tools(view):
            for call in calls_before(view, tool):
                end = self._ends[call]
                if end < view.now:
                    continue
                contexts[call] = 2.0
                device = self._where.get(call, 0)
                for key in keys_left(view, call):
                    until[device, key] = max(until[device, key], end)
        kept = until > -np.inf
        until[~kept] = np.inf
        return Retention(prefixes=0.5 - score + 2.0 * kept, contexts=contexts, until=until)

    # --- order -----------------------------------------------------------------------------------

    def enter(self, view: DecisionView, stage: int) -> None:
        """Record how long the tools took."""
        calls = returned(view, stage)
        if calls:
            stages = view.state.stages
            self._tool_times.append(float(stages["ready_at"][stage] - stages["end"][calls].max()))

    def key(self, view: DecisionView, stage: int) -> Any:
        return -self.urgency(view, view.request(stage).workflow), self._turn[stage]

    def urgency(self, view: DecisionView, workflow: int) -> float:
        """Remaining work of a workflow divided by the time to its deadline."""
        if workflow not in self._urgency:
            p, stages = view.compiled.arrays, view.state.stages
            record = p.workflows[workflow]
            own = slice(record["stages_from"], record["stages_to"])
            tasks = p.stages[own]
            on_devices = (stages["status"][own] != DONE) & (tasks["kind"] != TOOL_STAGE)
            left = float(tasks["mean_seconds"][on_devices].sum())
            expected = float(tasks["upward_rank"].max())
            time = view.arrival(workflow) + 1.5 * expected - view.now
            self._urgency[workflow] = left / max(time, 1e-6)
        return self._urgency[workflow]

    # --- routing ---------------------------------------------------------------------------------

    def share(self) -> np.ndarray:
        """Load (D,) as a share of the slots."""
        return np.asarray(self.load(), np.float64) / self._slots

    def route(self, view: DecisionView, stage: int) -> int:
        eligible = view.eligible(stage)
        session = self._session(view, stage)
        home, load = self._homes.get(session, -1), self.share()
        if home not in eligible or load[home] >= self._most or not self.caches(view, stage)[home]:
            away = np.arange(view.devices) != home
            home = least(load, eligible, away, ~view.resident(stage))
            self._homes[session] = home
        return home

    def caches(self, view: DecisionView, stage: int) -> np.ndarray:
        """Whether (D,) any data that the stage can use is cached."""
        cached = view.cached_prefix_tokens(stage) > 0
        return np.asarray(cached | (view.cached_context_tokens(stage) > 0.0))

    def rearrange(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Let lightly loaded workers take the oldest call that waits for an overloaded one."""
        up = view.up
        waiting = [s for s in ready if not view.starts_now(s)[self._place[s]]]
        sizes = {s: (view.request(s).queries if view.batching else 1) for s in waiting}
        for _ in waiting:
            load = np.where(up, self.share(), np.inf)
            thief = int(load.argmin())
            victims = [
                (-load[self._place[stage]], self._turn[stage], stage)
                for stage in waiting
                if load[self._place[stage]] > self._ratio * load[thief]
                and load[self._place[stage]] > load[thief] + sizes[stage] / self._slots
                and thief in view.eligible(stage)
            ]
            if not victims:
                return
            stage = min(victims)[2]
            self._stolen.setdefault(stage, self._place[stage])
            self._homes[self._session(view, stage)] = thief
            self.send(view, stage, thief)

    def _start(self, view: DecisionView, stages: Sequence[int]) -> list[Assignment]:
        """Start stages; stolen ones bring their cache along."""
        return [
            Assignment(one.stage, one.devices, None, self._stolen.pop(one.stage, None))
            for one in super()._start(view, stages)
        ]

    def _session(self, view: DecisionView, stage: int) -> tuple[int, int]:
        request = view.request(stage)
        return self._programs.of(view, request.workflow), request.model


@kernel
def foresee_reuse(
    p: ProblemArrays, st: StateArrays, workflow: int, ahead: Ints, reuse: Floats, contexts: Floats
) -> None:
    """Add to the predicted ``reuse`` (Q,) of prefixes, and set that of ``contexts`` (S,).

    The reuse is by calls of one workflow that are at most one hop ``ahead`` (S,).
    """
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    for s in range(first, last):
        contexts[s] = 0.0
    for s in range(first, last):
        stage = p.stages[s]
        if ahead[s] < 0 or stage.model < 0:
            continue
        chance = 1.0
        if stage.chooser >= 0 and st.stages[stage.chooser].status != DONE:
            chance = stage.lives_to - stage.lives_from
        known = stage.prefix_tokens + stage.inherited_tokens
        chance *= known / max(1, known + stage.prompt_tokens)
        q = stage.prefix
        while q >= 0:
            reuse[q] = min(1.0, reuse[q] + chance)
            q = p.prefixes[q].parent
        for e in range(stage.parents_from, stage.parents_to):
            if p.edges[e].inherited_tokens > 0:
                parent = p.edges[e].parent
                contexts[parent] = min(1.0, contexts[parent] + chance)
