"""Fill an excerpt's problem."""

from __future__ import annotations

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.excerpt.selection import ABSENT, Numbers
from fate_gym.kernel.schema import DONE, ProblemArrays, StateArrays


@inlined
def number_in(places: Ints, number: int) -> int:
    """Return a problem number's counterpart in the excerpt, -1 if there is none."""
    return places[number] if number >= 0 else ABSENT


@kernel
def fill_problem(p: ProblemArrays, st: StateArrays, numbers: Numbers, out: ProblemArrays) -> None:
    """Fill the parts that an excerpt has of its own: stages, edges, workflows, prefixes.

    ``out`` may have more room than needed. Surplus stages belong to no workflow, and the state
    marks them done. No workflow arrives.
    """
    _fill_workflows(p, numbers, out)
    _fill_stages(p, st, numbers, out)
    _fill_out_edges(numbers, out)
    _fill_orders(p, numbers, out)
    for i in range(out.prefixes.size):
        out.prefixes[i].parent = ABSENT
        if i < numbers.prefixes_count:
            key = p.prefixes[numbers.prefixes[i]]
            out.prefixes[i].model = key.model
            out.prefixes[i].start = key.start
            out.prefixes[i].parent = number_in(numbers.prefix_at, key.parent)


@inlined
def _fill_workflows(p: ProblemArrays, numbers: Numbers, out: ProblemArrays) -> None:
    at = 0
    for i in range(out.workflows.size):
        first = at
        if i < numbers.workflows_count:
            w = numbers.workflows[i]
            out.workflows[i] = p.workflows[w]
            while at < numbers.stages_count and p.stages[numbers.stages[at]].workflow == w:
                at += 1
        out.workflows[i].stages_from = first
        out.workflows[i].stages_to = at
        out.workflows[i].followers_from = 0
        out.workflows[i].followers_to = 0


@inlined
def _fill_stages(p: ProblemArrays, st: StateArrays, numbers: Numbers, out: ProblemArrays) -> None:
    """Fill stages with their costs, and the edges to stages that have not ended."""
    edges = 0
    for i in range(numbers.stages_count):
        s = numbers.stages[i]
        out.stages[i] = p.stages[s]
        stage = out.stages[i]
        stage.workflow = numbers.workflow_at[p.stages[s].workflow]
        stage.prefix = number_in(numbers.prefix_at, stage.prefix)
        stage.written = number_in(numbers.prefix_at, stage.written)
        stage.chooser = number_in(numbers.stage_at, stage.chooser)
        stage.parents_from = edges
        if st.stages[s].status < DONE:
            for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
                out.edges[edges] = p.edges[e]
                out.edges[edges].parent = numbers.stage_at[p.edges[e].parent]
                out.edges[edges].child = i
                edges += 1
        stage.parents_to = edges
        for d in range(p.devices.size):
            out.batch[i, d] = p.batch[s, d]
            out.clean_seconds[i, d] = p.clean_seconds[s, d]
            out.decode_seconds[i, d] = p.decode_seconds[s, d]
    for i in range(numbers.stages_count, out.stages.size):
        stage = out.stages[i]
        stage.model = stage.prefix = stage.written = stage.chooser = ABSENT
        stage.parents_from = stage.parents_to = edges
        stage.workflow = 0


@inlined
def _fill_out_edges(numbers: Numbers, out: ProblemArrays) -> None:
    """Order edge numbers by parent, then by child."""
    count = numbers.edges_count
    for i in range(out.stages.size):
        out.stages[i].children_from = out.stages[i].children_to = 0
    for e in range(count):
        out.stages[out.edges[e].parent].children_to += 1
    at = 0
    for i in range(out.stages.size):
        size = out.stages[i].children_to
        out.stages[i].children_from = out.stages[i].children_to = at
        at += size
    for e in range(count):
        parent = out.stages[out.edges[e].parent]
        out.out_edges[parent.children_to] = e
        parent.children_to += 1


@inlined
def _fill_orders(p: ProblemArrays, numbers: Numbers, out: ProblemArrays) -> None:
    """Fill the topological order, workflow by workflow as in the problem, and the rank order."""
    count = 0
    for i in range(numbers.workflows_count):
        w = numbers.workflows[i]
        for j in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            if numbers.stage_at[p.topological[j]] != ABSENT:
                out.topological[count] = numbers.stage_at[p.topological[j]]
                count += 1
    ranked = 0
    for j in range(p.by_rank.size):
        if numbers.stage_at[p.by_rank[j]] != ABSENT:
            out.by_rank[ranked] = numbers.stage_at[p.by_rank[j]]
            ranked += 1
    for i in range(count, out.topological.size):
        out.topological[i] = out.by_rank[i] = i
