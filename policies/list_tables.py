"""What classical list schedulers look up: priorities of stages, penalties of devices.

Each function fills the rows of one workflow, from clean seconds and mean transfers alone: static,
made once when the workflow arrives. Shapes: S stages, D devices. Tools, which run on the host,
count with their seconds and no choice of device.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled
from fate_gym.sim.layout import TOOL_STAGE, Array, Buffer, problem_view

OFF_PATH_S = 1e12
"""Penalty of a device that CPOP does not want: larger than any finish."""


@compiled
def paths_through(problem: Buffer, workflow: int, priority: Array) -> None:
    """CPOP's priority: upward + downward rank, the longest path through a stage.

    Source: Topcuoglu, Hariri & Wu 2002, section 4.2 (doi 10.1109/71.993206).
    """
    p = problem_view(problem)
    for s in range(p.workflows[workflow].stages_from, p.workflows[workflow].stages_to):
        priority[s] = p.stages[s].upward_rank + p.stages[s].downward_rank


@compiled
def critical_path_device(problem: Buffer, workflow: int, penalty: Array) -> None:
    """CPOP's rule: stages of the critical path go to the device that runs the whole path fastest.

    The device is the one that can host most of the path and, among those, runs it in the least
    time; a stage that it cannot host goes where it ends first. ``penalty`` (S, D) is 0 or
    ``OFF_PATH_S``. Source: as `paths_through`.
    """
    p = problem_view(problem)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    length, stage = -1.0, -1
    for s in range(first, last):
        through = p.stages[s].upward_rank + p.stages[s].downward_rank
        if p.stages[s].parents_from == p.stages[s].parents_to and through > length:
            length, stage = through, s
    path = np.empty(last - first, np.int64)
    count = 0
    while stage >= 0:
        path[count] = stage
        count += 1
        longest, next_stage = -1.0, -1
        for j in range(p.stages[stage].children_from, p.stages[stage].children_to):
            edge = p.edges[p.out_edges[j]]
            through = edge.mean_seconds + p.stages[edge.child].upward_rank
            if through > longest:
                longest, next_stage = through, edge.child
        stage = next_stage
    best, most, least = -1, -1, np.inf
    for d in range(p.devices.size):
        hosted, seconds = 0, 0.0
        for i in range(count):
            if p.clean_seconds[path[i], d] < np.inf:
                hosted += 1
                seconds += p.clean_seconds[path[i], d]
        if hosted > most or (hosted == most and seconds < least):
            best, most, least = d, hosted, seconds
    penalty[first:last] = 0.0
    for i in range(count):
        if p.clean_seconds[path[i], best] < np.inf:
            penalty[path[i]] = OFF_PATH_S
            penalty[path[i], best] = 0.0


@compiled
def optimistic_costs(problem: Buffer, workflow: int, priority: Array, penalty: Array) -> None:
    """PEFT's optimistic cost table as penalty, and its mean over a stage's devices as priority.

    OCT(i, p) = max over children j of min over devices q of OCT(j, q) + w(j, q) + [p != q] c(i, j).
    Source: Arabnejad & Barbosa 2014, eq. 6 and 7 (doi 10.1109/TPDS.2013.57).
    """
    p = problem_view(problem)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    number = p.devices.size
    for i in range(last - 1, first - 1, -1):
        s = p.topological[i]
        penalty[s] = 0.0
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            edge = p.edges[p.out_edges[j]]
            c = edge.child
            if p.stages[c].kind == TOOL_STAGE:
                here = p.stages[c].tool_seconds + edge.mean_seconds + penalty[c, 0]
                for d in range(number):
                    penalty[s, d] = max(penalty[s, d], here)
                continue
            elsewhere = np.inf
            for q in range(number):
                elsewhere = min(elsewhere, penalty[c, q] + p.clean_seconds[c, q])
            elsewhere += edge.mean_seconds
            for d in range(number):
                here = elsewhere
                if p.stages[s].kind != TOOL_STAGE:
                    here = min(here, penalty[c, d] + p.clean_seconds[c, d])
                penalty[s, d] = max(penalty[s, d], here)
        total, width = 0.0, 0
        for d in range(number):
            if p.stages[s].kind == TOOL_STAGE or p.clean_seconds[s, d] < np.inf:
                total += penalty[s, d]
                width += 1
        priority[s] = total / width


@compiled
def dynamic_levels(problem: Buffer, workflow: int, priority: Array) -> None:
    """DLS's part of the dynamic level that does not depend on the device.

    DL(i, p) = SL(i) - max(data ready, available) + (w*(i) - w(i, p)), with w* the median over
    devices and SL the longest path of medians to an exit without transfers. Start + w is the
    finish, so DL = (SL + w*) - finish; ``priority`` is what stands in brackets.

    Source: Sih & Lee 1993, section III (doi 10.1109/71.207593).
    """
    p = problem_view(problem)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    level = np.zeros(last - first)
    for i in range(last - 1, first - 1, -1):
        s = p.topological[i]
        behind = 0.0
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            behind = max(behind, level[p.edges[p.out_edges[j]].child - first])
        if p.stages[s].kind == TOOL_STAGE:
            median = p.stages[s].tool_seconds
        else:
            row = p.clean_seconds[s]
            median = np.median(row[row < np.inf])
        level[s - first] = median + behind
        priority[s] = level[s - first] + median


@compiled
def upward_ranks(problem: Buffer, workflow: int, priority: Array) -> None:
    """HEFT's priority. Source: Topcuoglu, Hariri & Wu 2002, eq. 8."""
    p = problem_view(problem)
    for s in range(p.workflows[workflow].stages_from, p.workflows[workflow].stages_to):
        priority[s] = p.stages[s].upward_rank
