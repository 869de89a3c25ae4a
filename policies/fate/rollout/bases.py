"""The list schedules from which planning starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import copy_block, kernel
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import LogArrays, ProblemArrays
from policies.fate.plans.edit import FCFS as OLDEST
from policies.fate.plans.edit import RANK, REMAINING, SLACK, STRETCH, unplan
from policies.fate.plans.schema import Context
from policies.list_scheduling.offline import Method, method_tables, plan_workflow
from policies.list_scheduling.play import play
from policies.list_scheduling.rules import (
    DYNAMIC_LEVEL,
    FCFS,
    MAX_MIN,
    MIN_MIN,
    NO_PENALTY,
    NO_PRIORITY,
    PRIORITY,
    STATE,
    STRICT,
    SUFFERAGE,
    UPWARD_RANK,
    Rules,
)
from policies.list_scheduling.tables import tables_of


class Base(NamedTuple):
    """A list schedule: order, strict (1: blind to the state), most devices that share a stage."""

    order: int
    strict: int
    shards: int


Offer = Base | Rules | Method
"""A source of plans: one of our list schedules, a list scheduler's rules, or an offline method."""
OFFLINE: tuple[Method, ...] = ("heft", "cpop", "peft")
"""Only for a single workflow: the devices and order of ``heft_offline``, ``cpop_offline`` and
``peft_offline``, but without waiting for stages that are not ready."""
RULES_COST, AHEAD_COST, LEVELS_COST = 4, 16, 48
"""Cost of a list scheduler's play, without and with look-ahead, relative to one of our plays in
which every stage chooses; and with dynamic levels if many stages are ready at once."""
EXACT: tuple[Rules, ...] = (
    Rules(UPWARD_RANK, STATE, 1, 1),
    Rules(UPWARD_RANK, STRICT, 1, 1),
    Rules(UPWARD_RANK, STATE, 1, 1, ahead=1),
)
"""The rules of ``heft_boosted``, ``heft`` and ``lookahead_heft_boosted``, reproduced bit by bit."""
ALONE: tuple[tuple[str, Rules], ...] = (
    ("", Rules(FCFS, STATE, 0, 1)),
    ("", Rules(SUFFERAGE, STATE, 1, 1)),
    *(
        (table, rules._replace(rule=rule))
        for rule in (STATE, STRICT)
        for table, rules in (
            ("dynamic_level", Rules(DYNAMIC_LEVEL, rule, 1, 1)),
            ("optimistic_cost", Rules(PRIORITY, rule, 1, 1)),
            ("critical_path", Rules(PRIORITY, rule, 1, 1)),
            ("", Rules(MAX_MIN, rule, 1, 1)),
            ("", Rules(MIN_MIN, rule, 0, 1)),
            ("", Rules(SUFFERAGE, rule, 0, 1)),
        )
    ),
    ("", Rules(UPWARD_RANK, STRICT, 1, 1, ahead=1)),
)
"""Only for a single workflow: ``eft``, ``lookahead_heft``, and strict and boosted ``dls``,
``peft``, ``cpop``, ``max_min``, ``min_min`` and ``sufferage`` (also lazy), with their tables."""
TABLES: dict[str, tuple[str, str]] = {
    "dynamic_level": ("dynamic_level", "earliest_finish"),
    "optimistic_cost": ("optimistic_cost", "optimistic_cost"),
    "critical_path": ("path_through", "critical_path"),
}
"""Order and device rule, by the names in `ALONE`."""


def policies_of(p: ProblemArrays) -> tuple[Rules | Method, ...]:
    """Return the policies that propose plans: rules of list schedulers, and offline methods."""
    if p.workflows.size > 1:
        return EXACT
    tables = {name: tables_of(p, 0, *names) for name, names in TABLES.items()}
    tables[""] = (NO_PRIORITY, NO_PENALTY)
    alone = [
        rules._replace(priority=tables[name][0], penalty=tables[name][1]) for name, rules in ALONE
    ]
    return (*EXACT, *OFFLINE, *alone)


def rules_in(rules: Rules, stages: NDArray[np.int64]) -> Rules:
    """Restrict the rules' tables to an excerpt with these stages."""
    if rules.priority.size > 0:
        rules = rules._replace(priority=rules.priority[stages])
    if rules.penalty.size > 0:
        rules = rules._replace(penalty=rules.penalty[stages])
    return rules


def orders_of(p: ProblemArrays) -> tuple[int, ...]:
    """Return the orders of list schedules worth trying; for a single workflow only ranks."""
    return (RANK,) if p.workflows.size == 1 else (RANK, OLDEST, REMAINING, SLACK, STRETCH)


def plays_of(orders: Sequence[int], shards: int) -> tuple[Base, ...]:
    """Return list schedules for each order: state-aware, on one or several devices, and strict."""
    widths = (1, shards) if shards > 1 else (1,)
    return tuple(
        base
        for order in orders
        for base in (*(Base(order, 0, width) for width in widths), Base(order, 1, 1))
    )


@kernel
def plan_by_rules(c: Context, rules: Rules, choices: Placements, log: LogArrays) -> None:
    """Write a list scheduler's plan for all stages not yet placed to ``c.draft``.

    ``log`` needs room for the rows of the whole excerpt; its contents are overwritten.
    """
    copy_block(c.state, c.start)
    first = c.state.shard_rows
    play(c.problem, c.state, log, rules, choices, c.ended, c.log, np.inf)
    copy_block(c.draft, c.best)
    unplan(c.start, c.draft)
    for i in range(first, c.state.shard_rows):
        row = log.shards[i]
        if row.device >= 0:
            planned = c.draft.stages[row.stage]
            planned.width = row.slot + 1
            planned.key = float(i - first)
            planned.not_before = row.committed
            c.draft.devices[row.stage, row.slot] = row.device
            c.draft.counts[row.stage, row.slot] = row.queries


def plan_offline(c: Context, method: Method) -> None:
    """Write an offline schedule of the first workflow, all in the excerpt, to ``c.draft``."""
    p = c.problem
    drains, now = c.start.devices["drains_at"], c.start.now
    # Devices that are down are assumed to be repaired after the mean time to repair.
    available = np.where(drains < np.inf, np.maximum(drains, now), now + p.mttr_s)
    tables = method_tables(p, 0, method)
    made = plan_workflow(p, 0, *tables, available=available, now=now)
    stages = np.flatnonzero(made.device >= 0)
    order = stages[np.lexsort((made.sequence[stages], made.end[stages], made.start[stages]))]
    draft = c.draft.stages
    draft["key"][order] = np.arange(order.size)
    draft["width"][order], draft["not_before"][order] = 1, 0.0
    c.draft.devices[order, 0] = made.device[order]
    c.draft.counts[order, 0] = p.stages["queries"][order]


def cost_of(offer: Offer) -> int:
    """Return the cost of a proposal, in units of a play in which every stage chooses."""
    if isinstance(offer, Base | str):
        return 1
    return AHEAD_COST if offer.ahead else RULES_COST


def most_cost_of(offer: Offer) -> int:
    """Return the cost of a proposal if many stages are ready at once, in the same units."""
    if isinstance(offer, Rules) and offer.order == DYNAMIC_LEVEL:
        return LEVELS_COST
    return cost_of(offer)
