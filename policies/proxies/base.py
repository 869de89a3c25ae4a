"""Base classes of the proxies: an order with devices by EFT*, and a router with device queues."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Assignment, Decision, DecisionView, Retention
from policies.list_scheduling.policy import InstantPlanner
from policies.list_scheduling.rules import PRIORITY, STATE, Rules


class Ranking:
    """Mixin that sets the values of cached data once per event.

    Subclasses set ``_ranked_at`` to -1 at the start of a run.
    """

    _ranked_at: int

    def ranked(self, view: DecisionView) -> list[Decision]:
        """Return the values that hold from now on; nothing if already done at this event."""
        if self._ranked_at == view.instant:
            return []
        self._ranked_at = view.instant
        self.learn(view)
        return [self.retention(view)]

    def learn(self, view: DecisionView) -> None:
        """Update the proxy's knowledge; called before `retention`."""

    def retention(self, view: DecisionView) -> Retention:
        """Return the values of cached data."""
        raise NotImplementedError


class Ordered:
    """Sorts the ready stages at each event; each takes the device with the earliest finish.

    The boosted form of a proxy: its own order, but the device by EFT* (residency, caches, transfers
    and queues included). Stages that cannot start at once are planned again at the next event.
    """

    def __init__(self, *, name: str) -> None:
        self.name = name

    def reset(self, view: DecisionView, seed: int) -> None:
        """Allocate the planner."""
        p = view.compiled.arrays
        rules = Rules(PRIORITY, STATE, lazy=1, shards=1, priority=np.zeros(p.stages.size))
        self._planner = InstantPlanner(p, rules)

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Plan once per event; commit what starts at once."""
        if self._planner.done(view):
            return []
        order = self.order(view)
        self._planner.rules.priority[order] = -np.arange(len(order))
        return self._planner.decide(view)

    def order(self, view: DecisionView) -> Sequence[int]:
        """Return the ready stages in the order in which they choose."""
        raise NotImplementedError


class Routed(Ordered):
    """Routes each stage to a device when it becomes ready, to wait in the policy's queue for it.

    A stage starts as soon as it can and no other in its queue has a smaller `key`. With ``boosted``
    there are no queues: the ready stages choose in the order of `key` (see `Ordered`).
    """

    def __init__(self, *, name: str, boosted: bool = False) -> None:
        super().__init__(name=name)
        self._boosted = boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Empty the queues."""
        if self._boosted:
            super().reset(view, seed)
        self._turn: dict[int, int] = {}
        self._place: dict[int, int] = {}
        self._waiting = np.zeros(view.devices, np.int64)
        self._queries = self._waiting.copy()
        self._started = self._waiting.copy()
        self._batching = view.batching

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Route new stages, then start the first stage of each queue if it can start."""
        if self._boosted:
            return super().decide(view)
        ready = self.admitted(view, view.ready)
        self._started = view.outstanding_queries() if self._batching else view.outstanding()
        self._meet(view, ready)
        up = view.up
        for stage in ready:
            if stage not in self._place or not up[self._place[stage]]:
                self.send(view, stage, self.route(view, stage))
                if self.at_once(view, stage):
                    return self._start(view, [stage])
        self.rearrange(view, ready)
        first: dict[int, tuple[Any, int]] = {}
        for stage in ready:
            device = self._place[stage]
            entry = (self.key(view, stage), stage)
            if device not in first or entry < first[device]:
                first[device] = entry
        starting = [stage for device, (_, stage) in first.items() if view.starts_now(stage)[device]]
        return self._start(view, starting)

    def _start(self, view: DecisionView, stages: Sequence[int]) -> list[Assignment]:
        assignments = []
        for stage in stages:
            device = self._place.pop(stage)
            self._waiting[device] -= 1
            self._queries[device] -= view.request(stage).queries
            assignments.append(Assignment(stage, (device,)))
        return assignments

    def order(self, view: DecisionView) -> Sequence[int]:
        """Return the ready stages by `key`."""
        ready = view.ready
        self._meet(view, ready)
        return sorted(ready, key=lambda stage: self.key(view, stage))

    def _meet(self, view: DecisionView, ready: Sequence[int]) -> None:
        self.observe(view, ready)
        for stage in ready:
            if stage not in self._turn:
                self._turn[stage] = len(self._turn)
                self.enter(view, stage)

    def send(self, view: DecisionView, stage: int, device: int) -> None:
        """Move a stage to the queue of a device, from its current queue if it is in one."""
        queries = view.request(stage).queries
        before = self._place.get(stage)
        if before is not None:
            self._waiting[before] -= 1
            self._queries[before] -= queries
        self._place[stage] = device
        self._waiting[device] += 1
        self._queries[device] += queries

    def withdraw(self, view: DecisionView, stage: int) -> None:
        """Remove a stage from its queue, if it is in one."""
        device = self._place.pop(stage, None)
        if device is not None:
            self._waiting[device] -= 1
            self._queries[device] -= view.request(stage).queries

    def load(self) -> Any:
        """Count (D,) what runs or waits on each device, including the policy's queues.

        The unit is stages on exclusive devices, where a stage is one job, and queries on batching
        devices, where an engine counts requests.
        """
        return self._started + (self._queries if self._batching else self._waiting)

    # --- hooks for subclasses ----------------------------------------------------------------

    def admitted(self, view: DecisionView, ready: Sequence[int]) -> Sequence[int]:
        """Return the ready stages that may be queued; the others stay outside all queues."""
        return ready

    def observe(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Hook: called first at each decision."""

    def enter(self, view: DecisionView, stage: int) -> None:
        """Hook: called once per stage, when it first becomes ready."""

    def route(self, view: DecisionView, stage: int) -> int:
        """Choose the device for a stage that has become ready."""
        raise NotImplementedError

    def at_once(self, view: DecisionView, stage: int) -> bool:
        """Whether a stage that has just been routed starts before the next one is routed."""
        return False

    def rearrange(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Hook: called after routing; may move stages that still wait."""

    def key(self, view: DecisionView, stage: int) -> Any:
        """Sort key within a queue, smallest first; by default first come, first served."""
        return self._turn[stage]


def profile(view: DecisionView, stage: int) -> NDArray[np.float64]:
    """Profiled device seconds (D,) of a stage; inf: the device cannot run it.

    On batching devices the time is that in full batches, which is what serving systems profile.
    """
    return view.full_batch_seconds(stage) if view.batching else view.clean_seconds(stage)


def least(values: Any, devices: Any, *ties: Any) -> int:
    """Return the device with the least value; ties go by the (D,) ``ties``, then by number."""
    columns = [np.asarray(column)[devices] for column in (*reversed(ties), values)]
    return int(devices[np.lexsort((devices, *columns))[0]])
