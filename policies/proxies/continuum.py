"""A proxy of Continuum: the KV of a call stays for a time while the tool runs that it called."""

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
    """Time-to-live of what a call leaves, by what it would cost to lose it; programs in order.

    Source: Li et al., "Continuum: Efficient and Robust Multi-Turn LLM Agent Scheduling with KV
    Cache Time-to-Live" (arXiv 2511.02230; the equations and cold start of its version 6 as they are
    documented at github.com/burninglhw/vllm-continuum, docs/continuum-paper.md).

    Taken: what a call leaves that ends in a tool call is kept for the time t that is best for
    F(t) (T eta + R) - t: F is the distribution of the tool times seen so far, R the seconds of the
    call's prompt with nothing cached, T the mean wait of calls that came back to KV that was not
    kept, eta the negative correlation between the calls that a program has made and those that it
    has left. As long as no more than ``cold`` tool times are known, F is exponential with a mean
    of ``first_mean`` seconds and eta is 1. Programs come first come first served, those whose KV is
    kept before the others; KV that is kept stays while its call waits; under pressure that of
    the program that came last goes first.

    Inferred: the published system has one engine; here the calls of a program with one model stay
    on the device that the first of them went to, which is that with the fewest requests (queries
    on batching devices, stages on exclusive ones). A program is a session, but nothing is
    kept from turn to turn: a turn ends in no tool call, as far as the system can tell. eta and T
    are means over the last ``window`` turns and waits; eta is 0 as long as it is not defined. Tools
    have no names here: there is one F. Contexts that children inherit are kept like prefixes. Left
    out: a slower tier of KV behind the device, and priority of preempted requests, which the device
    gives them as it is.

    Sees neither the graph ahead, links nor queues but by their length.

    Args:
        name: the policy's name in results.
        cold: tool times that have to be known.
        first_mean: seconds.
        window: turns and waits.
        boosted: the same order and times; the device by EFT*.
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
        """Once an event say what is kept; then route and start stages."""
        decisions = self.ranked(view)
        decided = super().decide(view)
        for one in decided:
            if isinstance(one, Assignment):
                self._where[one.stage] = one.devices[0]
        return [*decisions, *decided]

    # --- what is known ---------------------------------------------------------------------------

    def learn(self, view: DecisionView) -> None:
        """Waits, turns and pins as they are now."""
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
        """When the time of a call ends that has led to a tool."""
        if call not in self._ends:
            end = float(view.state.stages["end"][call])
            self._ends[call] = end + self.time_to_live(self.recompute_seconds(view, call))
        return self._ends[call]

    def recompute_seconds(self, view: DecisionView, call: int) -> float:
        """Seconds of a call's prompt on its device with nothing cached."""
        device = self._where.get(call, 0)
        seconds = float(view.prefill_seconds(call, np.zeros(view.devices, np.int64))[device])
        return seconds if seconds < math.inf else 0.0

    def time_to_live(self, recompute: float) -> float:
        """The best time for KV that takes so many seconds to compute again."""
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
        """How much the calls that are left depend on those that were made; 1: as they sum up."""
        made = [(k, total - k) for total in self._turns for k in range(1, total)]
        if len(made) < 2:
            return 0.0
        done, left = np.array(made, np.float64).T
        if done.std() == 0.0 or left.std() == 0.0:
            return 0.0
        return -float(np.corrcoef(done, left)[0, 1])

    def retention(self, view: DecisionView) -> Retention:
        """What is pinned where, until when; the programs that came first are worth most."""
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

    # --- what is done ----------------------------------------------------------------------------

    def enter(self, view: DecisionView, stage: int) -> None:
        """Note how long the tools took, and whether what the calls before them left was kept."""
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
