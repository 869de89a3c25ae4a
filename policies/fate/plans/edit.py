"""Changes of plans that searches are made of."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import PLACED, LogArrays, ProblemArrays, StateArrays
from policies.fate.plans.schema import Plan

FIRST_KEY = -1e9
"""Before every key that an order gives."""


@kernel
def unplan(st: StateArrays, plan: Plan) -> None:
    """Let every stage choose that is not placed yet."""
    for s in range(plan.stages.size):
        if st.stages[s].status < PLACED:
            plan.stages[s].width = 0
            plan.stages[s].not_before = 0.0


@kernel
def release(plan: Plan) -> None:
    """Let every stage start as early as its turn comes."""
    for s in range(plan.stages.size):
        plan.stages[s].not_before = 0.0


@kernel
def follow_log(log: LogArrays, first: int, last: int, plan: Plan) -> None:
    """Plan as rows ``first`` to ``last`` of a log have it, commit by commit."""
    for i in range(first, last):
        row = log.shards[i]
        if row.device < 0:
            continue
        plan.stages[row.stage].width = row.slot + 1
        plan.stages[row.stage].key = float(i - first)
        plan.stages[row.stage].not_before = row.committed
        plan.devices[row.stage, row.slot] = row.device
        plan.counts[row.stage, row.slot] = row.queries


@kernel
def put_first(plan: Plan, placements: Placements, row: int, turn: int) -> None:
    """Put a placement in front of a plan, behind those of smaller ``turn``."""
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
