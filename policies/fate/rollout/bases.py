"""The list schedules that plans begin with."""

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
from policies.list_scheduling.play import NEVER, play
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
    """A list schedule: an order, whether it sees the state, and devices that share a stage."""

    order: int
    strict: int
    shards: int


Offer = Base | Rules | Method
"""What may offer a plan: a list schedule of ours, a list scheduler, or one of whole schedules."""
OFFLINE: tuple[Method, ...] = ("heft", "cpop", "peft")
"""For a workflow alone also the devices and the order of ``heft_offline``, ``cpop_offline`` and
``peft_offline``, who do not wait here for a stage that is not ready."""
RULES_COST, AHEAD_COST = 4, 16
"""What the play of a list scheduler costs, looking ahead or not, in plays of ours that choose."""
EXACT: tuple[Rules, ...] = (
    Rules(UPWARD_RANK, STATE, 1, 1),
    Rules(UPWARD_RANK, STRICT, 1, 1),
    Rules(UPWARD_RANK, STATE, 1, 1, ahead=1),
)
"""The policies ``heft_boosted``, ``heft`` and ``lookahead_heft_boosted``, to the last bit."""
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
"""For a workflow alone also ``eft``, ``lookahead_heft``, and strict and boosted ``dls``, ``peft``,
``cpop``, ``max_min``, ``min_min`` and ``sufferage`` (that one lazy too), with their tables."""
TABLES: dict[str, tuple[str, str]] = {
    "dynamic_level": ("dynamic_level", "earliest_finish"),
    "optimistic_cost": ("optimistic_cost", "optimistic_cost"),
    "critical_path": ("path_through", "critical_path"),
}
"""Order and rule for the device, by the names in `ALONE`."""


def policies_of(p: ProblemArrays) -> tuple[Rules | Method, ...]:
    """The policies whose plans are offered: list schedulers by their rules."""
    if p.workflows.size > 1:
        return EXACT
    tables = {name: tables_of(p, 0, *names) for name, names in TABLES.items()}
    tables[""] = (NO_PRIORITY, NO_PENALTY)
    alone = [
        rules._replace(priority=tables[name][0], penalty=tables[name][1]) for name, rules in ALONE
    ]
    return (*EXACT, *OFFLINE, *alone)


def rules_in(rules: Rules, stages: NDArray[np.int64]) -> Rules:
    """The rules with the tables of an excerpt, whose stages have these numbers."""
    if rules.priority.size > 0:
        rules = rules._replace(priority=rules.priority[stages])
    if rules.penalty.size > 0:
        rules = rules._replace(penalty=rules.penalty[stages])
    return rules


def orders_of(p: ProblemArrays) -> tuple[int, ...]:
    """Orders of list schedules worth a try; of one workflow alone only ranks are."""
    return (RANK,) if p.workflows.size == 1 else (RANK, OLDEST, REMAINING, SLACK, STRETCH)


def plays_of(orders: Sequence[int], shards: int) -> tuple[Base, ...]:
    """List schedules of each order: that see the state, on one device or several, and strict."""
    widths = (1, shards) if shards > 1 else (1,)
    return tuple(
        base
        for order in orders
        for base in (*(Base(order, 0, width) for width in widths), Base(order, 1, 1))
    )


@kernel
def plan_by_rules(c: Context, rules: Rules, choices: Placements, log: LogArrays) -> None:
    """Let ``c.draft`` be the plan of a list scheduler, for all that is not placed.

    ``log`` has room for the rows of the run so far and of what is left; its content is lost.
    """
    copy_block(c.state, c.start)
    first = c.state.shard_rows
    play(c.problem, c.state, log, rules, choices, c.ended, c.log, NEVER)
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
    """Let ``c.draft`` be a whole schedule of the first workflow, all of whose stages are there."""
    p = c.problem
    drains, now = c.start.devices["drains_at"], c.start.now
    # Devices that are down are repaired after the mean time.
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
    """What it costs to let a list schedule offer a plan, in plays in which every stage chooses."""
    if isinstance(offer, Base | str):
        return 1
    return AHEAD_COST if offer.ahead else RULES_COST
