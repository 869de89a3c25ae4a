"""A proxy of Continuum: a call's KV is kept for some time while the tool that it called runs."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.base import Assignment, Decision, DecisionView, Retention
from policies.bounds import Count, Period, Window
from policies.proxies.base import Ranking, Routed, least
from policies.proxies.programs import Programs, calls_before, keys_left, returned, running_tools


class Continuum(Ranking, Routed):
    """Keeps a call's KV for a time that weighs the cost of losing it; programs run in order.

    Source: Li et al., "Continuum: Efficient and Robust Multi-Turn LLM Agent Scheduling with KV
    Cache Time-to-Live" (arXiv 2511.02230; the equations and cold start of its version 6 as they are
    documented at github.com/burninglhw/vllm-continuum, docs/continuum-paper.md).

    Taken: the KV of a call that ends in a tool call is kept for the time t that maximises
    F(t) (T eta + R) - t: F is the distribution of the tool times seen so far, R the seconds of the
    call's prompt with nothing cached, T the mean wait of calls that came back to KV that was not
    kept, eta the negative correlation between the calls that a program has made and those that it
    has left. As long as no more than ``cold`` tool times are known, F is exponential with a mean
    of ``first_mean`` seconds and eta is 1. Programs are served first come, first served, those
    whose KV is kept before the others; kept KV stays while its call waits; under memory pressure
    that of the latest program is evicted first.

    Inferred: the published system has one engine; here a program's calls to one model stay on the
    device of the first of them, which is the one with the fewest requests (queries on batching
    devices, stages on exclusive ones). A program is a session, but nothing is kept from turn to
    turn, since a turn does not end in a tool call. eta and T are computed over the last ``window``
    turns and waits; eta is 0 while it is undefined. Tools have no names here, so there is one F.
    Contexts that children inherit are kept like prefixes. Left out: a slower tier of KV behind the
    device, and priority for preempted requests, which the device provides anyway.

    Sees neither the graph ahead nor links, and of queues only their length.

    Args:
        name: the policy's name in results.
        cold: number of tool times up to which the assumed distribution is used.
        first_mean: mean of the assumed distribution, seconds.
        window: number of latest turns and waits that are used.
        boosted: keep the order and times, but choose the device by EFT*.
    """

    def __init__(
        self,
        *,
        name: str = "continuum",
        cold: Count = 100,
        first_mean: Period = 1.0,
        window: Window = 256,
        boosted: bool = False,
    ) -> None:
        super().__init__(name=name, boosted=boosted)
        self._cold, self._first_mean, self._window = cold, first_mean, window

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the programs."""
        super().reset(view, seed)
        self._programs = Programs(view)
        self._homes: dict[tuple[int, int], int] = {}
        self._where: dict[int, int] = {}
        self._ends: dict[int, float] = {}
        self._pins: dict[int, float] = {}
        self._unkept: set[int] = set()
        self._tool_times: list[float] = []
        self._waits: deque[float] = deque(maxlen=self._window)
        self._turns: deque[int] = deque(maxlen=self._window)
        self._ranked_at = -1

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Once per event decide what is kept; then route and start stages."""
        decisions = self.ranked(view)
        decided = super().decide(view)
        for one in decided:
            if isinstance(one, Assignment):
                self._where[one.stage] = one.devices[0]
        return [*decisions, *decided]

    # --- knowledge -------------------------------------------------------------------------------

    def learn(self, view: DecisionView) -> None:
        """Update waits, turns and pins."""
        self._programs.meet(view)
        stages, slots = view.state.stages, view.state.slots
        for call in self._programs.ended_calls(view):
            if call in self._unkept:
                self._unkept.remove(call)
                start = slots["start"][call, : stages["shards"][call]].min()
                self._waits.append(float(start - stages["ready_at"][call]))
        for workflow in self._programs.ended_workflows(view):
            self._turns.append(self._programs.calls_of(view, workflow))
        pins = {}
        for tool in running_tools(view):
            for call in calls_before(view, tool):
                pins[call] = self.kept_until(view, call)
        for stage in view.ready:
            ready_at = float(stages["ready_at"][stage])
            for call in returned(view, stage):
                if self.kept_until(view, call) >= ready_at:
                    pins[call] = math.inf
        self._pins = pins

    def kept_until(self, view: DecisionView, call: int) -> float:
        """Time until which the KV of a call that led to a tool is kept."""
        if call not in self._ends:
            end = float(view.state.stages["end"][call])
            self._ends[call] = end + self.time_to_live(self.recompute_seconds(view, call))
        return self._ends[call]

    def recompute_seconds(self, view: DecisionView, call: int) -> float:
        """Prefill seconds of a call on its device with nothing cached."""
        device = self._where.get(call, 0)
        seconds = float(view.prefill_seconds(call, np.zeros(view.devices, np.int64))[device])
        return seconds if seconds < math.inf else 0.0

    def time_to_live(self, recompute: float) -> float:
        """Best time to keep KV that takes ``recompute`` seconds to compute again, seconds."""
        wait = sum(self._waits) / len(self._waits) if self._waits else 0.0
        if len(self._tool_times) <= self._cold:
            gain = (wait + recompute) / self._first_mean
            return self._first_mean * math.log(gain) if gain > 1.0 else 0.0
        gain = wait * self.eta() + recompute
        times, counts = np.unique(self._tool_times, return_counts=True)
        worth = np.cumsum(counts) / len(self._tool_times) * gain - times
        best = int(np.argmax(worth))
        return float(times[best]) if worth[best] > 0.0 else 0.0

    def eta(self) -> float:
        """Negative correlation of calls made and calls left; 1: their sum is always the same."""
        made = [(k, total - k) for total in self._turns for k in range(1, total)]
        if len(made) < 2:
            return 0.0
        done, left = np.array(made, np.float64).T
        if done.std() == 0.0 or left.std() == 0.0:
            return 0.0
        return -float(np.corrcoef(done, left)[0, 1])

    def retention(self, view: DecisionView) -> Retention:
        """Return what is pinned where and until when; earlier programs are worth more."""
        p = view.compiled.arrays
        shape = view.devices, p.prefixes.size
        prefixes, until, contexts = np.zeros(shape), np.zeros(shape), np.zeros(p.stages.size)
        places = {program: i for i, program in enumerate(self._programs.arrived)}
        for call, end in self._pins.items():
            program = self._programs.of(view, int(p.stages["workflow"][call]))
            worth = 1.0 / (1.0 + places[program])
            contexts[call] = worth if end >= view.now else 0.0
            device = self._where.get(call, 0)
            for key in keys_left(view, call):
                prefixes[device, key] = max(prefixes[device, key], worth)
                until[device, key] = max(until[device, key], end)
        return Retention(prefixes=prefixes, contexts=contexts, until=until)

    # --- order and routing -----------------------------------------------------------------------

    def enter(self, view: DecisionView, stage: int) -> None:
        """Record how long the tools took, and whether the KV of the calls before them was kept."""
        calls = returned(view, stage)
        if calls:
            stages = view.state.stages
            self._tool_times.append(float(stages["ready_at"][stage] - stages["end"][calls].max()))
            if not any(call in self._pins for call in calls):
                self._unkept.add(stage)

    def key(self, view: DecisionView, stage: int) -> Any:
        kept = any(call in self._pins for call in returned(view, stage))
        program = self._programs.of(view, view.request(stage).workflow)
        return not kept, self._programs.arrived[program], self._turn[stage]

    def route(self, view: DecisionView, stage: int) -> int:
        request = view.request(stage)
        program = self._programs.of(view, request.workflow)
        eligible = view.eligible(stage)
        home = self._homes.get((program, request.model), -1)
        if home not in eligible:
            home = least(self.load(), eligible, ~view.resident(stage))
            self._homes[program, request.model] = home
        return home
