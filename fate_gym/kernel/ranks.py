"""Upward and downward ranks of a DAG, shared by policies and observations."""

from __future__ import annotations

from fate_gym.jit import Floats, kernel
from fate_gym.kernel.schema import ProblemArrays


@kernel
def upward_ranks(p: ProblemArrays) -> None:
    """Fill ``upward_rank``: w(i) + max over children of (c(i, j) + rank(j)).

    w are mean clean seconds, c mean transfer seconds. Source: Topcuoglu et al. 2002, eq. 8.
    """
    for i in range(p.topological.size - 1, -1, -1):
        s = p.topological[i]
        stage = p.stages[s]
        best = 0.0
        for j in range(stage.children_from, stage.children_to):
            edge = p.edges[p.out_edges[j]]
            best = max(best, edge.mean_seconds + p.stages[edge.child].upward_rank)
        stage.upward_rank = stage.mean_seconds + best


@kernel
def downward_ranks(p: ProblemArrays) -> None:
    """Fill ``downward_rank``: max over parents of (rank(i) + w(i) + c(i, j)).

    Source: Topcuoglu et al. 2002, eq. 9.
    """
    for i in range(p.topological.size):
        stage = p.stages[p.topological[i]]
        best = 0.0
        for e in range(stage.parents_from, stage.parents_to):
            edge = p.edges[e]
            parent = p.stages[edge.parent]
            best = max(best, parent.downward_rank + parent.mean_seconds + edge.mean_seconds)
        stage.downward_rank = best


@kernel
def find_tails(p: ProblemArrays, seconds: Floats, tails: Floats) -> None:
    """Fill ``tails`` with the longest path from each stage's end to the end of its workflow.

    Args:
        p: the problem.
        seconds: (S,) seconds of each stage.
        tails: (S,) filled; 0 where nothing follows.
    """
    for i in range(p.topological.size - 1, -1, -1):
        s = p.topological[i]
        tails[s] = 0.0
        for j in range(p.stages[s].children_from, p.stages[s].children_to):
            child = p.edges[p.out_edges[j]].child
            tails[s] = max(tails[s], seconds[child] + tails[child])
