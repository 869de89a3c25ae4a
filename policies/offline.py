"""Whole schedules made when a workflow arrives: list scheduling with insertion, as published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled
from fate_gym.sim.layout import TOOL_STAGE, Array, Buffer, ProblemView, problem_view
from policies.base import Assignment, DecisionView
from policies.list_core import NO_PENALTY
from policies.list_tables import (
    critical_path_device,
    optimistic_costs,
    paths_through,
    upward_ranks,
)
from policies.plan_queues import PlanQueues

Method = Literal["heft", "cpop", "peft"]


class OfflineScheduler:
    """The whole schedule at a workflow's arrival, then executed as planned.

    The ready stage of highest priority takes the device where it ends first (plus a penalty), in
    the first gap that fits. Costs are clean: the plan is blind to residency, caches and what
    really happens. A ready stage waits until the stages planned before it on its device are
    placed.

    Args:
        name: the policy's name in results.
        method: ``heft`` (upward ranks), ``cpop`` (paths through the stage; the critical path on one
            device) or ``peft`` (mean optimistic cost; finish + optimistic cost).
        insertion: False puts every stage behind the others of its device.

    Sources: Topcuoglu, Hariri & Wu 2002, section 4 (doi 10.1109/71.993206); Arabnejad & Barbosa
    2014 (doi 10.1109/TPDS.2013.57).
    """

    def __init__(self, *, name: str, method: Method = "heft", insertion: bool = True) -> None:
        self.name = name
        self._method, self._insertion = method, insertion

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the plans."""
        p = view.compiled.view
        self._planned = np.zeros(p.workflows.size, np.bool_)
        self._queues = PlanQueues(p.devices.size)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the ready stages whose turn in the plan it is."""
        workflow_of = view.compiled.workflow_of
        for stage in view.ready:
            if not self._planned[workflow_of[stage]]:
                self._plan(view, int(workflow_of[stage]))
        return self._queues.due(view)

    def _plan(self, view: DecisionView, workflow: int) -> None:
        plan = plan_workflow(
            view.compiled.buffer,
            workflow,
            *method_tables(
                view.compiled.buffer, view.compiled.exec_seconds, workflow, self._method
            ),
            available=view.drain_estimates(),
            now=view.now,
            insertion=self._insertion,
        )
        self._planned[workflow] = True
        record = view.compiled.view.workflows[workflow]
        first = int(record["stages_from"])
        own = slice(first, int(record["stages_to"]))
        # A stage of no length stands before the one that starts at the same time.
        order = np.lexsort((plan.sequence[own], plan.end[own], plan.start[own]))
        mine: list[list[int]] = [[] for _ in range(view.devices)]
        devices = plan.device[own][order]
        for stage, device in zip((first + order).tolist(), devices.tolist(), strict=True):
            if device >= 0:
                mine[device].append(stage)
        for device, stages in enumerate(mine):
            self._queues.append(device, stages)


def method_tables(
    problem: Buffer, exec_seconds: Array, workflow: int, method: Method
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(S,) priorities and (S, D) or empty penalties of a method, for one workflow."""
    priority = np.zeros(exec_seconds.shape[0])
    if method == "heft":
        upward_ranks(problem, workflow, priority)
        return priority, NO_PENALTY
    penalty = np.zeros(exec_seconds.shape)
    if method == "peft":
        optimistic_costs(problem, workflow, priority, penalty)
    else:
        paths_through(problem, workflow, priority)
        critical_path_device(problem, workflow, penalty)
    return priority, penalty


class OfflinePlan:
    """A whole schedule. Arrays are (S,); entries of other workflows are -1, 0 and inf.

    Attributes:
        device: device of each stage, -1 for tools.
        start, end: planned seconds.
        sequence: position in which the stage was planned; breaks ties of start.
    """

    def __init__(self, stages: int) -> None:
        self.device: NDArray[np.int64] = np.full(stages, -1, np.int64)
        self.start: NDArray[np.float64] = np.full(stages, np.inf)
        self.end: NDArray[np.float64] = np.zeros(stages)
        self.sequence: NDArray[np.int64] = np.zeros(stages, np.int64)


def plan_workflow(
    problem: Buffer,
    workflow: int,
    priority: NDArray[np.float64],
    penalty: NDArray[np.float64],
    *,
    available: NDArray[np.float64],
    now: float,
    insertion: bool = True,
) -> OfflinePlan:
    """Plan one workflow: of the ready stages the one of highest priority, on its best device.

    Args:
        problem: buffer of the compiled problem.
        workflow: its number.
        priority: (S,) e.g. upward ranks. Ties: the topologically first.
        penalty: (S, D) seconds on top of the finish when devices are compared; empty: none.
        available: (D,) when each device is free.
        now: the plan starts here.
        insertion: into the first gap that fits; False: behind all others.
    """
    plan = OfflinePlan(priority.size)
    _plan(
        problem,
        workflow,
        priority,
        penalty,
        available,
        now,
        insertion,
        plan.device,
        plan.start,
        plan.end,
        plan.sequence,
    )
    return plan


@compiled
def _plan(
    problem: Buffer,
    workflow: int,
    priority: Array,
    penalty: Array,
    available: Array,
    now: float,
    insertion: bool,
    device: Array,
    start: Array,
    end: Array,
    sequence: Array,
) -> None:
    p = problem_view(problem)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    stages = _sequence(p, first, last, priority)
    devices = p.devices.size
    used = np.zeros(devices, np.int64)
    starts = np.empty((devices, last - first))
    ends = np.empty((devices, last - first))
    for i in range(stages.size):
        s = stages[i]
        sequence[s] = i
        if p.stages[s].kind == TOOL_STAGE:
            start[s] = _data_ready(p, s, -1, device, end, now)
            end[s] = start[s] + p.stages[s].tool_seconds
            continue
        best, best_start, best_device, best_gap = np.inf, np.inf, -1, 0
        for d in range(devices):
            seconds = p.clean_seconds[s, d]
            if seconds == np.inf:
                continue
            ready = max(_data_ready(p, s, d, device, end, now), available[d])
            if insertion:
                begin, gap = _first_gap(starts[d], ends[d], used[d], ready, seconds)
            else:
                gap = used[d]
                begin = max(ready, ends[d, gap - 1]) if gap > 0 else ready
            compared = begin + seconds
            if penalty.size > 0:
                compared += penalty[s, d]
            if compared < best:
                best, best_start, best_device, best_gap = compared, begin, d, gap
        device[s], start[s] = best_device, best_start
        end[s] = best_start + p.clean_seconds[s, best_device]
        n = used[best_device]
        for j in range(n, best_gap, -1):
            starts[best_device, j] = starts[best_device, j - 1]
            ends[best_device, j] = ends[best_device, j - 1]
        starts[best_device, best_gap] = best_start
        ends[best_device, best_gap] = end[s]
        used[best_device] = n + 1


@compiled
def _sequence(p: ProblemView, first: int, last: int, priority: Array) -> Array:
    """The stages in the order of planning: always the ready one of highest priority."""
    # Topological order first, then a stable sort: equal priorities keep parents in front.
    topological = p.topological[first:last]
    ranked = topological[np.argsort(-priority[topological], kind="mergesort")]
    place = np.empty(last - first, np.int64)
    missing = np.empty(last - first, np.int64)
    for i in range(ranked.size):
        s = ranked[i]
        place[s - first] = i
        missing[s - first] = p.stages[s].parents_to - p.stages[s].parents_from
    # A heap of positions in `ranked` of the ready stages.
    heap = np.empty(last - first, np.int64)
    count = 0
    for i in range(ranked.size):
        if missing[ranked[i] - first] == 0:
            heap[count] = i  # rising positions are a heap already
            count += 1
    stages = np.empty(last - first, np.int64)
    for i in range(stages.size):
        s = ranked[heap[0]]
        count -= 1
        _sift_down(heap, count, heap[count])
        stages[i] = s
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            child = p.edges[p.out_edges[j]].child - first
            missing[child] -= 1
            if missing[child] == 0:
                _sift_up(heap, count, place[child])
                count += 1
    return stages


@compiled
def _sift_down(heap: Array, count: int, value: int) -> None:
    i = 0
    while 2 * i + 1 < count:
        below = 2 * i + 1
        if below + 1 < count and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= value:
            break
        heap[i] = heap[below]
        i = below
    heap[i] = value


@compiled
def _sift_up(heap: Array, count: int, value: int) -> None:
    i = count
    while i > 0 and heap[(i - 1) // 2] > value:
        heap[i] = heap[(i - 1) // 2]
        i = (i - 1) // 2
    heap[i] = value


@compiled
def _data_ready(p: ProblemView, s: int, d: int, device: Array, end: Array, now: float) -> float:
    """When the outputs of all parents have reached device ``d`` (-1: the host)."""
    ready = max(now, p.workflows[p.stages[s].workflow].arrival)
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        edge = p.edges[e]
        there = end[edge.parent]
        source = device[edge.parent]
        if edge.bytes > 0.0 and source != d:
            if source < 0:
                there += p.link_latency[d, d] + edge.bytes / p.devices[d].host_bandwidth
            elif d < 0:
                there += p.link_latency[source, source]
                there += edge.bytes / p.devices[source].host_bandwidth
            else:
                there += p.link_latency[source, d] + edge.bytes / p.link_bandwidth[source, d]
        ready = max(ready, there)
    return ready


@compiled
def _first_gap(
    starts: Array, ends: Array, used: int, ready: float, seconds: float
) -> tuple[float, int]:
    """The earliest start not before ``ready`` that leaves ``seconds`` free, and its position."""
    # Gaps that end before `ready` are of no use: begin with the first block that ends behind it.
    low, high = 0, used
    while low < high:
        middle = (low + high) // 2
        if ends[middle] <= ready:
            low = middle + 1
        else:
            high = middle
    begin = ready
    for i in range(low, used):
        if begin + seconds <= starts[i]:
            return begin, i
        begin = max(begin, ends[i])
    return begin, used
