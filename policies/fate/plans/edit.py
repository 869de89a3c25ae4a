"""Edits of plans: write list schedules, put placements first, change single stages."""

from __future__ import annotations

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import PLACED, ProblemArrays, StateArrays
from policies.fate.plans.schema import Context, Plan

FIRST_KEY = -1e9
"""Smaller than any key of an order."""
RANK, FCFS, REMAINING, SLACK, STRETCH = 0, 1, 2, 3, 4
"""Orders of list schedules (see `plan_by_order`)."""


@kernel
def unplan(st: StateArrays, plan: Plan) -> None:
    """Clear the devices of all stages that are not placed yet, so that they choose their own."""
    for s in range(plan.stages.size):
        if st.stages[s].status < PLACED:
            plan.stages[s].width = 0
            plan.stages[s].not_before = 0.0


@kernel
def put_first(plan: Plan, placements: Placements, row: int, turn: int) -> None:
    """Put a placement at the front of a plan, after those of smaller ``turn``."""
    s, width = placements.rows[row].stage, placements.rows[row].width
    plan.stages[s].width = width
    plan.stages[s].key = float(turn) + FIRST_KEY
    plan.stages[s].not_before = 0.0
    for k in range(width):
        plan.devices[s, k] = placements.devices[row, k]
        plan.counts[s, k] = placements.counts[row, k]


@inlined
def put_on(p: ProblemArrays, plan: Plan, s: int, d: int) -> None:
    """Plan stage ``s`` on device ``d`` alone."""
    plan.stages[s].width = 1
    plan.stages[s].not_before = 0.0
    plan.devices[s, 0] = d
    plan.counts[s, 0] = p.stages[s].queries


@kernel
def plan_by_order(c: Context, order: int, plan: Plan) -> None:
    """Turn ``plan`` into a list schedule: stages not yet placed choose their devices, in an order.

    ``RANK``: largest upward rank first. ``FCFS``: workflows by arrival, then by rank.
    ``REMAINING``: workflows with the least work left first, then by rank. ``SLACK``: by the latest
    time at which the stage may start if its workflow is to take twice as long as it would alone.
    ``STRETCH``: largest (waited + left) / alone first, then by rank.
    """
    p, st = c.problem, c.start
    copy_block(plan, c.best)
    unplan(st, plan)
    longest = 1e-9
    for s in range(p.stages.size):
        longest = max(longest, p.stages[s].upward_rank)
    for w in range(p.workflows.size):
        workflow, arrived_at = p.workflows[w], st.workflows[w].arrived_at
        if arrived_at > st.now:
            continue
        left, rank = _what_is_left(p, st, w)
        alone = c.work.workflows[w].alone
        for s in range(workflow.stages_from, workflow.stages_to):
            if st.stages[s].status >= PLACED:
                continue
            own = p.stages[s].upward_rank
            inside = 0.5 * own / longest
            if order == RANK:
                key = -own
            elif order == FCFS:
                key = arrived_at - inside * 1e-3
            elif order == REMAINING:
                key = left - inside * 1e-3
            elif order == SLACK:
                key = arrived_at + 2.0 * alone - own
            else:
                waited = st.now - arrived_at
                key = -(waited + rank) / max(alone, 1e-9) - inside * 1e-3
            plan.stages[s].key = key


@inlined
def _what_is_left(p: ProblemArrays, st: StateArrays, w: int) -> tuple[float, float]:
    """Sum of mean seconds, and largest rank, of a workflow's stages that are not placed yet."""
    left, rank = 0.0, 0.0
    for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
        if st.stages[s].status < PLACED:
            left += p.stages[s].mean_seconds
            rank = max(rank, p.stages[s].upward_rank)
    return left, rank


@kernel
def shift_keys(c: Context, plan: Plan) -> None:
    """Set the keys of stages not yet placed to those of ``c.base`` plus the biases' shifts."""
    for s in range(plan.stages.size):
        if c.start.stages[s].status < PLACED:
            key = c.base.stages[s].key + c.biases.kinds[c.work.stages[s].kind].shift
            plan.stages[s].key = key + c.biases.shifts[c.problem.stages[s].workflow]
