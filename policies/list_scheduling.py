"""List schedulers as policies: EFT, Min-Min, HEFT online; HEFT offline with insertion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled
from fate_gym.sim import Simulator
from fate_gym.sim.layout import (
    NO_LOG,
    TOOL_STAGE,
    Array,
    Buffer,
    ProblemView,
    problem_view,
)
from policies.base import Assignment, DecisionView
from policies.list_core import (
    FCFS,
    MIN_MIN,
    STATE,
    STRICT,
    UPWARD_RANK,
    Choices,
    Rules,
    decide_instant,
    make_choices,
    play,
)

Order = Literal["fcfs", "upward_rank", "min_min"]
_ORDERS: dict[str, int] = {"fcfs": FCFS, "upward_rank": UPWARD_RANK, "min_min": MIN_MIN}


class ListScheduler:
    """Orders the ready stages, gives each the placement with the earliest finish.

    Args:
        name: the policy's name in results.
        order: ``fcfs`` (EFT), ``min_min`` (Min-Min; Ibarra & Kim 1977, Maheswaran et al. 1999) or
            ``upward_rank`` (HEFT; Topcuoglu, Hariri & Wu 2002, section 4), renewed at each event.
        boosted: the finish is estimated in the state (residency, prefixes, contexts). Otherwise
            the classical way: queue + transfer + clean cost.
        lazy: one plan an event, of which only what starts at once is committed.
        max_shards: devices that may share a stage; 1 is classical list scheduling.
    """

    def __init__(
        self,
        *,
        name: str,
        order: Order,
        boosted: bool = True,
        lazy: bool = False,
        max_shards: int = 1,
    ) -> None:
        self.name = name
        self._rules = (_ORDERS[order], STATE if boosted else STRICT, int(lazy), max_shards)
        self._scratch: Buffer | None = None
        self._planned_at = -1

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for plans."""
        self._prepare(view.compiled.view)
        self._scratch = None
        self._planned_at = -1

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place all ready stages, or those that start at once."""
        if self._planned_at == view.instant:
            return []
        if self._rules[2]:
            self._planned_at = view.instant
        self._scratch = view.fork(self._scratch)
        noted = decide_instant(
            view.compiled.buffer, self._scratch, NO_LOG, self._bounded, self._choices
        )
        return read_choices(self._choices, noted)

    def play(self, simulator: Simulator) -> float:
        """Play the simulator's whole run in compiled code; returns the last end.

        The schedule is the one that `Simulator.run` gives, without the round trips to Python.
        """
        self._prepare(simulator.compiled.view)
        scratch = np.zeros(simulator.compiled.state_bytes, np.uint8)
        return simulator.play(
            lambda problem, state, log: play(
                problem, state, log, self._bounded, self._choices, scratch
            )
        )

    def _prepare(self, problem: ProblemView) -> None:
        shards = int(problem.head[0]["max_shards"])
        order, rule, lazy, most = self._rules
        self._bounded = Rules(order, rule, lazy, min(most, shards))
        self._choices = make_choices(problem.stages.size, shards)


def read_choices(choices: Choices, noted: int) -> list[Assignment]:
    """The first ``noted`` choices as assignments."""
    assignments = []
    for i in range(noted):
        width = int(choices.width[i])
        devices = tuple(choices.devices[i, :width].tolist())
        counts = tuple(choices.counts[i, :width].tolist()) if width > 1 else None
        assignments.append(Assignment(int(choices.stage[i]), devices, counts))
    return assignments


class HeftOffline:
    """HEFT as published: the whole schedule at a workflow's arrival, then executed as planned.

    Insertion-based, with clean costs: the plan is blind to residency, caches and what really
    happens. A ready stage waits until the stages planned before it on its device are placed.

    Source: Topcuoglu, Hariri & Wu 2002, section 4 (doi 10.1109/71.993206).
    """

    name = "heft_offline"

    def reset(self, view: DecisionView, seed: int) -> None:
        """Forget the plans."""
        p = view.compiled.view
        self._planned = np.zeros(p.workflows.size, np.bool_)
        self._device = np.full(p.stages.size, -1, np.int64)
        self._queues: list[list[int]] = [[] for _ in range(p.devices.size)]

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the ready stages whose turn in the plan it is."""
        workflow_of = view.compiled.workflow_of
        ready = view.ready
        for stage in ready:
            if not self._planned[workflow_of[stage]]:
                self._plan(view, int(workflow_of[stage]))
        waiting = set(ready)
        assignments = []
        for device, queue in enumerate(self._queues):
            while queue and queue[-1] in waiting:
                assignments.append(Assignment(queue.pop(), (device,)))
        return assignments

    def _plan(self, view: DecisionView, workflow: int) -> None:
        p = view.compiled.view
        plan = insertion_heft(
            view.compiled.buffer,
            workflow,
            p.stages["upward_rank"].copy(),
            view.drain_estimates(),
            view.now,
        )
        self._planned[workflow] = True
        # A stage of no length stands before the one that starts at the same time.
        order = np.lexsort((plan.sequence, plan.end, plan.start))
        for device, queue in enumerate(self._queues):
            mine = [int(s) for s in order if plan.device[s] == device]
            # Kept in reverse: the next stage is the last element. New work goes behind old.
            queue[:0] = mine[::-1]


class InsertionPlan:
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


def insertion_heft(
    problem: Buffer,
    workflow: int,
    priority: NDArray[np.float64],
    available: NDArray[np.float64],
    now: float,
) -> InsertionPlan:
    """Plan one workflow: highest priority first, earliest finish, into the first gap that fits.

    Args:
        problem: buffer of the compiled problem.
        workflow: its number.
        priority: (S,) e.g. upward ranks; must not put a child before its parents.
        available: (D,) when each device is free.
        now: the plan starts here.
    """
    plan = InsertionPlan(priority.size)
    _insertion(
        problem,
        workflow,
        priority,
        available,
        now,
        plan.device,
        plan.start,
        plan.end,
        plan.sequence,
    )
    return plan


@compiled
def _insertion(
    problem: Buffer,
    workflow: int,
    priority: Array,
    available: Array,
    now: float,
    device: Array,
    start: Array,
    end: Array,
    sequence: Array,
) -> None:
    p = problem_view(problem)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    # Topological order first, then a stable sort: equal priorities keep parents in front.
    stages = p.topological[first:last]
    stages = stages[np.argsort(-priority[stages], kind="mergesort")]
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
        best_end, best_start, best_device, best_gap = np.inf, np.inf, -1, 0
        for d in range(devices):
            seconds = p.clean_seconds[s, d]
            if seconds == np.inf:
                continue
            data = _data_ready(p, s, d, device, end, now)
            begin, gap = _first_gap(starts[d], ends[d], used[d], max(data, available[d]), seconds)
            if begin + seconds < best_end:
                best_end, best_start, best_device, best_gap = begin + seconds, begin, d, gap
        device[s], start[s], end[s] = best_device, best_start, best_end
        n = used[best_device]
        for j in range(n, best_gap, -1):
            starts[best_device, j] = starts[best_device, j - 1]
            ends[best_device, j] = ends[best_device, j - 1]
        starts[best_device, best_gap] = best_start
        ends[best_device, best_gap] = best_end
        used[best_device] = n + 1


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
