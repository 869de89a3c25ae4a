"""`fate_rollout` (ours): FATE's planner with a horizon simulated to the end of the known work.

At every event with ready stages and an open device (`DecisionView.any_open`):

1. **Incumbent.** The best plan so far is kept from event to event and played again. When work
   arrives, list schedules with several orders (ranks; first come first served, shortest remaining,
   slack and stretch over workflows) propose plans too, with and without shards.
2. **Tuning.** The biases of a list schedule are changed at random; changes that help are kept.
3. **Candidates.** For the first kinds of ready stages: the distinct placements that start now,
   bounded shards, and waiting. Each is valued by playing the list schedule after it to the end of
   the known work.
4. **CP-SAT** picks the joint placement with the largest sum of gains among candidates that improve.
5. **Guard.** The joint placement is played too. It is taken if it beats the best single candidate,
   which is taken if it beats the incumbent. So without noise the run never ends later than any plan
   that was ever valued, in particular never later than the list schedules.
6. **Local search** changes the best plan within a budget: other devices, another order, more or
   fewer shards, whole models to other devices, whole workflows earlier or later.

What the best plan starts now is committed. Under uncertainty (noise, lengths, choices or failures)
these steps are replaced by a tuned list schedule and candidates that race in drawn futures
(`uncertainty`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from fate_gym.kernel.placements import new_placements
from fate_gym.problem import Objective
from policies.base import Assignment, DecisionView, Explanation, candidates_of
from policies.bounds import (
    CountOrNone,
    Few,
    MaxShards,
    Milliseconds,
    Samples,
    Share,
    SolverTime,
    Some,
    Weight,
    Work,
)
from policies.fate.blinding import Dimension, Sight
from policies.fate.plans.edit import put_first
from policies.fate.plans.objective import check_objective
from policies.fate.plans.schema import Style
from policies.fate.rollout.budget import SavedBudget
from policies.fate.rollout.candidates import list_candidates, value_candidates
from policies.fate.rollout.incumbent import Incumbent
from policies.fate.rollout.joint_choice import choose_candidates
from policies.fate.rollout.uncertainty import Reach, UncertaintyPlanner

CHUNK = 1_000
"""Work between two checks of the clock."""
COUNTERS = (
    "decisions", "singles_better", "plans", "plans_taken", "tunings_better", "searches_better",
    "solver_failures",
)  # fmt: skip


class FateRollout:
    """The FATE planner with a simulated horizon.

    Args:
        name: the policy's name in results.
        objective: objective of plans, over the known workflows: the last end (``makespan``), mean
            ``latency``, mean ``slowdown`` (latency / critical path), the tail of latencies
            (``p95``), or mean lateness after ``deadlines``. None: the problem's
            (`fate_gym.problem.Options`).
        kinds: kinds of ready stages that get candidates; 0: no candidates.
        places: candidates on single devices per kind.
        max_shards: most devices that may share a stage; 1: no shards.
        cp_sat: False takes the best single candidate (ablation).
        horizon: edges from the frontier that plays reach; None: to the end of the known work.
        ignore: dimensions of state that the planner is blind to (ablation).
        first: budget of a decision after an arrival: the work of all its plays together, in units
            of `policies.fate.plans.schema.Workspace` (0.1 to 0.5 µs each).
        steps: budget of any other decision.
        candidates_share, tune_share: shares of the budget; the rest goes to local search.
        budget_ms: run local search for this wall-clock time instead, and begin nothing else after
            it: a decision takes this long plus at most one play. Runs are then not repeatable.
        samples: under uncertainty, number of drawn futures in which changes of the list schedule
            and candidates are tested (`policies.fate.rollout.uncertainty`, which sets the budgets).
            0: the list schedule is used unchanged.
        limit: CP-SAT's deterministic time limit.
        load_share: share of a lasting load that is charged to known work in a stream
            (`policies.fate.lasting`); 1: all of it.
        thrift: weight of device time where a stage of a stream chooses its device
            (`policies.fate.device_time`); 0: none.
    """

    def __init__(
        self,
        *,
        name: str = "fate_rollout",
        objective: Objective | None = None,
        kinds: Few = 6,
        places: Some = 6,
        max_shards: MaxShards = 4,
        cp_sat: bool = True,
        horizon: CountOrNone | None = None,
        ignore: Sequence[Dimension] = (),
        first: Work = 40_000,
        steps: Work = 6_000,
        candidates_share: Share = 0.25,
        tune_share: Share = 0.25,
        budget_ms: Milliseconds | None = None,
        samples: Samples = 64,
        limit: SolverTime = 0.005,
        load_share: Share = 0.25,
        thrift: Weight = 1.0,
    ) -> None:
        self.name = name
        check_objective(objective, name)
        self._new_incumbent = partial(
            Incumbent,
            objective=objective,
            max_shards=max_shards,
            horizon=horizon,
            samples=samples,
            sight=Sight(tuple(ignore), load_share, thrift),
        )
        self._kinds, self._places, self._max_shards = kinds, places, max_shards
        self._cp_sat, self._limit = cp_sat, limit
        self._first, self._steps, self._budget_ms = first, steps, budget_ms
        self._candidates_share, self._tune_share = candidates_share, tune_share
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Allocate the planner's state and reset the counters."""
        self._incumbent = self._new_incumbent(view)
        p = view.compiled.arrays
        rows = self._kinds * (self._places + p.max_shards) + 1
        self._found = new_placements(rows, p.max_shards, p.devices.size)
        self._budgets = SavedBudget(), SavedBudget(), SavedBudget()
        reach = Reach(self._kinds, self._places, self._max_shards)
        self._uncertainty = UncertaintyPlanner(p, self._incumbent, reach)
        self._instant = self._compared_at = -1
        self.counters = dict.fromkeys(COUNTERS, 0.0)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Look for a better plan; commit what the best plan starts now."""
        if view.instant == self._instant or not view.any_open:
            return []
        self._instant = view.instant
        self.counters["decisions"] += 1
        incumbent = self._incumbent
        if self._budget_ms is not None:
            incumbent.deadline = perf_counter() + self._budget_ms * 1e-3
        arrived = incumbent.update(view)
        if incumbent.uncertain:
            return self._take_chances(view, arrived)
        budget = self._first if arrived else self._steps
        value = incumbent.revalue(arrived, budget)
        if arrived:
            # The list schedules are charged to the budget, but a quarter is left for the search.
            budget = max(self._first - incumbent.context.work.work, self._first // 4)
        incumbent.settle(self._share_out(value, budget))
        return incumbent.starting(view)

    def explain(self, view: DecisionView) -> Explanation | None:
        """Return the values of the frontier's candidates, if this decision valued any."""
        if self._compared_at != view.instant:
            return None
        quantity = f"{self._incumbent.objective} of the known workflows, played to the end"
        stages = self._incumbent.excerpt.stages
        return Explanation(quantity, candidates_of(self._found, stages))

    def _share_out(self, value: float, budget: int) -> float:
        """Run each search with its share of the budget, once that covers two plays."""
        choosing, following = self._incumbent.choosing, self._incumbent.following
        tuning, listing, searching = self._budgets
        share = int(budget * self._tune_share)
        value = self._tune(value, tuning.withdraw(share, 2 * choosing))
        share = int(budget * self._candidates_share)
        value = self._candidates(value, listing.withdraw(share, 2 * choosing))
        share = int(budget * (1.0 - self._tune_share - self._candidates_share))
        return self._search(value, searching.withdraw(share, 2 * following))

    def _take_chances(self, view: DecisionView, arrived: bool) -> Sequence[Assignment]:
        """Decide under uncertainty, where a plan made for one future does not suit others."""
        self._uncertainty.begin(arrived)
        self._uncertainty.race()
        self._uncertainty.end()
        self.counters.update(self._uncertainty.counters)
        return self._incumbent.starting(view)

    # --- the steps of a decision; each returns the value of the best plan -------------------

    def _tune(self, value: float, budget: int) -> float:
        """Tune the biases of the list schedule."""
        if budget <= 0 or self._incumbent.late:
            return value
        found = self._incumbent.tune(value, budget)
        self.counters["tunings_better"] += found < value
        return found

    def _candidates(self, value: float, budget: int) -> float:
        """Try candidates of the frontier in front of the list schedule."""
        if self._kinds == 0 or budget <= 0 or self._incumbent.late:
            return value
        c, found = self._incumbent.context, self._found
        style = self._incumbent.write_base()
        list_candidates(c, self._kinds, self._places, style.shards, found)
        best = value_candidates(c, style, found, value, budget)
        self._compared_at = self._instant
        if best < 0:
            return value
        self.counters["singles_better"] += 1
        values = found.rows["value"][: found.count]
        single = float(values[best])
        # Gains are differences: they do not exist if the incumbent's value is infinite.
        if self._cp_sat and np.isfinite(value):
            gains = value - values
            if (gains > 0).sum() > 1:
                joint = self._joint(gains, style, single)
                if joint < single:
                    return joint
        self._incumbent.take(c.found)
        return single

    def _joint(self, gains: NDArray[np.float64], style: Style, bound: float) -> float:
        """Try CP-SAT's joint placement; return its value if better than ``bound``, else inf."""
        c, found = self._incumbent.context, self._found
        ready = c.start.ready[: c.start.ready_count].tolist()
        rows = choose_candidates(c.problem, found, gains, ready, self._limit)
        if rows is None:
            self.counters["solver_failures"] += 1
            return np.inf
        self.counters["plans"] += 1
        if len(rows) < 2:
            return np.inf
        c.draft.buffer[:] = c.base.buffer
        for row, stage in rows:
            found.rows["stage"][row] = stage
            put_first(c.draft, found, row, row)
        joint = self._incumbent.value(c.draft, bound, style)
        if joint < bound:
            self._incumbent.take(c.played)
            self.counters["plans_taken"] += 1
        return joint

    def _search(self, value: float, budget: int) -> float:
        """Improve the best plan by local search."""
        found = value
        if self._budget_ms is not None:
            while not self._incumbent.late:
                found = self._incumbent.improve(CHUNK)
        elif budget > 0:
            found = self._incumbent.improve(budget)
        self.counters["searches_better"] += found < value
        return found
