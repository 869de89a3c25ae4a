"""Distances in a workflow's graph, without costs."""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled
from fate_gym.sim.layout import DONE, PLACED, READY, Array, Buffer, problem_view, state_view

FAR = 1 << 30


@compiled
def hops_left(problem: Buffer, workflow: int, hops: Array) -> None:
    """Fill ``hops`` (S,): stages on the longest chain from a stage to an exit, itself included."""
    p = problem_view(problem)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    for i in range(last - 1, first - 1, -1):
        s = p.topological[i]
        longest = 0
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            longest = max(longest, hops[p.edges[p.out_edges[j]].child])
        hops[s] = longest + 1


@compiled
def steps_to_execution(
    problem: Buffer, state: Buffer, workflow: int, prefix_steps: Array, context_steps: Array
) -> None:
    """How many steps lie between now and the next use of what is cached, for one workflow.

    A stage that is ready or under way is 0 steps away; one that waits, one more than the furthest
    of its parents that have not ended, since it needs them all. What several stages share is as
    near as the most urgent of them.

    Args:
        problem: the problem's buffer.
        state: the state's buffer.
        workflow: its number.
        prefix_steps: (Q,) lowered to the steps to the nearest unplaced stage with the prefix.
        context_steps: (S,) set to the steps to the nearest unplaced child, ``FAR`` without.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    first, last = p.workflows[workflow].stages_from, p.workflows[workflow].stages_to
    steps = np.zeros(last - first, np.int64)
    context_steps[first:last] = FAR
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
        if q >= 0:
            prefix_steps[q] = min(prefix_steps[q], steps[s - first])
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            parent = p.edges[e].parent
            context_steps[parent] = min(context_steps[parent], steps[s - first])
