"""Tables that all plays and searches of one event share."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.numbers import event_of
from fate_gym.kernel.schema import DONE, PLACED, TOOL_STAGE, ProblemArrays, StateArrays
from policies.fate.plans.schema import Context, Plan, Workspace


@kernel
def prepare(p: ProblemArrays, st: StateArrays, ws: Workspace) -> None:
    """Fill the depths of stages, which workflows are known, and lower bounds on their ends.

    Args:
        p: the problem.
        st: the state that plays start from.
        ws: the workspace to fill; tails must be set.
    """
    _find_depths(p, st, ws)
    for w in range(p.workflows.size):
        workflow = ws.workflows[w]
        workflow.settled = 0.0
        workflow.known = 2 if st.workflows[w].arrived_at <= st.now else 0
        for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            if st.stages[s].status == DONE:
                workflow.settled = max(workflow.settled, st.stages[s].end + ws.stages[s].tail)
            elif workflow.known > 0:
                workflow.known = 1
    for i in range(st.event_count):
        s, _ = event_of(p, st.events[i].id)
        workflow = ws.workflows[p.stages[s].workflow]
        workflow.settled = max(workflow.settled, st.events[i].time + ws.stages[s].tail)


@inlined
def _find_depths(p: ProblemArrays, st: StateArrays, ws: Workspace) -> None:
    for i in range(p.topological.size):
        s = p.topological[i]
        depth = 0
        for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
            parent = p.edges[e].parent
            if st.stages[parent].status < PLACED:
                depth = max(depth, ws.stages[parent].depth + 1)
        ws.stages[s].depth = depth


@kernel
def find_movable(c: Context, plan: Plan, least: int) -> None:
    """Fill ``movable``: known stages, not yet placed, with at least ``least`` devices in a plan.

    Tools are excluded.
    """
    p, st, ws = c.problem, c.start, c.work
    ws.movable_count = 0
    for s in range(p.stages.size):
        stage = p.stages[s]
        known = st.workflows[stage.workflow].arrived_at <= st.now
        to_place = st.stages[s].status < PLACED and stage.kind != TOOL_STAGE
        if known and to_place and plan.stages[s].width >= least:
            ws.movable[ws.movable_count] = s
            ws.movable_count += 1
