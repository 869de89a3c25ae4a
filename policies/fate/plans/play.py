"""Plays plans to the end of the known work and values them.

The simulator's kernel advances the state; `policies.fate.plans.dispatch` makes the decisions.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.advance import advance, next_event_time
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import DONE, SAMPLED, StateArrays
from policies.fate.plans.dispatch import dispatch
from policies.fate.plans.marks import START, add_mark, return_to_mark, set_next_mark
from policies.fate.plans.objective import TAIL, objective_value
from policies.fate.plans.schema import NEVER, Context, Plan, Style

OVERHEAD = 8
"""Work counted for copying a drawn future."""


@kernel
def play(c: Context, plan: Plan, style: Style, bound: float) -> float:
    """Play a plan from ``c.state`` to the end of the known work; return the objective.

    ``c.played`` becomes the plan with the choices its stages made. inf: the objective would exceed
    ``bound`` (the play is cut short), or the plan waits forever.
    """
    p, ws = c.problem, c.work
    copy_block(c.played, plan)
    ws.placed = 0
    ws.second = 0.0
    for w in range(p.workflows.size):
        ws.workflows[w].end = ws.workflows[w].settled
    return _play_on(c, style, bound)


@kernel
def play_from(c: Context, plan: Plan, style: Style, bound: float, mark: int) -> float:
    """Do the same from a mark on, or from ``c.start`` (`START`).

    The work of the part before the mark counts too, so that it does not matter where marks are.
    """
    if mark == START:
        copy_block(c.state, c.start)
        return play(c, plan, style, bound)
    copy_block(c.played, plan)
    return_to_mark(c, mark)
    return _play_on(c, style, bound)


@kernel
def mark_play(c: Context, plan: Plan, style: Style, mark: int) -> float:
    """Play a plan, keeping the marks up to ``mark`` and setting new ones from there on."""
    c.work.marks_count = mark - START
    set_next_mark(c)
    value = play_from(c, plan, style, np.inf, mark)
    c.work.next_mark = NEVER
    return value


@kernel
def _play_on(c: Context, style: Style, bound: float) -> float:
    p, st, ws = c.problem, c.state, c.work
    begin_play(c)
    bounded = bound < np.inf and style.objective != TAIL
    hopeless = False
    while not hopeless:
        if ws.placed >= ws.next_mark:
            add_mark(c)
        placed = dispatch(c, style) if st.ready_count > 0 else 0
        if placed > 0 and bounded and objective_value(ws, style.objective) > bound:
            hopeless = True
        elif not advance(p, st, c.log):
            break
    ws.work += ws.placed * ws.stage_work
    if st.origin == SAMPLED and not hopeless:
        _find_drawn_ends(c)
    elif (p.batching or ws.tools) and not hopeless:
        _find_ends(c)
    if hopeless or (style.horizon < 0 and st.known_left > 0):
        return np.inf
    return objective_value(ws, style.objective)


@inlined
def begin_play(c: Context) -> None:
    """Forget the costs and the order of the previous play: they are for other states."""
    c.work.plays += 1
    c.work.ordered = -1
    for d in range(c.problem.devices.size):
        c.work.version += 1
        c.work.devices[d].version = c.work.version


@inlined
def _find_ends(c: Context) -> None:
    """Find the workflows' actual ends: at a placement only a lower bound is known.

    On a batching device stages that join later delay the others; tools wait for their inputs.
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
    """Find the workflows' ends in a drawn future, including stages that already run."""
    p, st, ws = c.problem, c.state, c.work
    for w in range(p.workflows.size):
        ws.workflows[w].end = 0.0
    for s in range(p.stages.size):
        if st.stages[s].status == DONE and c.start.stages[s].status != DONE:
            workflow = ws.workflows[p.stages[s].workflow]
            workflow.end = max(workflow.end, st.stages[s].end)


@kernel
def start_now(c: Context, plan: Plan, style: Style, out: Placements) -> None:
    """Fill ``out`` with what a plan starts at ``c.start``; ``c.played`` is the resulting plan."""
    copy_block(c.state, c.start)
    copy_block(c.played, plan)
    begin_play(c)
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
    """Compute the objective of a plan; inf if it exceeds ``bound``.

    Without drawn futures the plan is played with expected times, and ``c.played`` is the outcome.
    With drawn futures it is played in each of them, and the mean is returned. Stages without
    devices then choose anew in each future, by what is known there at that time: this values the
    list schedule as a policy that follows the placements fixed by the plan (rollout; Bertsekas &
    Castanon 1999, doi 10.1023/A:1009634810396), and ``c.played`` is the plan itself.
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
    """Compute the objective of a plan in one drawn future; inf if it exceeds ``bound``."""
    copy_block(c.state, StateArrays(c.work.futures[future]))
    c.work.work += OVERHEAD
    time = next_event_time(c.problem, c.state)
    waits = time < np.inf and starts_nothing(c.start, plan)
    c.work.wait_until = time if waits else 0.0
    return play(c, plan, style, bound)


@inlined
def starts_nothing(st: StateArrays, plan: Plan) -> bool:
    """Whether the plan holds back every ready stage (all have a later ``not_before``)."""
    starting = 0
    for i in range(st.ready_count):
        starting += plan.stages[st.ready[i]].not_before <= st.now
    return starting == 0
