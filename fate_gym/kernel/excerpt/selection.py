"""Which parts of a run belong to an excerpt, and how they are numbered.

* the stages of arrived workflows that have not ended;
* their parents, whose outputs lie somewhere;
* finished stages whose contexts are cached, and all cached prefixes: they take memory;
* the prefix keys that these stages use, and their ancestors.

Until a workflow arrives nothing can be added. Numbers keep their order: of two stages, the one with
the smaller number in the excerpt also has it in the problem.
"""

from __future__ import annotations

from typing import Any

from fate_gym.jit import Block, inlined, kernel, scalar, table
from fate_gym.kernel.numbers import first_context_entry, prefix_entry, slot_of
from fate_gym.kernel.schema import DONE, ProblemArrays, StateArrays

ABSENT, TAKEN = -1, 0


class Numbers(Block):
    """The numbering of an excerpt. Arrays are sized for the whole problem."""

    stages_count: int = scalar("i8", "stages of the excerpt")
    workflows_count: int = scalar("i8", "its workflows")
    prefixes_count: int = scalar("i8", "its prefix keys")
    edges_count: int = scalar("i8", "its edges")

    stage_at: Any = table("i8", "S", text="number in the excerpt, -1: does not belong to it")
    workflow_at: Any = table("i8", "W", text="the same of workflows")
    prefix_at: Any = table("i8", "Q", text="the same of prefix keys")
    stages: Any = table("i8", "S", text="numbers in the problem; the first `stages_count` count")
    workflows: Any = table("i8", "W", text="the same of workflows")
    prefixes: Any = table("i8", "Q", text="the same of prefix keys")


def new_numbers(p: ProblemArrays) -> Numbers:
    """Allocate room for the numbers of any excerpt of a problem."""
    return Numbers.allocate(S=p.stages.size, W=p.workflows.size, Q=p.prefixes.size)


@kernel
def select(p: ProblemArrays, st: StateArrays, numbers: Numbers) -> None:
    """Find what belongs to the excerpt of a state, and number it."""
    for s in range(p.stages.size):
        numbers.stage_at[s] = ABSENT
    for w in range(p.workflows.size):
        numbers.workflow_at[w] = ABSENT
    for q in range(p.prefixes.size):
        numbers.prefix_at[q] = ABSENT
    for i in range(st.arrived_count):
        if st.workflows[st.arrived[i]].left > 0:
            _take_workflow(p, st, st.arrived[i], numbers)
    _take_cached(p, st, numbers)
    _number(p, st, numbers)


@inlined
def _take_workflow(p: ProblemArrays, st: StateArrays, w: int, numbers: Numbers) -> None:
    numbers.workflow_at[w] = TAKEN
    for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
        if st.stages[s].status < DONE:
            numbers.stage_at[s] = TAKEN
            for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
                numbers.stage_at[p.edges[e].parent] = TAKEN


@inlined
def _take_cached(p: ProblemArrays, st: StateArrays, numbers: Numbers) -> None:
    first = first_context_entry(p)
    for d in range(p.devices.size):
        entry = st.devices[d].oldest
        while entry >= 0:
            if entry < first:
                _take_path(p, entry - prefix_entry(p, d, 0), numbers)
            else:
                s, _ = slot_of(p, entry - first)
                numbers.stage_at[s] = TAKEN
                numbers.workflow_at[p.stages[s].workflow] = TAKEN
            entry = st.newer[entry]


@inlined
def _take_path(p: ProblemArrays, q: int, numbers: Numbers) -> None:
    while q >= 0 and numbers.prefix_at[q] == ABSENT:
        numbers.prefix_at[q] = TAKEN
        q = p.prefixes[q].parent


@inlined
def _number(p: ProblemArrays, st: StateArrays, numbers: Numbers) -> None:
    """Number what was selected, and count it."""
    count, flows, edges = 0, 0, 0
    for w in range(p.workflows.size):
        if numbers.workflow_at[w] == ABSENT:
            continue
        numbers.workflow_at[w] = flows
        numbers.workflows[flows] = w
        flows += 1
        for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            if numbers.stage_at[s] == ABSENT:
                continue
            numbers.stage_at[s] = count
            numbers.stages[count] = s
            count += 1
            if st.stages[s].status < DONE:
                edges += p.stages[s].parents_to - p.stages[s].parents_from
            _take_path(p, p.stages[s].prefix, numbers)
            _take_path(p, p.stages[s].written, numbers)
    keys = 0
    for q in range(p.prefixes.size):
        if numbers.prefix_at[q] == TAKEN:
            numbers.prefix_at[q] = keys
            numbers.prefixes[keys] = q
            keys += 1
    numbers.stages_count, numbers.workflows_count = count, flows
    numbers.prefixes_count, numbers.edges_count = keys, edges
