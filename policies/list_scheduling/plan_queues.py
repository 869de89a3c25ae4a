"""Execution of a fixed plan: one queue of stages per device, placed in order."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import Assignment, DecisionView


class PlanQueues:
    """Stages in planned order, per device; a ready stage waits for those planned before it.

    Vanished stages are skipped. A stage whose device failed goes first once it is repaired.

    Args:
        devices: number of devices.
    """

    def __init__(self, devices: int) -> None:
        # In reverse: the next stage of a device is the last element.
        self._queues: list[list[int]] = [[] for _ in range(devices)]
        self._placed: dict[int, int] = {}

    def append(self, device: int, stages: Iterable[int]) -> None:
        """Append ``stages``, in order, to the queue of ``device``."""
        self._queues[device][:0] = list(stages)[::-1]

    def due(self, view: DecisionView) -> list[Assignment]:
        """Place the ready stages at the front of the queues of devices that are up."""
        waiting = set(view.ready)
        for stage in view.ready:
            if stage in self._placed:
                self._queues[self._placed.pop(stage)].append(stage)
        assignments = []
        for device, queue in enumerate(self._queues):
            while queue and view.vanished(queue[-1]):
                queue.pop()
            while queue and queue[-1] in waiting and view.up[device]:
                stage = queue.pop()
                self._placed[stage] = device
                assignments.append(Assignment(stage, (device,)))
                while queue and view.vanished(queue[-1]):
                    queue.pop()
        return assignments
