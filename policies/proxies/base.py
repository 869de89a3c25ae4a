"""What the proxies share: an order with devices by EFT*, and a router with a queue a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from policies.base import Assignment, Decision, DecisionView, Retention
from policies.list_scheduling.policy import InstantPlanner
from policies.list_scheduling.rules import PRIORITY, STATE, Rules


class Ranking:
    """Says once an event what cached things are worth.

    Its users set ``_ranked_at`` to -1 at the start of a run.
    """

    _ranked_at: int

    def ranked(self, view: DecisionView) -> list[Decision]:
        """What is worth how much from now on; nothing if it has been said at this event."""
        if self._ranked_at == view.instant:
            return []
        self._ranked_at = view.instant
        self.learn(view)
        return [self.retention(view)]

    def learn(self, view: DecisionView) -> None:
        """Called before `retention`."""

    def retention(self, view: DecisionView) -> Retention:
        """The values of what is cached."""
        raise NotImplementedError


class Ordered:
    """Sorts the ready stages at each event; each takes the device with the earliest finish.

    The boosted form of a proxy: its own order, the device by EFT* (residency, caches, transfers
    and queues included). What cannot start at once is planned anew at the next event.
    """

    def __init__(self, *, name: str) -> None:
        self.name = name

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for plans."""
        p = view.compiled.arrays
        rules = Rules(PRIORITY, STATE, lazy=1, shards=1, priority=np.zeros(p.stages.size))
        self._planner = InstantPlanner(p, rules)

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        """Plan once an event; commit what starts at once."""
        if self._planner.done(view):
            return []
        order = self.order(view)
        self._planner.rules.priority[order] = -np.arange(len(order))
        return self._planner.decide(view)

    def order(self, view: DecisionView) -> Sequence[int]:
        """The ready stages, the first to choose in front."""
        raise NotImplementedError


class Routed(Ordered):
    """Routes each stage to a device when it becomes ready; it waits there in the policy's queue.

    A stage starts as soon as it can and no other of its queue has a smaller `key`. With
    ``boosted`` the queues are left out: the ready stages choose in the order of `key` (`Ordered`).
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
        """Route what is new, then start the first of each queue where it can start."""
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
        """The ready stages by `key`."""
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
        """Put a stage into the queue of a device, from wherever it was."""
        queries = view.request(stage).queries
        before = self._place.get(stage)
        if before is not None:
            self._waiting[before] -= 1
            self._queries[before] -= queries
        self._place[stage] = device
        self._waiting[device] += 1
        self._queries[device] += queries

    def withdraw(self, view: DecisionView, stage: int) -> None:
        """Take a stage from the queue that it stands in, if it does."""
        device = self._place.pop(stage, None)
        if device is not None:
            self._waiting[device] -= 1
            self._queries[device] -= view.request(stage).queries

    def load(self) -> Any:
        """(D,) what runs or waits on each device, that in the policy's queues included.

        Counts stages on exclusive devices, where a stage is one job; on batching devices queries,
        which are the requests that an engine counts.
        """
        return self._started + (self._queries if self._batching else self._waiting)

    # --- what a proxy fills in ---------------------------------------------------------------

    def admitted(self, view: DecisionView, ready: Sequence[int]) -> Sequence[int]:
        """The ready stages that are let in; the others stand in no queue yet."""
        return ready

    def observe(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Called first at each decision."""

    def enter(self, view: DecisionView, stage: int) -> None:
        """Called once for each stage, when it is ready for the first time."""

    def route(self, view: DecisionView, stage: int) -> int:
        """The device for a stage that has become ready."""
        raise NotImplementedError

    def at_once(self, view: DecisionView, stage: int) -> bool:
        """Whether a stage that has just been routed starts before the next one is routed."""
        return False

    def rearrange(self, view: DecisionView, ready: Sequence[int]) -> None:
        """Called after routing: the place to move stages that still wait."""

    def key(self, view: DecisionView, stage: int) -> Any:
        """Orders the stages of a queue; the default is first come, first served."""
        return self._turn[stage]


def profile(view: DecisionView, stage: int) -> NDArray[np.float64]:
    """(D,) device time of a stage as a profile of throughput gives it; inf: cannot run.

    On batching devices that of full batches, which is what serving systems profile.
    """
    return view.full_batch_seconds(stage) if view.batching else view.clean_seconds(stage)


def least(values: Any, devices: Any, *ties: Any) -> int:
    """Of ``devices`` the one with the least value; ties by further (D,) values, then by number."""
    columns = [np.asarray(column)[devices] for column in (*reversed(ties), values)]
    return int(devices[np.lexsort((devices, *columns))[0]])
