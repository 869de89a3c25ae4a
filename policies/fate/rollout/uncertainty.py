"""Decisions under uncertainty: tuning and candidates for a list schedule, tested in drawn futures.

At an event:

1. **Futures** are drawn anew, some for tuning and some for testing. All alternatives are compared
   in the same futures. Even there the remaining time of a running shard is not known in advance,
   only how long it has run.
2. **Order.** When work arrives, the list schedule takes the order that is best in the futures for
   testing.
3. **Biases** are tuned (`policies.fate.rollout.tuning`) in the futures for tuning, and kept if they
   gain in those for testing. Biases that have become harmful there are dropped.
4. **Candidates** race (`policies.fate.rollout.race`): the winner is put in front of the list
   schedule, and this is repeated until none gains.

A gain counts only if its mean is `DOUBT` standard errors above 0: otherwise the best of many would
be the most over-optimistic one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.placements import Placements, new_placements
from fate_gym.kernel.schema import PLACED, ProblemArrays
from policies.fate.plans.edit import put_first
from policies.fate.plans.schema import Biases, Style, prefer_nothing
from policies.fate.rollout.candidates import list_candidates, put_candidate
from policies.fate.rollout.incumbent import Incumbent
from policies.fate.rollout.race import leave_out, race, value_plan

DOUBT = 2.0
"""Number of standard errors by which a mean gain must exceed 0."""
ROUNDS = 4
"""Most candidates that are put in front at one event."""
FIRST, STEPS = 3_000, 400
"""Work per event and test future: after an arrival, otherwise. Unused work is saved.

Chosen on suites uncertain_train and uncertain_dag_train, with `DOUBT` (docs/fate.md)."""
CHANGES = 20
"""Tuning starts only when there is enough work for this many changes."""
RACERS = 12
"""A race starts only when there is enough work for this many candidates in its first round."""
FEWEST = 4
"""Least number of futures in which orders are compared, whatever it costs."""
TUNING = 0.5
"""Share of the work spent on tuning."""

Values = NDArray[np.float64]


class Reach(NamedTuple):
    """Limits on candidates: kinds of ready stages, single devices per kind, devices per stage."""

    kinds: int
    places: int
    shards: int


class UncertaintyPlanner:
    """Decides under uncertainty for an incumbent, using drawn futures.

    Args:
        p: the whole problem.
        incumbent: incumbent of a run under uncertainty; decisions become its best plan.
        reach: limits on the candidates.

    Attributes:
        counters: ``tunings_better``: tunings that were kept; ``singles_better``: candidates taken.
    """

    def __init__(self, p: ProblemArrays, incumbent: Incumbent, reach: Reach) -> None:
        self._incumbent = incumbent
        self._reach = reach._replace(shards=min(reach.shards, p.max_shards))
        rows = reach.kinds * (reach.places + p.max_shards) + 1
        self._found = new_placements(rows, p.max_shards, p.devices.size)
        self._gains = np.zeros((rows + 1, incumbent.tested))
        self._saved = 0
        self.counters = {"tunings_better": 0.0, "singles_better": 0.0}

    def begin(self, arrived: bool) -> None:
        """Begin an event: draw futures, renew the list schedule and make it the best plan.

        Args:
            arrived: whether work has arrived since the last event.
        """
        incumbent = self._incumbent
        futures, work = incumbent.tested, incumbent.context.work
        if futures > 0:
            first = FIRST * futures
            self._saved = min(self._saved, first) + (first if arrived else STEPS * futures)
            incumbent.draw()
            if arrived and len(incumbent.orders) > 1:
                self._choose_order()
            changes = CHANGES * work.tuned_on + 3 * futures
            if self._saved * TUNING > changes * self._cost():
                self._tune(int(self._saved * TUNING) - 3 * futures * self._cost())
        incumbent.write_base()
        incumbent.take(incumbent.context.base)

    def race(self) -> None:
        """Race candidates, and put those that gain in front of the list schedule."""
        incumbent, found, reach = self._incumbent, self._found, self._reach
        c = incumbent.context
        if incumbent.tested == 0 or reach.kinds == 0:
            return
        style = incumbent.base_style
        for turn in range(ROUNDS):
            work = self._saved - c.work.work
            if work < RACERS * min(8, incumbent.tested) * self._cost():
                return
            list_candidates(c, reach.kinds, reach.places, reach.shards, found)
            leave_out(found, c.base, int(turn > 0))
            row = race(c, style, found, self._gains, DOUBT, work)
            if row < 0:
                return
            self.counters["singles_better"] += 1
            put_candidate(c.problem, c.start, c.base, found, row, turn)
            if found.rows["stage"][row] < 0:
                return

    def consider(self, placements: Placements, rows: Sequence[int]) -> bool:
        """Put placements in front of the list schedule if that gains; return whether it does."""
        incumbent = self._incumbent
        c, style = incumbent.context, incumbent.base_style
        if incumbent.tested == 0:
            return False
        before = self._values(style)
        kept = c.base.copy()
        for turn, row in enumerate(rows):
            put_first(c.base, placements, row, turn)
        if gains(before, self._values(style)):
            return True
        c.base.buffer[:] = kept.buffer
        return False

    def end(self) -> None:
        """End an event: make the decisions the best plan, and charge the work done."""
        self._incumbent.take(self._incumbent.context.base)
        self._saved -= int(self._incumbent.context.work.work)

    def _cost(self) -> int:
        """Approximate work of one play."""
        c = self._incumbent.context
        left = int((c.start.stages["status"] < PLACED).sum())
        return 8 + left * (1 + (c.problem.devices.size + 7) // 8)

    def _values(self, style: Style, count: int | None = None) -> Values:
        """Return values (count,) of the base in the first ``count`` test futures; None: in all."""
        values = np.empty(self._incumbent.tested if count is None else count)
        value_plan(self._incumbent.context, style, values)
        return values

    def _choose_order(self) -> None:
        """Switch to another order, without biases, if it is better than the current one."""
        incumbent = self._incumbent
        biases, orders = incumbent.context.biases, incumbent.orders
        count = self._saved // (len(orders) * self._cost())
        count = min(incumbent.tested, max(FEWEST, count))
        kept, present = biases.copy(), incumbent.order
        best, least = present, self._values(incumbent.write_base(), count).mean()
        prefer_nothing(biases, 1)
        for order in orders:
            incumbent.set_order(order)
            value = self._values(incumbent.write_base(), count).mean()
            if value < least:
                best, least = order, value
        incumbent.set_order(best)
        if best == present:
            biases.buffer[:] = kept.buffer
        else:
            incumbent.clear_biases(1)

    def _tune(self, work: int) -> None:
        """Tune the biases: take a change that gains, drop harmful biases, or leave them."""
        incumbent = self._incumbent
        biases = incumbent.context.biases
        kept = biases.copy()
        before = self._values(incumbent.write_base())
        if _prefers(biases):
            incumbent.clear_biases(1)
            without = self._values(incumbent.write_base())
            if without.mean() < before.mean():
                before, kept = without, biases.copy()
            biases.buffer[:] = kept.buffer
        incumbent.tune(np.inf, work)
        if gains(before, self._values(incumbent.write_base())):
            self.counters["tunings_better"] += 1
        else:
            biases.buffer[:] = kept.buffer


def gains(before: Values, after: Values) -> bool:
    """Whether paired values, one per future, have become significantly smaller."""
    gain = before - after
    if not np.isfinite(gain).all():
        return False
    error = gain.std() / np.sqrt(max(1, gain.size - 1))
    return bool(gain.mean() > DOUBT * error + 1e-12 * abs(before.mean()))


def _prefers(biases: Biases) -> bool:
    kinds = biases.kinds
    plain = not kinds["shift"].any() and (kinds["spread"] == 1).all()
    return not plain or bool(biases.seconds.any() or biases.shifts.any())
