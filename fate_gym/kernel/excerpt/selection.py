"""What belongs to an excerpt, and its numbers.

* the stages of arrived workflows that have not ended: all, or those that may begin soonest;
* their parents, whose outputs lie somewhere;
* finished stages whose contexts are cached, and all prefixes that are: they take memory;
* the keys of prefixes that these stages use, and their ancestors.

Numbers keep their order: of two stages of an excerpt the one with the smaller number has the smaller
number in the problem too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fate_gym.jit import Block, inlined, kernel, scalar, table
from fate_gym.kernel.numbers import first_context_entry, prefix_entry, slot_of
from fate_gym.kernel.schema import DONE, PLACED, TOOL_STAGE, ProblemArrays, StateArrays

CLASSES = 1024
"""Into so many classes the unplaced stages go by when they may begin."""
ABSENT, TAKEN = -1, 0


class Numbers(Block):
    """The numbers of an excerpt. Shapes are those of the whole problem."""

    stages_count: int = scalar("i8", "stages of the excerpt")
    workflows_count: int = scalar("i8", "its workflows")
    prefixes_count: int = scalar("i8", "its prefix keys")
    edges_count: int = scalar("i8", "its edges")
    unplaced: int = scalar("i8", "its stages that are not placed")
    cut: int = scalar("i8", "stages of its workflows that it leaves out")

    stage_at: Any = table("i8", "S", text="number in the excerpt, -1: does not belong to it")
    workflow_at: Any = table("i8", "W", text="the same of workflows")
    prefix_at: Any = table("i8", "Q", text="the same of prefix keys")
    stages: Any = table("i8", "S", text="numbers in the problem; the first `stages_count` count")
    workflows: Any = table("i8", "W", text="the same of workflows")
    prefixes: Any = table("i8", "Q", text="the same of prefix keys")
    begins: Any = table("f8", "S", unit="s", text="from now, when a stage that waits may begin")
    work: Any = table("f8", "W", unit="s", text="what is left of a workflow; scratch")
    order: Any = table("i8", "W", text="workflows in flight, least work first")
    classes: Any = table("i8", CLASSES, text="stages of each class")


def new_numbers(p: ProblemArrays) -> Numbers:
    """Room for the numbers of excerpts of a problem."""
    return Numbers.allocate(S=p.stages.size, W=p.workflows.size, Q=p.prefixes.size)


@kernel
def select(p: ProblemArrays, st: StateArrays, most: int, numbers: Numbers) -> None:
    """Find what belongs to the excerpt of a state.

    Args:
        p: the problem.
        st: the state.
        most: stages that are not placed; of more those that may begin soonest belong to it, of those
            the ones of workflows with little left. So a stage never comes without its parents.
        numbers: filled.
    """
    for s in range(p.stages.size):
        numbers.stage_at[s] = ABSENT
    for w in range(p.workflows.size):
        numbers.workflow_at[w] = ABSENT
    for q in range(p.prefixes.size):
        numbers.prefix_at[q] = ABSENT
    flying, unplaced = _look_ahead(p, st, numbers)
    if unplaced <= most:
        last, room = CLASSES - 1, unplaced
    else:
        last, room = _find_last_class(p, st, flying, most, numbers)
    for i in range(flying):
        room = _take_workflow(p, st, numbers.order[i], last, room, numbers)
    _take_cached(p, st, numbers)
    _number(p, st, numbers)
    numbers.cut = unplaced - numbers.unplaced


@inlined
def _look_ahead(p: ProblemArrays, st: StateArrays, numbers: Numbers) -> tuple[int, int]:
    """Find when stages may begin, and the order of workflows; returns how many of both there are.

    The stages are those that are not placed.
    """
    flying, unplaced = 0, 0
    for i in range(st.arrived_count):
        w = st.arrived[i]
        if st.workflows[w].left == 0:
            continue
        work = 0.0
        for j in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            s = p.topological[j]
            if st.stages[s].status >= PLACED:
                continue
            unplaced += 1
            work += _seconds(p, s)
            begins = 0.0
            for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
                parent = p.edges[e].parent
                if st.stages[parent].status == PLACED:
                    begins = max(begins, _seconds(p, parent))
                elif st.stages[parent].status < PLACED:
                    begins = max(begins, numbers.begins[parent] + _seconds(p, parent))
            numbers.begins[s] = begins
        numbers.work[w] = work
        j = flying
        while j > 0 and numbers.work[numbers.order[j - 1]] > work:
            numbers.order[j] = numbers.order[j - 1]
            j -= 1
        numbers.order[j] = w
        flying += 1
    return flying, unplaced


@inlined
def _seconds(p: ProblemArrays, s: int) -> float:
    if p.stages[s].kind == TOOL_STAGE:
        return float(p.stages[s].tool_seconds)
    return float(p.stages[s].mean_seconds)


@kernel
def _find_last_class(
    p: ProblemArrays, st: StateArrays, flying: int, most: int, numbers: Numbers
) -> tuple[int, int]:
    """The last class of which stages are taken, and how many of it."""
    for c in range(CLASSES):
        numbers.classes[c] = 0
    for i in range(flying):
        w = numbers.order[i]
        for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            if st.stages[s].status < PLACED:
                numbers.classes[_class_of(numbers.begins[s])] += 1
    last, room = 0, most
    while numbers.classes[last] < room:
        room -= numbers.classes[last]
        last += 1
    return last, room


@inlined
def _class_of(begins: float) -> int:
    """0 for what may begin now, then by the logarithm of the seconds: a millisecond to 30 years."""
    if begins <= 0.0:
        return 0
    place = int((np.log(begins) + 7.0) * (CLASSES - 2) / 28.0)
    return 1 + max(0, min(CLASSES - 2, place))


@inlined
def _take_workflow(
    p: ProblemArrays, st: StateArrays, w: int, last: int, room: int, numbers: Numbers
) -> int:
    """Take a workflow's stages up to class ``last``, of that one ``room``; what is left of it."""
    for j in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
        s = p.topological[j]
        if st.stages[s].status == DONE:
            continue
        if st.stages[s].status < PLACED:
            c = _class_of(numbers.begins[s])
            if c > last or (c == last and room == 0):
                continue
            if c == last:
                room -= 1
        numbers.stage_at[s] = TAKEN
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            numbers.stage_at[p.edges[e].parent] = TAKEN
    numbers.workflow_at[w] = TAKEN
    return room


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
    """Number what has been taken, and count it."""
    count, flows, edges, unplaced = 0, 0, 0, 0
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
            unplaced += st.stages[s].status < PLACED
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
    numbers.unplaced = unplaced
