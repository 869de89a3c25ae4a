"""Whole schedules made when a workflow arrives: list scheduling with insertion, as published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Block, FloatMatrix, Floats, Ints, inlined, kernel, scalar, table
from fate_gym.kernel.schema import TOOL_STAGE, ProblemArrays
from policies.base import Assignment, DecisionView
from policies.list_scheduling import tables
from policies.list_scheduling.plan_queues import PlanQueues
from policies.list_scheduling.rules import NO_PENALTY

Method = Literal["heft", "cpop", "peft"]
_TABLES: dict[Method, tuple[Callable[..., None], Callable[..., None] | None]] = {
    "heft": (tables.upward_ranks, None),
    "cpop": (tables.paths_through, tables.critical_path_device),
    "peft": (tables.mean_optimistic_costs, tables.optimistic_costs),
}
"""Priorities and penalties of the methods."""


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
        self._planned: set[int] = set()
        self._queues = PlanQueues(view.devices)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the ready stages whose turn in the plan it is."""
        for workflow in view.compiled.workflow_of[view.ready].tolist():
            if workflow not in self._planned:
                self._planned.add(workflow)
                self._plan(view, workflow)
        return self._queues.due(view)

    def _plan(self, view: DecisionView, workflow: int) -> None:
        p = view.compiled.arrays
        plan = plan_workflow(
            p,
            workflow,
            *method_tables(p, workflow, self._method),
            available=view.drain_estimates(),
            now=view.now,
            insertion=self._insertion,
        )
        own = np.arange(p.stages.size)[tables.stages_of(p, workflow)]
        # A stage of no length stands before the one that starts at the same time.
        order = own[np.lexsort((plan.sequence[own], plan.end[own], plan.start[own]))]
        for device in range(view.devices):
            self._queues.append(device, order[plan.device[order] == device].tolist())


def method_tables(
    p: ProblemArrays, workflow: int, method: Method
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(S,) priorities and (S, D) or empty penalties of a method, for one workflow."""
    fill_priority, fill_penalty = _TABLES[method]
    priority, penalty = np.zeros(p.stages.size), NO_PENALTY
    fill_priority(p, workflow, priority)
    if fill_penalty is not None:
        penalty = np.zeros(p.clean_seconds.shape)
        fill_penalty(p, workflow, penalty)
    return priority, penalty


class OfflinePlan(Block):
    """A whole schedule. Stages of other workflows have no device, start at inf and end at 0."""

    insertion: int = scalar("i8", "1: into the first gap that fits; 0: behind all others")
    now: float = scalar("f8", "the plan starts here", "s")

    device: Any = table("i8", "S", text="device of each stage, -1 for tools")
    start: Any = table("f8", "S", text="planned", unit="s")
    end: Any = table("f8", "S", text="planned", unit="s")
    sequence: Any = table("i8", "S", text="position in the order of planning; breaks ties of start")


def plan_workflow(
    p: ProblemArrays,
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
        p: the problem.
        workflow: its number.
        priority: (S,) e.g. upward ranks. Ties: the topologically first.
        penalty: (S, D) seconds on top of the finish when devices are compared; empty: none.
        available: (D,) when each device is free, seconds.
        now: the plan starts here, seconds.
        insertion: into the first gap that fits; False: behind all others.
    """
    plan = OfflinePlan.allocate(S=priority.size)
    plan.insertion, plan.now = int(insertion), now
    plan.device[:] = -1
    plan.start[:] = np.inf
    plan_stages(p, workflow, priority, penalty, available, plan)
    return plan


class Timelines(NamedTuple):
    """What is planned on each device, by start. n stages of the workflow.

    Attributes:
        used: (D,) stages so far.
        starts: (D, n) seconds.
        ends: (D, n) seconds.
    """

    used: Ints
    starts: FloatMatrix
    ends: FloatMatrix


@kernel
def plan_stages(
    p: ProblemArrays,
    workflow: int,
    priority: Floats,
    penalty: FloatMatrix,
    available: Floats,
    plan: OfflinePlan,
) -> None:
    """Fill the plan of one workflow (`plan_workflow`)."""
    stages = _sequence(p, workflow, priority)
    shape = (p.devices.size, stages.size)
    lines = Timelines(np.zeros(p.devices.size, np.int64), np.empty(shape), np.empty(shape))
    for i in range(stages.size):
        s = stages[i]
        plan.sequence[s] = i
        if p.stages[s].kind == TOOL_STAGE:
            plan.start[s] = _data_ready(p, plan, s, -1)
            plan.end[s] = plan.start[s] + p.stages[s].tool_seconds
            continue
        best, start, device, position = np.inf, np.inf, -1, 0
        for d in range(p.devices.size):
            seconds = p.clean_seconds[s, d]
            if seconds == np.inf:
                continue
            ready = max(_data_ready(p, plan, s, d), available[d])
            begin, gap = _first_gap(lines, d, ready, seconds, plan.insertion)
            compared = begin + seconds
            if penalty.size > 0:
                compared += penalty[s, d]
            if compared < best:
                best, start, device, position = compared, begin, d, gap
        plan.device[s], plan.start[s] = device, start
        plan.end[s] = start + p.clean_seconds[s, device]
        _insert(lines, device, position, start, plan.end[s])


@kernel
def _data_ready(p: ProblemArrays, plan: OfflinePlan, s: int, d: int) -> float:
    """When the outputs of all parents have reached device ``d`` (-1: the host)."""
    ready = max(plan.now, p.workflows[p.stages[s].workflow].arrival)
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        edge = p.edges[e]
        there = plan.end[edge.parent]
        source = plan.device[edge.parent]
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


@inlined
def _first_gap(
    lines: Timelines, d: int, ready: float, seconds: float, insertion: int
) -> tuple[float, int]:
    """The earliest start not before ``ready`` that leaves ``seconds`` free, and its position."""
    used = lines.used[d]
    if not insertion:
        return max(ready, lines.ends[d, used - 1]) if used > 0 else ready, used
    # Gaps that end before `ready` are of no use: begin with the first block that ends behind it.
    low, high = 0, used
    while low < high:
        middle = (low + high) // 2
        if lines.ends[d, middle] <= ready:
            low = middle + 1
        else:
            high = middle
    begin = ready
    for i in range(low, used):
        if begin + seconds <= lines.starts[d, i]:
            return begin, i
        begin = max(begin, lines.ends[d, i])
    return begin, used


@inlined
def _insert(lines: Timelines, d: int, position: int, start: float, end: float) -> None:
    for j in range(lines.used[d], position, -1):
        lines.starts[d, j] = lines.starts[d, j - 1]
        lines.ends[d, j] = lines.ends[d, j - 1]
    lines.starts[d, position] = start
    lines.ends[d, position] = end
    lines.used[d] += 1


@kernel
def _sequence(p: ProblemArrays, workflow: int, priority: Floats) -> Ints:
    """The stages in the order of planning: always the ready one of highest priority."""
    first = p.workflows[workflow].stages_from
    n = p.workflows[workflow].stages_to - first
    falling, missing = np.empty(n), np.empty(n, np.int64)
    for i in range(n):
        s = p.topological[first + i]
        falling[i] = -priority[s]
        missing[s - first] = p.stages[s].parents_to - p.stages[s].parents_from
    # Topological order first, then a stable sort: equal priorities keep parents in front.
    ranked = np.argsort(falling, kind="mergesort")
    stages = np.empty(n, np.int64)
    front = 0  # all before it are planned
    for i in range(n):
        while missing[p.topological[first + ranked[front]] - first] < 0:
            front += 1
        place = front
        while missing[p.topological[first + ranked[place]] - first] != 0:
            place += 1
        s = p.topological[first + ranked[place]]
        missing[s - first] = -1
        stages[i] = s
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            missing[p.edges[p.out_edges[j]].child - first] -= 1
    return stages
