"""Local search: change a complete plan at random and keep improvements."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.schema import PLACED, TOOL_STAGE, ProblemArrays, StateArrays
from policies.fate.plans.marks import START, count_marks, last_common_mark
from policies.fate.plans.objective import EQUAL, MAKESPAN
from policies.fate.plans.play import mark_play, play_from
from policies.fate.plans.prepare import find_movable
from policies.fate.plans.schema import Context, Style, Workspace
from policies.fate.rollout.draws import pick, slack, uniform
from policies.fate.rollout.moves import change

SAME_PATH = 24
"""Changes tried before the path that decides the objective is recomputed."""
TWO_MOVES = 0.25
"""Probability that a change consists of two moves."""


@kernel
def improve(c: Context, style: Style, most_work: int, heat: float) -> float:
    """Improve ``c.best``, in which every known stage is planned; return its new value.

    Changes that leave the value unchanged are kept if the sum of stage ends falls. All plays
    together cost up to ``most_work`` (`Workspace`). With ``heat`` changes may initially worsen the
    plan by about that share; the search continues from ``c.found``, and ``c.best`` stays the best.
    """
    ws = c.work
    start = ws.work
    value = mark_play(c, c.best, style, START)
    copy_block(c.best, c.played)
    copy_block(c.ended, c.state)
    find_movable(c, c.best, 1)
    count_marks(c)
    if ws.movable_count == 0 or value == np.inf:
        return value
    second = ws.second
    copy_block(c.found, c.best)
    current, current_second = value, second
    since, tries = 0, 0
    shards = min(style.shards, c.problem.max_shards)
    while ws.work - start < most_work and tries < most_work:
        if since % SAME_PATH == 0:
            _find_path(c, style.objective)
        since += 1
        tries += 1
        copy_block(c.draft, c.found)
        change(c.problem, c.draft, ws, shards)
        if uniform(ws) < TWO_MOVES:
            change(c.problem, c.draft, ws, shards)
        worse = slack(ws, heat, (ws.work - start) / most_work)
        bound = current * (1.0 + worse + EQUAL) if current >= 0.0 else current + EQUAL
        mark = last_common_mark(c, c.found, c.draft)
        found = play_from(c, c.draft, style, bound, mark)
        better = found < current - EQUAL * abs(current)
        if found > bound or not (better or worse > 0.0 or ws.second < current_second):
            continue
        copy_block(c.found, c.played)
        copy_block(c.ended, c.state)
        current, current_second, since = found, ws.second, 0
        _mark_again(c, style, mark)
        if found < value - EQUAL * abs(value) or (found <= value and current_second < second):
            value, second = found, current_second
            copy_block(c.best, c.played)
    return value


@kernel
def _mark_again(c: Context, style: Style, mark: int) -> None:
    """Mark the play of ``c.found``, which is that of the plan before up to ``mark``."""
    if c.work.marks.size == 0:
        return
    work = c.work.work
    mark_play(c, c.found, style, mark)
    count_marks(c)
    c.work.work = work


@kernel
def _find_path(c: Context, objective: int) -> None:
    """Fill ``path`` with the movable stages that decide the last end, walking back from it.

    The last stage is that of ``c.ended``, or of a random workflow unless the objective is the
    makespan. A stage is held up by the stage before it on its device, or else by its last parent.
    """
    p, st, ws = c.problem, c.ended, c.work
    ws.path_length = 0
    s = _last_stage(p, st, ws, objective)
    while s >= 0 and c.start.stages[s].status < PLACED and ws.path_length < ws.movable_count:
        turn, device = st.stages[s].ready_at, -1
        if p.stages[s].kind != TOOL_STAGE:
            ws.path[ws.path_length] = s
            ws.path_length += 1
            latest = -1.0
            for k in range(st.stages[s].shards):
                slot = st.slots[s, k]
                if slot.start + slot.busy > latest:
                    latest = slot.start + slot.busy
                    turn, device = slot.start, slot.device
        if device >= 0 and turn > st.stages[s].ready_at + 1e-9:
            s = _stage_before(st, ws, s, device, turn)
        else:
            s = _last_parent(p, st, s)


@inlined
def _last_stage(p: ProblemArrays, st: StateArrays, ws: Workspace, objective: int) -> int:
    workflow = -1
    if objective != MAKESPAN:
        workflow = p.stages[ws.movable[pick(ws, ws.movable_count)]].workflow
    last, end = -1, -1.0
    for i in range(ws.movable_count):
        s = ws.movable[i]
        if (workflow < 0 or p.stages[s].workflow == workflow) and st.stages[s].end > end:
            last, end = s, st.stages[s].end
    return last


@inlined
def _stage_before(st: StateArrays, ws: Workspace, s: int, device: int, turn: float) -> int:
    """Find the movable stage that ends on a device just when ``s`` starts there; -1: none."""
    before = -1
    for i in range(ws.movable_count):
        u = ws.movable[i]
        if u == s:
            continue
        for k in range(st.stages[u].shards):
            slot = st.slots[u, k]
            if slot.device == device and abs(slot.start + slot.busy - turn) < 1e-6:
                before = u
    return before


@inlined
def _last_parent(p: ProblemArrays, st: StateArrays, s: int) -> int:
    last, end = -1, -1.0
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        parent = p.edges[e].parent
        if st.stages[parent].end > end:
            last, end = parent, st.stages[parent].end
    return last
