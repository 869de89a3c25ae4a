"""FATE: frontier-aware planning with CP-SAT (Huang et al., arXiv 2605.07238), with a guard.

At every event with ready stages and an open device (`DecisionView.any_open`):

1. candidates and their state-conditional costs (`candidates`), bounded shards included;
2. horizon-aware scores (`score`);
3. CP-SAT picks one placement for each stage of the frontier (`solver`), once for each weight in
   ``shares``;
4. the part of each plan that can start now is committed, highest-ranked stages first on each
   device;
5. guard (ours): when work arrives, list schedules (with state costs and with classical costs, with
   and without shards) are played to the end of the known work, and the best plan is kept
   (`policies.fate.rollout.incumbent`). The plan of the frontier is accepted if continuing after
   it, by a list schedule or by the kept plan, is better; if not, the part that can start now is
   tried, then each placement of that part alone. So without noise FATE never does worse than the
   best of these list schedules. Under uncertainty the guard is that of
   `policies.fate.rollout.uncertainty`, and only what can start now is tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fate_gym.problem import Objective
from policies.base import Assignment, DecisionView, Explanation, assignments, candidates_of
from policies.bounds import (
    CountOrNone,
    MaxShards,
    Samples,
    Share,
    Shares,
    SolverTime,
    Some,
    Weight,
    Window,
    Work,
)
from policies.fate.blinding import Dimension, Sight
from policies.fate.paper.candidates import find_candidates, find_starting, new_frontier
from policies.fate.paper.score import Weights
from policies.fate.paper.solver import choose_placements, first_rows
from policies.fate.plans.objective import check_objective
from policies.fate.rollout.budget import SavedBudget
from policies.fate.rollout.incumbent import Incumbent
from policies.fate.rollout.uncertainty import Reach, UncertaintyPlanner

Rows = NDArray[np.int64]
Places = set[tuple[int, tuple[int, ...]]]
QUANTITY = "score: seconds to the expected end + what the placement costs later, s"
"""Description of the value by which candidates are compared."""


class Fate:
    """The FATE planner. Every term of the score is a weight; 0 switches it off.

    Args:
        name: the policy's name in results.
        objective: objective of the guard (see `policies.fate.rollout.policy.FateRollout`).
        residency, locality, prefix, reachability: weights of the four dimensions of state.
        horizon: weight of the future cost of descendants (lambda in the paper); 0: no horizon.
        decay: factor on a descendant's weight for each edge of distance.
        depth: depth of the horizon in edges.
        window: ready stages in one plan, by upward rank.
        kept: candidates per stage in the plan.
        max_shards: most devices that may share a stage; 1: no shards.
        cp_sat: False takes each stage's best-scored candidate instead of solving (ablation).
        guard: False accepts every plan unchecked (ablation).
        shares: weights of the candidates' mean cost against the time at which all devices are
            done; one plan is made with each.
        ignore: dimensions of state that score, list schedules and guard are blind to (ablation).
        samples: under uncertainty, number of drawn futures in which the guard tests proposals
            (`policies.fate.rollout.uncertainty`).
        limit: CP-SAT's deterministic time limit per plan.
        first: budget of the guard's list schedules in a decision after an arrival, in units of
            play work (`policies.fate.plans.schema.Workspace`); larger for a single workflow.
        steps: budget of the guard in other decisions; if it does not cover a comparison, plans
            are made at fewer events.
        load_share: share of a lasting load that is charged to known work in a stream
            (`policies.fate.lasting`); 1: all of it.
        thrift: weight of device time where a stage of a stream chooses its device
            (`policies.fate.device_time`); 0: none.
    """

    def __init__(
        self,
        *,
        name: str = "fate",
        objective: Objective | None = None,
        residency: Weight = 1.0,
        locality: Weight = 1.0,
        prefix: Weight = 1.0,
        reachability: Weight = 1.0,
        horizon: Weight = 1.0,
        decay: Share = 0.5,
        depth: CountOrNone = 2,
        window: Window = 8,
        kept: Some = 6,
        max_shards: MaxShards = 4,
        cp_sat: bool = True,
        guard: bool = True,
        shares: Shares = (0.5, 2.0),
        ignore: Sequence[Dimension] = (),
        samples: Samples = 64,
        limit: SolverTime = 0.0005,
        first: Work = 40_000,
        steps: Work = 20_000,
        load_share: Share = 0.25,
        thrift: Weight = 1.0,
    ) -> None:
        self.name = name
        check_objective(objective, name)
        self._new_incumbent = partial(
            Incumbent,
            objective=objective,
            max_shards=max_shards,
            samples=samples,
            sight=Sight(tuple(ignore), load_share, thrift),
        )
        self._weights = Weights(
            0.0 if "residency" in ignore else float(residency),
            0.0 if "locality" in ignore else float(locality),
            0.0 if "prefix" in ignore else float(prefix),
            0.0 if "reachability" in ignore else float(reachability),
            float(horizon),
            float(decay),
            int(depth),
        )
        self._window, self._kept = window, kept
        self._cp_sat, self._guard, self._limit = cp_sat, guard, limit
        self._first, self._steps = first, steps
        self._shares = tuple(float(share) for share in shares)
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Allocate the planner's state and reset the counters."""
        self._incumbent = self._new_incumbent(view)
        p = view.compiled.arrays
        self._uncertainty = UncertaintyPlanner(p, self._incumbent, Reach(0, 1, 1))
        self._look_at_frontier()
        self._instant = self._compared_at = -1
        self._budget, self._paid = SavedBudget(), 0
        self.counters = dict.fromkeys(
            ("plans", "plans_taken", "plans_equal_base", "solver_failures"), 0.0
        )

    def _look_at_frontier(self) -> None:
        """Allocate the candidates for the incumbent's current excerpt."""
        c = self._incumbent.context
        self._frontier = new_frontier(c.problem, c.start, self._window * self._kept)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Plan the frontier; commit what starts now."""
        if view.instant == self._instant or not view.any_open:
            return []
        self._instant = view.instant
        incumbent = self._incumbent
        arrived = incumbent.update(view)
        if self._frontier.problem is not incumbent.context.problem:
            self._look_at_frontier()
        if self._guard and incumbent.uncertain:
            self._uncertainty.begin(arrived)
            self._paid = incumbent.context.work.work + self._steps * max(1, incumbent.tested)
        elif self._guard:
            self._value = incumbent.revalue(arrived, self._first if arrived else self._steps)
            least = incumbent.comparing
            granted = min(self._budget.withdraw(self._steps, least), max(self._steps, least))
            self._paid = incumbent.context.work.work + granted
            if self._paid == incumbent.context.work.work:
                incumbent.settle(self._value)
                return incumbent.starting(view)
        else:
            incumbent.write_base()
            incumbent.take(incumbent.context.base)
        planned = incumbent.planned()
        find_candidates(
            self._frontier, self._weights, self._window, self._kept, incumbent.style.shards
        )
        self._compared_at = view.instant
        seen = [_places(planned)]
        for share in self._shares if self._frontier.candidates.count > 0 else ():
            if len(seen) > 1 and self._spent:
                break
            plan = self._plan(planned, share)
            starting = plan[self._starting(plan)]
            proposed = assignments(self._frontier.candidates, starting)
            if not self._guard:
                return incumbent.in_problem(proposed or planned)
            if _places(proposed) in seen:
                self.counters["plans_equal_base"] += 1
                continue
            seen.append(_places(proposed))
            self._consider(plan, starting, seen[0])
        if self._guard and incumbent.uncertain:
            self._uncertainty.end()
        elif self._guard:
            incumbent.settle(self._value)
        return incumbent.starting(view)

    def explain(self, view: DecisionView) -> Explanation | None:
        """Return the scores of the frontier's candidates, if this decision made a plan."""
        if self._compared_at != view.instant:
            return None
        stages = self._incumbent.excerpt.stages
        return Explanation(QUANTITY, candidates_of(self._frontier.candidates, stages))

    @property
    def _spent(self) -> bool:
        """Whether the plays of this decision have used its budget."""
        return self._incumbent.context.work.work >= self._paid

    def _plan(self, planned: list[Assignment], share: float) -> Rows:
        """Return (F,) the candidate row of each stage in a plan made with weight ``share``."""
        self.counters["plans"] += 1
        candidates, free = self._frontier.candidates, self._frontier.outlook.free
        if not self._cp_sat:
            return first_rows(candidates)[:-1]
        hint = self._hint(planned)
        choice = choose_placements(candidates, free, hint, share=share, limit=self._limit)
        self.counters["solver_failures"] += not choice.solved
        return choice.rows

    def _hint(self, planned: list[Assignment]) -> Rows:
        """Return (F,) for each stage the candidate row that is planned, else the best-scored."""
        candidates = self._frontier.candidates
        firsts = first_rows(candidates)
        hint = firsts[:-1].copy()
        wanted = {assignment.stage: assignment.devices for assignment in planned}
        for position, first in enumerate(hint.tolist()):
            devices = wanted.get(int(candidates.rows["stage"][first]))
            if devices is None:
                continue
            for row in range(first, firsts[position + 1]):
                width = candidates.rows["width"][row]
                if tuple(candidates.devices[row, :width].tolist()) == devices:
                    hint[position] = row
        return hint

    def _starting(self, plan: Rows) -> NDArray[np.bool_]:
        """Return (F,) which placements of a plan can start now, highest-ranked stages first."""
        starting = np.zeros_like(plan)
        find_starting(self._frontier, plan, starting)
        return starting > 0

    def _consider(self, plan: Rows, starting: Rows, planned: Places) -> None:
        """Accept a plan if it is better, else what it starts now, else the best part of that.

        Under uncertainty only what starts now is tried: later stages decide when it is their turn.
        """
        whole = not self._incumbent.uncertain and plan.size > starting.size
        if whole and self._take_if_better(plan):
            return
        if self._take_if_better(starting) or starting.size == 1:
            return
        for i in range(starting.size):
            if self._spent:
                break
            row = starting[i : i + 1]
            if not _places(assignments(self._frontier.candidates, row)) <= planned:
                self._take_if_better(row)

    def _take_if_better(self, plan: Rows) -> bool:
        rows = plan.tolist()
        if self._incumbent.uncertain:
            taken = self._uncertainty.consider(self._frontier.candidates, rows)
        else:
            found = self._incumbent.consider(self._frontier.candidates, rows, self._value)
            taken = found < self._value
            self._value = found
        self.counters["plans_taken"] += taken
        return taken


def _places(placed: Sequence[Assignment]) -> Places:
    return {(assignment.stage, assignment.devices) for assignment in placed}
