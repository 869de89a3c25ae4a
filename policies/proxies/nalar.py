"""A proxy of NALAR: sessions stay on their device, and waiting work is moved now and then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policies.base import DecisionView
from policies.proxies.base import Routed, least


class Nalar(Routed):
    """Session-sticky routing with periodic re-assignment of what waits.

    Source: Laju et al., "NALAR" (arXiv 2601.05109).

    Taken: a session's requests go to the instance that holds its state, unless that instance is
    overloaded; a global controller looks at all queues from time to time and moves waiting
    requests where they gain.

    Inferred: a session is a workflow's use of one model; overloaded means more than ``limit``
    stages under way or waiting; the controller runs every ``period`` seconds and moves a stage
    when the wait that it saves is more than the transfer of its inputs and the cached prefix that
    it loses. Waits are clean seconds of what stands in front.

    Does not see stages that are not issued yet.

    Args:
        name: the policy's name in results.
        limit: stages on a device.
        period: seconds.
        boosted: where the strict form takes the least loaded device and compares waits, this one
            takes and compares EFT*.
    """

    def __init__(
        self, *, name: str = "nalar", limit: int = 4, period: float = 10.0, boosted: bool = False
    ) -> None:
        super().__init__(name=name)
        self._limit, self._period, self._finish = limit, period, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the sessions."""
        super().reset(view, seed)
        self._sessions: dict[tuple[int, int], int] = {}
        self._next = self._period

    def route(self, view: DecisionView, stage: int) -> int:
        request = view.request(stage)
        session = request.workflow, request.model
        eligible = view.eligible(stage)
        load = self.load()
        device = self._sessions.get(session, -1)
        if device not in eligible or load[device] >= self._limit:
            if self._finish:
                device = least(view.end_estimates(stage) + self._queued, eligible)
            else:
                device = least(load, eligible, ~view.resident(stage))
            self._sessions[session] = device
        return device

    def rearrange(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Every ``period`` seconds: move the waiting stages that gain."""
        if view.now < self._next:
            return
        self._next = view.now + self._period
        drains = view.drain_estimates()
        for stage in ready:
            here = self._place[stage]
            eligible = view.eligible(stage)
            if eligible.size == 1:
                continue
            queued = self._queued.copy()
            # Its own time is no part of its wait.
            queued[here] -= view.clean_seconds(stage)[here]
            if self._finish:
                cost = view.end_estimates(stage) + queued
            else:
                cost = drains + queued + self.move_seconds(view, stage, here)
            there = least(cost, eligible)
            if cost[there] < cost[here]:
                self.send(view, stage, there)

    def move_seconds(self, view: DecisionView, stage: int, here: int) -> np.ndarray:
        """(D,) what moving a stage from ``here`` costs: more transfer, prefix prefilled again."""
        transfer = view.transfer_seconds(stage)
        prefill = view.prefill_seconds(stage, view.cached_prefix_tokens(stage))
        cold = view.prefill_seconds(stage, np.zeros(view.devices, np.int64))
        lost = np.zeros(view.devices)
        able = view.eligible(stage)
        # The prefix that `here` would save, less what the other device would.
        lost[able] = (cold[here] - prefill[here]) - (cold[able] - prefill[able])
        return np.maximum(0.0, transfer - transfer[here]) + np.maximum(0.0, lost)

    def observe(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Sum up the queues: (D,) clean seconds of the stages that wait in them."""
        self._queued = np.zeros(view.devices)
        for stage, device in self._place.items():
            self._queued[device] += view.clean_seconds(stage)[device]

    def send(self, view: DecisionView, stage: int, device: int) -> None:
        """Keep the sums."""
        clean = view.clean_seconds(stage)
        before = self._place.get(stage)
        if before is not None:
            self._queued[before] -= clean[before]
        self._queued[device] += clean[device]
        super().send(view, stage, device)
