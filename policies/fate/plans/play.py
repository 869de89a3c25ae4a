"""Plays plans to the end of what is known, and says what they are worth.

The kernel of the simulator does what happens; `policies.fate.plans.dispatch` decides.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.advance import advance, next_event_time
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import DONE, SAMPLED, StateArrays
from policies.fate.plans.dispatch import dispatch
from policies.fate.plans.objective import TAIL, objective_value
from policies.fate.plans.schema import Context, Plan, Style

OVERHEAD = 8
"""Work of copying a drawn future."""


@kernel
def play(c: Context, plan: Plan, style: Style, bound: float) -> float:
    """Play a plan from ``c.state`` to the end of what is known; returns the objective.

    ``c.played`` becomes the plan with what its stages chose. inf: the objective will be more than
    ``bound`` (the play is cut short), or the plan waits for ever.
    """
    p, st, ws = c.problem, c.state, c.work
    copy_block(c.played, plan)
    ws.placed = 0
    ws.second = 0.0
    _forget_costs(c)
    for w in range(p.workflows.size):
        ws.workflows[w].end = ws.workflows[w].settled
    bounded = bound < np.inf and style.objective != TAIL
    hopeless = False
    while not hopeless:
        placed = dispatch(c, style) if st.ready_count > 0 else 0
        if placed > 0 and bounded and objective_value(ws, style.objective) > bound:
            hopeless = True
        elif not advance(p, st, c.log):
            break
    ws.work += ws.placed
    if st.origin == SAMPLED and not hopeless:
        _find_drawn_ends(c)
    elif (p.batching or ws.tools) and not hopeless:
        _find_ends(c)
    if hopeless or (style.horizon < 0 and st.known_left > 0):
        return np.inf
    return objective_value(ws, style.objective)


@inlined
def _forget_costs(c: Context) -> None:
    """What was looked up in the play before is of other states."""
    for d in range(c.problem.devices.size):
        c.work.version += 1
        c.work.devices[d].version = c.work.version


@inlined
def _find_ends(c: Context) -> None:
    """What the workflows came to, of which at a placement only a lower bound is known.

    On a batching device others may join, and all end later; tools wait for what they read.
    """
    p, st, ws = c.problem, c.state, c.work
    ws.second = 0.0
    for s in range(p.stages.size):
        if st.stages[s].status == DONE and c.start.stages[s].status != DONE:
            bound = st.stages[s].end + ws.stages[s].tail
            ws.second += bound
            workflow = ws.workflows[p.stages[s].workflow]
            workflow.end = max(workflow.end, bound)


@inlined
def _find_drawn_ends(c: Context) -> None:
    """What the workflows came to in a drawn future, with what runs already."""
    p, st, ws = c.problem, c.state, c.work
    for w in range(p.workflows.size):
        ws.workflows[w].end = 0.0
    for s in range(p.stages.size):
        if st.stages[s].status == DONE and c.start.stages[s].status != DONE:
            workflow = ws.workflows[p.stages[s].workflow]
            workflow.end = max(workflow.end, st.stages[s].end)


@kernel
def start_now(c: Context, plan: Plan, style: Style, out: Placements) -> None:
    """Fill ``out`` with what a plan starts at ``c.start``; ``c.played`` is the plan with that."""
    copy_block(c.state, c.start)
    copy_block(c.played, plan)
    _forget_costs(c)
    out.count = dispatch(c, style)
    for i in range(out.count):
        s = c.work.started[i]
        out.rows[i].stage = s
        out.rows[i].width = c.played.stages[s].width
        for k in range(c.played.stages[s].width):
            out.devices[i, k] = c.played.devices[s, k]
            out.counts[i, k] = c.played.counts[s, k]


@kernel
def value_of(c: Context, plan: Plan, style: Style, bound: float) -> float:
    """The objective of a plan, inf if it is more than ``bound``.

    The plan is played as expected, and ``c.played`` is what the play made of it. With drawn
    futures it is played in these, and their mean counts. There stages without devices choose in
    each future anew, by what is known in it then: what is valued is the list schedule as a policy,
    behind the placements that the plan fixes (rollout; Bertsekas & Castanon 1999, doi
    10.1023/A:1009634810396), and ``c.played`` is the plan itself.
    """
    count = c.work.tuned_on
    if count == 0:
        copy_block(c.state, c.start)
        return play(c, plan, style, bound)
    total = 0.0
    for i in range(count):
        value = value_in(c, plan, style, i, bound * count - total)
        if value == np.inf:
            return value
        total += value
    copy_block(c.played, plan)
    return total / count


@kernel
def value_in(c: Context, plan: Plan, style: Style, future: int, bound: float) -> float:
    """The objective of a plan in one drawn future, inf if it is more than ``bound``."""
    copy_block(c.state, StateArrays(c.work.futures[future]))
    c.work.work += OVERHEAD
    time = next_event_time(c.problem, c.state)
    waits = time < np.inf and starts_nothing(c.start, plan)
    c.work.wait_until = time if waits else 0.0
    return play(c, plan, style, bound)


@inlined
def starts_nothing(st: StateArrays, plan: Plan) -> bool:
    """Whether no ready stage starts before the next event."""
    starting = 0
    for i in range(st.ready_count):
        starting += plan.stages[st.ready[i]].not_before <= st.now
    return starting == 0
