"""Marks: states along the play of a plan, from which plays of changed plans continue.

Until the first of the changed stages is ready, a changed plan is played exactly as the plan was.
So a search marks the play of the plan that it changes, and the play of a change begins at the last
mark at which no changed stage was ready yet. The outcome is the same to the last bit.
"""

from __future__ import annotations

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.schema import READY, StateArrays
from policies.fate.plans.schema import NEVER, Context, Plan

START = -1
"""In place of a mark: the play begins at the start."""


@inlined
def add_mark(c: Context) -> None:
    """Mark the running play where it stands."""
    ws = c.work
    i = ws.marks_count
    copy_block(StateArrays(ws.mark_states[i]), c.state)
    ws.marks[i].placed = ws.placed
    ws.marks[i].second = ws.second
    for w in range(ws.workflows.size):
        ws.mark_ends[i, w] = ws.workflows[w].end
    ws.marks_count = i + 1
    set_next_mark(c)


@inlined
def set_next_mark(c: Context) -> None:
    """Set where the running play is marked next: marks are about equally far apart."""
    ws = c.work
    step = c.start.known_left // (ws.marks.size + 1) + 1
    ws.next_mark = step * (ws.marks_count + 1) if ws.marks_count < ws.marks.size else NEVER


@inlined
def return_to_mark(c: Context, mark: int) -> None:
    """Continue the running play at a mark."""
    ws = c.work
    copy_block(c.state, StateArrays(ws.mark_states[mark]))
    ws.placed = ws.marks[mark].placed
    ws.second = ws.marks[mark].second
    for w in range(ws.workflows.size):
        ws.workflows[w].end = ws.mark_ends[mark, w]


@kernel
def count_marks(c: Context) -> None:
    """Count for every movable stage the marks at which it is not ready yet."""
    ws = c.work
    for i in range(ws.movable_count):
        ws.marked[ws.movable[i]] = 0
    for mark in range(ws.marks_count):
        st = StateArrays(ws.mark_states[mark])
        for i in range(ws.movable_count):
            s = ws.movable[i]
            ws.marked[s] += st.stages[s].status < READY


@kernel
def last_common_mark(c: Context, plan: Plan, changed: Plan) -> int:
    """Return the last mark up to which two plans are played alike; `START`: there is none."""
    ws = c.work
    alike = ws.marks_count
    for i in range(ws.movable_count):
        s = ws.movable[i]
        if ws.marked[s] < alike and _differ(plan, changed, s):
            alike = ws.marked[s]
    return alike + START


@inlined
def _differ(plan: Plan, changed: Plan, s: int) -> bool:
    a, b = plan.stages[s], changed.stages[s]
    different = a.key != b.key or a.width != b.width or a.not_before != b.not_before
    for k in range(b.width):
        different = different or plan.devices[s, k] != changed.devices[s, k]
        different = different or plan.counts[s, k] != changed.counts[s, k]
    return different
