"""List scheduling with insertion, as published: workflows are scheduled whole as they arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Block, FloatMatrix, Floats, Ints, inlined, kernel, scalar, table
from fate_gym.kernel.schema import TOOL_STAGE, ProblemArrays
from fate_gym.kernel.transfer import over_host, over_link
from policies.base import Assignment, DecisionView
from policies.list_scheduling.plan_queues import PlanQueues
from policies.list_scheduling.tables import stages_of, tables_of

Method = Literal["heft", "cpop", "peft"]
_TABLES: dict[Method, tuple[str, str]] = {
    "heft": ("upward_rank", "earliest_finish"),
    "cpop": ("path_through", "critical_path"),
    "peft": ("optimistic_cost", "optimistic_cost"),
}
"""Order and device rule of each method."""


class OfflineScheduler:
    """Schedules each workflow as a whole at its arrival, then executes the plan.

    The ready stage of highest priority takes the device where it ends first (plus a penalty), in
    the first gap that fits. Costs are clean: the plan ignores residency, caches and actual
    durations. A ready stage waits until the stages planned before it on its device are placed.

    Args:
        name: the policy's name in results.
        method: ``heft`` (upward ranks), ``cpop`` (paths through the stage; the critical path on one
            device) or ``peft`` (mean optimistic cost; finish + optimistic cost).
        insertion: False: append every stage to its device instead of filling gaps.

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
        """Place the ready stages that are next in the plan."""
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
        own = np.arange(p.stages.size)[stages_of(p, workflow)]
        # A zero-length stage comes before another that starts at the same time.
        order = own[np.lexsort((plan.sequence[own], plan.end[own], plan.start[own]))]
        for device in range(view.devices):
            self._queues.append(device, order[plan.device[order] == device].tolist())


def method_tables(
    p: ProblemArrays, workflow: int, method: Method
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a method's (S,) priorities and (S, D) or empty penalties for one workflow."""
    return tables_of(p, workflow, *_TABLES[method])


class OfflinePlan(Block):
    """A schedule of a workflow's N stages. Other stages have no device and start at inf."""

    insertion: int = scalar("i8", "1: into the first gap that fits; 0: behind all others")
    now: float = scalar("f8", "the plan starts here", "s")

    device: Any = table("i8", "S", text="device of each stage, -1 for tools")
    start: Any = table("f8", "S", text="planned", unit="s")
    end: Any = table("f8", "S", text="planned", unit="s")
    sequence: Any = table("i8", "S", text="position in the order of planning; breaks ties of start")
    missing: Any = table("i8", "S", text="parents that are not planned yet; -1: it is planned")
    used: Any = table("i8", "D", text="stages planned on a device")
    starts: Any = table("f8", "D", "N", text="starts of those, in order", unit="s")
    ends: Any = table("f8", "D", "N", text="ends of those, in order", unit="s")


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
    """Plan one workflow: put the ready stage of highest priority on its best device, and repeat.

    Args:
        p: the problem.
        workflow: its number.
        priority: (S,) e.g. upward ranks. Ties: the topologically first.
        penalty: (S, D) seconds on top of the finish when devices are compared; empty: none.
        available: (D,) when each device is free, seconds.
        now: start of the plan, seconds.
        insertion: True: use the first gap that fits; False: append to the device.
    """
    # Topological order first, then a stable sort: equal priorities keep parents in front.
    own = p.topological[stages_of(p, workflow)]
    ranked = own[np.argsort(-priority[own], kind="stable")]
    plan = OfflinePlan.allocate(S=priority.size, D=available.size, N=ranked.size)
    plan.insertion, plan.now = int(insertion), now
    plan.device[:] = -1
    plan.start[:] = np.inf
    plan_stages(p, ranked, penalty, available, plan)
    return plan


@kernel
def plan_stages(
    p: ProblemArrays, ranked: Ints, penalty: FloatMatrix, available: Floats, plan: OfflinePlan
) -> None:
    """Plan the stages of a workflow: always the first of ``ranked`` whose parents are planned."""
    for i in range(ranked.size):
        s = ranked[i]
        plan.missing[s] = p.stages[s].parents_to - p.stages[s].parents_from
    front = 0  # all before it are planned
    for i in range(ranked.size):
        while plan.missing[ranked[front]] < 0:
            front += 1
        place = front
        while plan.missing[ranked[place]] != 0:
            place += 1
        s = ranked[place]
        plan.sequence[s] = i
        if p.stages[s].kind == TOOL_STAGE:
            plan.start[s] = _data_ready(p, plan, s, -1)
            plan.end[s] = plan.start[s] + p.stages[s].tool_seconds
        else:
            _place(p, plan, penalty, available, s)
        plan.missing[s] = -1
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            plan.missing[p.edges[p.out_edges[j]].child] -= 1


@inlined
def _place(
    p: ProblemArrays, plan: OfflinePlan, penalty: FloatMatrix, available: Floats, s: int
) -> None:
    """Plan stage ``s`` on the device with the earliest finish, penalty included."""
    best, start, device, position = np.inf, np.inf, -1, 0
    for d in range(p.devices.size):
        seconds = p.clean_seconds[s, d]
        if seconds == np.inf:
            continue
        ready = max(_data_ready(p, plan, s, d), available[d])
        begin, gap = _first_gap(plan, d, ready, seconds)
        compared = begin + seconds
        if penalty.size > 0:
            compared += penalty[s, d]
        if compared < best:
            best, start, device, position = compared, begin, d, gap
    plan.device[s], plan.start[s] = device, start
    plan.end[s] = start + p.clean_seconds[s, device]
    for j in range(plan.used[device], position, -1):
        plan.starts[device, j] = plan.starts[device, j - 1]
        plan.ends[device, j] = plan.ends[device, j - 1]
    plan.starts[device, position] = start
    plan.ends[device, position] = plan.end[s]
    plan.used[device] += 1


@kernel
def _data_ready(p: ProblemArrays, plan: OfflinePlan, s: int, d: int) -> float:
    """When the outputs of all parents have reached device ``d`` (-1: the host)."""
    ready = plan.now
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        edge = p.edges[e]
        there = plan.end[edge.parent]
        source = plan.device[edge.parent]
        if edge.bytes > 0.0 and source != d:
            if source < 0:
                there += over_host(p, d, edge.bytes)
            elif d < 0:
                there += p.link_latency[source, source]
                there += edge.bytes / p.devices[source].host_bandwidth
            else:
                there += over_link(p, source, d, edge.bytes)
        ready = max(ready, there)
    return ready


@inlined
def _first_gap(plan: OfflinePlan, d: int, ready: float, seconds: float) -> tuple[float, int]:
    """The earliest start not before ``ready`` that leaves ``seconds`` free, and its position."""
    used = plan.used[d]
    if not plan.insertion:
        return max(ready, plan.ends[d, used - 1]) if used > 0 else ready, used
    # Gaps that end before `ready` are useless: begin with the first block that ends after it.
    low, high = 0, used
    while low < high:
        middle = (low + high) // 2
        if plan.ends[d, middle] <= ready:
            low = middle + 1
        else:
            high = middle
    begin = ready
    for i in range(low, used):
        if begin + seconds <= plan.starts[d, i]:
            return begin, i
        begin = max(begin, plan.ends[d, i])
    return begin, used
