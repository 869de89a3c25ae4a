"""Tables of classical list schedulers: priorities of stages, penalties of devices.

Each function fills the rows of one workflow in ``priority`` (S,) or ``penalty`` (S, D), initially
zero. The values depend only on clean seconds and mean transfers, so they are computed once, when
the workflow arrives. Tools run on the host: their seconds count, but no device is chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import FloatMatrix, Floats, inlined, kernel
from fate_gym.kernel.schema import TOOL_STAGE, ProblemArrays
from policies.list_scheduling.rules import NO_PENALTY

Table = NDArray[np.float64]
OFF_PATH_S = 1e12
"""Penalty with which CPOP rules out a device: larger than any finish."""


def stages_of(p: ProblemArrays, workflow: int) -> slice:
    """The stage numbers of a workflow."""
    return slice(p.workflows["stages_from"][workflow], p.workflows["stages_to"][workflow])


def upward_ranks(p: ProblemArrays, workflow: int, priority: Table) -> None:
    """HEFT's priority. Source: Topcuoglu, Hariri & Wu 2002, eq. 8 (doi 10.1109/71.993206)."""
    own = stages_of(p, workflow)
    priority[own] = p.stages["upward_rank"][own]


def paths_through(p: ProblemArrays, workflow: int, priority: Table) -> None:
    """CPOP's priority: upward + downward rank, the longest path through a stage.

    Source: Topcuoglu, Hariri & Wu 2002, section 4.2.
    """
    own = stages_of(p, workflow)
    priority[own] = p.stages["upward_rank"][own] + p.stages["downward_rank"][own]


def critical_path_device(p: ProblemArrays, workflow: int, penalty: Table) -> None:
    """CPOP's rule: stages of the critical path go to the device that runs the whole path fastest.

    The device is the one that can host most of the path and, among those, runs it in the least
    time; a stage that it cannot host goes where it ends first. ``penalty`` is 0 or `OFF_PATH_S`.
    Source: as `paths_through`.
    """
    path = critical_path(p, workflow)
    clean = p.clean_seconds[path]
    hosted = clean < np.inf
    seconds = np.where(hosted, clean, 0.0).sum(axis=0)
    best = np.lexsort((seconds, -hosted.sum(axis=0)))[0]
    bound = path[hosted[:, best]]
    penalty[bound] = OFF_PATH_S
    penalty[bound, best] = 0.0


def critical_path(p: ProblemArrays, workflow: int) -> NDArray[np.int64]:
    """Return the stages (n,) of the longest path through a workflow, from an entry to an exit."""
    own = p.stages[stages_of(p, workflow)]
    through = own["upward_rank"] + own["downward_rank"]
    through[own["parents_from"] < own["parents_to"]] = -np.inf
    path = [int(p.workflows["stages_from"][workflow] + through.argmax())]
    while True:
        last = p.stages[path[-1]]
        edges = p.edges[p.out_edges[last["children_from"] : last["children_to"]]]
        if edges.size == 0:
            return np.array(path)
        lengths = edges["mean_seconds"] + p.stages["upward_rank"][edges["child"]]
        path.append(int(edges["child"][lengths.argmax()]))


@kernel
def optimistic_costs(p: ProblemArrays, workflow: int, penalty: FloatMatrix) -> None:
    """PEFT's optimistic cost table.

    OCT(i, p) = max over children j of min over devices q of OCT(j, q) + w(j, q) + [p != q] c(i, j).
    Source: Arabnejad & Barbosa 2014, eq. 6 (doi 10.1109/TPDS.2013.57).
    """
    number = p.devices.size
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    for i in range(last - 1, first - 1, -1):
        s = p.topological[i]
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


@kernel
def mean_optimistic_costs(p: ProblemArrays, workflow: int, priority: Floats) -> None:
    """PEFT's priority: the mean of a stage's optimistic costs over its devices.

    Source: Arabnejad & Barbosa 2014, eq. 7.
    """
    costs = np.zeros(p.clean_seconds.shape)
    optimistic_costs(p, workflow, costs)
    for s in range(p.workflows[workflow].stages_from, p.workflows[workflow].stages_to):
        total, hosts = 0.0, 0
        for d in range(p.devices.size):
            if p.stages[s].kind == TOOL_STAGE or p.clean_seconds[s, d] < np.inf:
                total += costs[s, d]
                hosts += 1
        priority[s] = total / hosts


@kernel
def dynamic_levels(p: ProblemArrays, workflow: int, priority: Floats) -> None:
    """DLS's priority: the part of the dynamic level that does not depend on the device.

    DL(i, p) = SL(i) - max(data ready, available) + (w*(i) - w(i, p)), with w* the median over
    devices and SL the longest path of medians to an exit without transfers. Start + w is the
    finish, so DL = (SL + w*) - finish; ``priority`` is the term in parentheses.

    Source: Sih & Lee 1993, section III (doi 10.1109/71.207593).
    """
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    level, row = np.zeros(last - first), np.empty(p.devices.size)
    for i in range(last - 1, first - 1, -1):
        s = p.topological[i]
        behind = 0.0
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            behind = max(behind, level[p.edges[p.out_edges[j]].child - first])
        median = _median_seconds(p, s, row)
        level[s - first] = median + behind
        priority[s] = level[s - first] + median


@inlined
def _median_seconds(p: ProblemArrays, s: int, row: Floats) -> float:
    """Median clean seconds of stage ``s`` over its devices. ``row`` (D,) is scratch."""
    if p.stages[s].kind == TOOL_STAGE:
        return float(p.stages[s].tool_seconds)
    hosts = 0
    for d in range(p.devices.size):
        seconds = p.clean_seconds[s, d]
        if seconds < np.inf:
            i = hosts
            while i > 0 and row[i - 1] > seconds:
                row[i] = row[i - 1]
                i -= 1
            row[i] = seconds
            hosts += 1
    return float((row[(hosts - 1) // 2] + row[hosts // 2]) / 2.0)


PRIORITIES: dict[str, Callable[..., None]] = {
    "upward_rank": upward_ranks,
    "path_through": paths_through,
    "optimistic_cost": mean_optimistic_costs,
    "dynamic_level": dynamic_levels,
}
PENALTIES: dict[str, Callable[..., None]] = {
    "critical_path": critical_path_device,
    "optimistic_cost": optimistic_costs,
}
"""Functions that fill the tables, by the name of the order or device rule."""


def tables_of(p: ProblemArrays, workflow: int, order: str, device: str) -> tuple[Table, Table]:
    """Return (S,) priorities and (S, D) or empty penalties, filled for one workflow.

    Args:
        p: the problem.
        workflow: its number.
        order: a name in `PRIORITIES`.
        device: a device rule; one that is not in `PENALTIES` has no penalties.
    """
    priority, penalty = np.zeros(p.stages.size), NO_PENALTY
    PRIORITIES[order](p, workflow, priority)
    if device in PENALTIES:
        penalty = np.zeros(p.clean_seconds.shape)
        PENALTIES[device](p, workflow, penalty)
    return priority, penalty
