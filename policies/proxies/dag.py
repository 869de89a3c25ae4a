"""Distances in a workflow's graph, without costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Ints, kernel
from fate_gym.kernel.schema import DONE, PLACED, READY, TOOL_STAGE, ProblemArrays, StateArrays
from policies.base import DecisionView

FAR = 1 << 30


class HopsLeft:
    """Number of stages on the longest chain from each stage to an exit, itself included.

    Args:
        view: view at the start of a run.

    Attributes:
        counts: (S,) the numbers, for stages of workflows that have arrived; 0 for the others.
    """

    def __init__(self, view: DecisionView) -> None:
        self.counts: NDArray[np.int64] = np.zeros(view.compiled.arrays.stages.size, np.int64)
        self._known = 0

    def update(self, view: DecisionView) -> None:
        """Fill the counts of newly arrived workflows."""
        arrived = view.arrived
        for workflow in arrived[self._known :]:
            count_hops(view.compiled.arrays, workflow, self.counts)
        self._known = len(arrived)


@kernel
def count_hops(p: ProblemArrays, workflow: int, hops: Ints) -> None:
    """Fill ``hops`` (S,) for the stages of one workflow."""
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    for i in range(last - 1, first - 1, -1):
        s = p.topological[i]
        longest = 0
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            longest = max(longest, hops[p.edges[p.out_edges[j]].child])
        hops[s] = longest + 1


@kernel
def count_hops_ahead(p: ProblemArrays, st: StateArrays, workflow: int, ahead: Ints) -> None:
    """Mark the calls of one workflow that are ready or one hop ahead.

    Tools between two calls do not count as a hop.

    Args:
        p: the problem.
        st: the state.
        workflow: its number.
        ahead: (S,) set to 0 for ready stages, 1 for waiting ones with a parent that is ready,
            running or done, -1 for all others.
    """
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    for i in range(first, last):
        s = p.topological[i]
        ahead[s] = -1
        status = st.stages[s].status
        if status == READY:
            ahead[s] = 0
        if status >= READY:
            continue
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            parent = p.edges[e].parent
            through = p.stages[parent].kind == TOOL_STAGE and ahead[parent] == 1
            if through or st.stages[parent].status >= READY:
                ahead[s] = 1


@kernel
def steps_to_execution(
    p: ProblemArrays, st: StateArrays, workflow: int, prefix_steps: Ints, context_steps: Ints
) -> None:
    """Compute the steps until the next use of cached data, for one workflow.

    A ready or running stage is 0 steps away; a waiting one is one step further than the furthest of
    its parents that have not ended, since it needs them all. Data that several stages share is as
    near as the nearest of them.

    Args:
        p: the problem.
        st: the state.
        workflow: its number.
        prefix_steps: (Q,) lowered to the steps to the nearest unplaced stage with the prefix.
        context_steps: (S,) set to the steps to the nearest unplaced child; ``FAR``: none.
    """
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    steps = np.zeros(last - first, np.int64)
    for s in range(first, last):
        context_steps[s] = FAR
    for i in range(first, last):
        s = p.topological[i]
        status = st.stages[s].status
        if status < READY:
            for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
                parent = p.edges[e].parent
                if st.stages[parent].status != DONE:
                    steps[s - first] = max(steps[s - first], steps[parent - first] + 1)
        if status >= PLACED:
            continue
        q = p.stages[s].prefix
        while q >= 0:
            prefix_steps[q] = min(prefix_steps[q], steps[s - first])
            q = p.prefixes[q].parent
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            parent = p.edges[e].parent
            context_steps[parent] = min(context_steps[parent], steps[s - first])
