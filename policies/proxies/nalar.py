"""A proxy of NALAR: sessions stay on their device, and waiting work is moved periodically."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.base import DecisionView
from policies.bounds import Count, Period
from policies.proxies.base import Routed, least


class Nalar(Routed):
    """Session-sticky routing with periodic reassignment of waiting stages.

    Source: Laju et al., "NALAR" (arXiv 2601.05109).

    Taken: a session's requests go to the instance that holds its state, unless that instance is
    overloaded; a global controller looks at all queues from time to time and moves waiting
    requests where that helps them.

    Inferred: a session is a workflow's use of one model; overloaded means that ``limit`` stages or
    more would be in front; the controller runs every ``period`` seconds and moves a stage if the
    wait saved exceeds the costs of transferring its inputs and losing its cached prefix.

    On an exclusive device everything that runs or waits is in front, with its clean seconds. On a
    batching device a stage that joins the batch does not wait: in front are the waiting stages,
    and the batch, counted as one, if it has no room. The wait is that until admission; of the
    stages in the controller's queue for the device, those of the same model join together, and
    each other model counts with the clean seconds of its longest stage, since its stages run
    together.

    Does not see stages that are not issued yet.

    Args:
        name: the policy's name in results.
        limit: number of stages in front from which a device is overloaded.
        period: seconds between runs of the controller.
        boosted: choose and compare by EFT* where the strict form takes the least loaded device
            and compares waits.
    """

    def __init__(
        self, *, name: str = "nalar", limit: Count = 4, period: Period = 10.0, boosted: bool = False
    ) -> None:
        super().__init__(name=name)
        self._limit, self._period, self._finish = limit, period, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the sessions."""
        super().reset(view, seed)
        self._sessions: dict[tuple[int, int], int] = {}
        self._next = self._period
        # (D, models + 1) clean seconds of the longest waiting stage; last column: no model.
        self._longest = np.zeros((view.devices, view.compiled.arrays.models.size + 1))

    def route(self, view: DecisionView, stage: int) -> int:
        request = view.request(stage)
        session = request.workflow, request.model
        eligible = view.eligible(stage)
        device = self._sessions.get(session, -1)
        if device not in eligible or self.in_front(view, stage)[device] >= self._limit:
            if self._finish:
                device = least(view.end_estimates(stage) + self.queued(view, stage), eligible)
            else:
                device = least(self.load(), eligible, ~view.resident(stage))
            self._sessions[session] = device
        return device

    def in_front(self, view: DecisionView, stage: int) -> np.ndarray:
        """Count the stages (D,) that a stage would have in front of it."""
        if not view.batching:
            return np.asarray(self.load())
        return self._waiting + ~view.starts_now(stage)

    def at_once(self, view: DecisionView, stage: int) -> bool:
        """Start at once if the stage joins a batch: then it is not in front of the next one."""
        device = self._place[stage]
        first = self._waiting[device] == 1
        return view.batching and bool(first and view.starts_now(stage)[device])

    def rearrange(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Every ``period`` seconds, move the waiting stages that gain from it."""
        if view.now < self._next:
            return
        self._next = view.now + self._period
        turns = view.drain_estimates()  # on exclusive devices the same for every stage
        for stage in ready:
            here = self._place[stage]
            eligible = view.eligible(stage)
            if eligible.size == 1:
                continue
            queued = self.queued(view, stage)
            if self._finish:
                cost = view.end_estimates(stage) + queued
            else:
                if view.batching:
                    turns = view.turn_estimates(stage)
                cost = turns + queued + self.move_seconds(view, stage, here)
            there = least(cost, eligible)
            if cost[there] < cost[here]:
                self.send(view, stage, there)

    def queued(self, view: DecisionView, stage: int) -> np.ndarray:
        """Seconds (D,) in the controller's queues in front of a stage, not counting itself."""
        if view.batching:
            others = self._longest.copy()
            others[:, view.request(stage).model] = 0.0
            return others.sum(axis=1)
        seconds = self._queued.copy()
        here = self._place.get(stage)
        if here is not None:
            seconds[here] -= view.clean_seconds(stage)[here]
        return seconds

    def move_seconds(self, view: DecisionView, stage: int, here: int) -> np.ndarray:
        """Seconds (D,) lost by moving a stage from ``here``: extra transfer and prefill."""
        transfer = view.transfer_seconds(stage)
        prefill = view.prefill_seconds(stage, view.cached_prefix_tokens(stage))
        cold = view.prefill_seconds(stage, np.zeros(view.devices, np.int64))
        lost = np.zeros(view.devices)
        able = view.eligible(stage)
        # The prefix that `here` would save, less what the other device would.
        lost[able] = (cold[here] - prefill[here]) - (cold[able] - prefill[able])
        return np.maximum(0.0, transfer - transfer[here]) + np.maximum(0.0, lost)

    def observe(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Sum up the clean seconds of the stages that wait in each queue."""
        self._queued = np.zeros(view.devices)
        self._longest[:] = 0.0
        for stage, device in self._place.items():
            self._add(view, stage, device)

    def _add(self, view: DecisionView, stage: int, device: int) -> None:
        seconds = view.clean_seconds(stage)[device]
        self._queued[device] += seconds
        if not view.batching:
            return
        model = view.request(stage).model
        self._longest[device, model] = max(self._longest[device, model], seconds)

    def send(self, view: DecisionView, stage: int, device: int) -> None:
        """Move a stage to a queue and update the sums."""
        before = self._place.get(stage)
        super().send(view, stage, device)
        if before is None:
            self._add(view, stage, device)
        elif view.batching:
            self.observe(view, view.ready)
        else:
            self._queued[before] -= view.clean_seconds(stage)[before]
            self._add(view, stage, device)
