"""Executing a fixed plan: a queue of stages for each device, placed in its order."""

from __future__ import annotations

from collections.abc import Iterable

from policies.base import Assignment, DecisionView


class PlanQueues:
    """Stages in planned order, by device; a ready stage waits for those planned before it.

    Stages that vanish are skipped. One whose device fails goes first once that is repaired.

    Args:
        devices: how many there are.
    """

    def __init__(self, devices: int) -> None:
        # In reverse: the next stage of a device is the last element.
        self._queues: list[list[int]] = [[] for _ in range(devices)]
        self._placed: dict[int, int] = {}

    def append(self, device: int, stages: Iterable[int]) -> None:
        """Plan ``stages``, in their order, behind what is planned for ``device`` already."""
        self._queues[device][:0] = list(stages)[::-1]

    def due(self, view: DecisionView) -> list[Assignment]:
        """Place the ready stages whose turn it is on devices that are up."""
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
