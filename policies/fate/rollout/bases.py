"""The list schedules that plans begin with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import copy_block, kernel
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import LogArrays, ProblemArrays
from policies.fate.plans.edit import FCFS, RANK, REMAINING, SLACK, STRETCH, unplan
from policies.fate.plans.schema import Context
from policies.list_scheduling.play import play
from policies.list_scheduling.rules import (
    DYNAMIC_LEVEL,
    MAX_MIN,
    STATE,
    STRICT,
    SUFFERAGE,
    UPWARD_RANK,
    Rules,
)
from policies.list_scheduling.tables import dynamic_levels


class Base(NamedTuple):
    """A list schedule: an order, whether it sees the state, and devices that share a stage."""

    order: int
    strict: int
    shards: int


EXACT: tuple[Rules, ...] = (
    Rules(UPWARD_RANK, STATE, 1, 1),
    Rules(UPWARD_RANK, STRICT, 1, 1),
    Rules(UPWARD_RANK, STATE, 1, 1, ahead=1),
)
"""The policies ``heft_boosted``, ``heft`` and ``lookahead_heft_boosted``, to the last bit."""
RENEWED: tuple[Rules, ...] = (
    Rules(DYNAMIC_LEVEL, STATE, 1, 1),
    Rules(MAX_MIN, STATE, 1, 1),
    Rules(SUFFERAGE, STATE, 1, 1),
)
"""For a workflow alone also ``dls_boosted``, ``max_min_boosted`` and a lazy ``sufferage_boosted``.

They see which stages read the same prefix, as ranks do not: chosen on suite prefix_reuse, seed 100
(its results are of other seeds)."""


def policies_of(p: ProblemArrays) -> tuple[Rules, ...]:
    """The rules of the list schedulers whose plans are offered as they are."""
    if p.workflows.size > 1:
        return EXACT
    levels = np.zeros(p.stages.size)
    dynamic_levels(p, 0, levels)
    return EXACT + tuple(
        rules._replace(priority=levels) if rules.order == DYNAMIC_LEVEL else rules
        for rules in RENEWED
    )


def rules_in(rules: Rules, stages: NDArray[np.int64]) -> Rules:
    """The rules with the tables of an excerpt, whose stages have these numbers."""
    if rules.priority.size == 0:
        return rules
    return rules._replace(priority=rules.priority[stages])


def orders_of(p: ProblemArrays) -> tuple[int, ...]:
    """Orders of list schedules worth a try; of one workflow alone only ranks are."""
    return (RANK,) if p.workflows.size == 1 else (RANK, FCFS, REMAINING, SLACK, STRETCH)


@kernel
def plan_by_rules(c: Context, rules: Rules, choices: Placements, log: LogArrays) -> None:
    """Let ``c.draft`` be the plan of a list scheduler, for all that is not placed.

    ``log`` has room for the rows of the run so far and of what is left; its content is lost.
    """
    copy_block(c.state, c.start)
    first = c.state.shard_rows
    play(c.problem, c.state, log, rules, choices, c.ended, c.log)
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
