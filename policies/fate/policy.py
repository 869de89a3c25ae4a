"""FATE: frontier-aware planning with CP-SAT (Huang et al., arXiv 2605.07238), with a guard.

At every event with ready stages and an idle device:

1. candidates and their state-conditional costs (`frontier`), bounded shards included;
2. horizon-aware scores (`scoring`);
3. CP-SAT picks one placement for each stage of the frontier (`planner`), once for each weight of
   the horizon;
4. of a plan, what can start now is proposed: on each idle device its highest-ranked stage;
5. guard (ours): list schedules (with state costs and with classical costs, with and without shards,
   planned anew at every event) are played to the end of the known work when work arrives; the best
   plan is kept (`workbench`). A proposal is taken if what follows it, by a list schedule or by the
   plan that was kept, is better; if not, each of its placements is tried alone. So without noise
   FATE is never behind the best of its bases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fate_gym.sim.layout import NO_LOG
from policies.base import Assignment, DecisionView
from policies.fate.frontier import Frontier, score_frontier
from policies.fate.model import Dimension
from policies.fate.planner import FrontierProblem, Plan, solve
from policies.fate.player import start_first
from policies.fate.scoring import Weights
from policies.fate.workbench import Objective, Workbench, check_objective


class Fate:
    """The FATE planner. Every term of the score is a weight; 0 switches it off.

    Args:
        name: the policy's name in results.
        objective: what the guard compares by (see `policies.fate.rollout.FateRollout`).
        residency, locality, prefix, reachability: weights of the four dimensions of state.
        horizon: weight of what descendants will cost (lambda of the paper); 0: no horizon.
        decay: weight of a descendant one edge further away.
        depth: edges that the horizon reaches.
        window: ready stages in one plan, by upward rank.
        kept: candidates of a stage in the plan.
        max_shards: devices that may share a stage; 1: no shards.
        cp_sat: False takes each stage's best-scored candidate instead of solving (ablation).
        guard: False takes every plan unchecked (ablation).
        shares: weights of the candidates' mean cost against the time at which all devices are
            done; a plan is made with each.
        ignore: dimensions of state that score, list schedules and guard are blind to (ablation).
        limit: CP-SAT's deterministic time limit of one plan.
    """

    def __init__(
        self,
        *,
        name: str = "fate",
        objective: Objective = "slowdown",
        residency: float = 1.0,
        locality: float = 1.0,
        prefix: float = 1.0,
        reachability: float = 1.0,
        horizon: float = 1.0,
        decay: float = 0.5,
        depth: int = 2,
        window: int = 8,
        kept: int = 6,
        max_shards: int = 4,
        cp_sat: bool = True,
        guard: bool = True,
        shares: Sequence[float] = (0.5, 2.0),
        ignore: Sequence[Dimension] = (),
        limit: float = 0.0005,
    ) -> None:
        self.name = name
        check_objective(objective, name)
        self._objective = objective
        self._ignore = tuple(ignore)
        self._weights = Weights(
            0.0 if "residency" in ignore else float(residency),
            0.0 if "locality" in ignore else float(locality),
            0.0 if "prefix" in ignore else float(prefix),
            0.0 if "reachability" in ignore else float(reachability),
            float(horizon),
            float(decay),
            int(depth),
        )
        self._window, self._kept, self._most = window, kept, max_shards
        self._cp_sat, self._guard, self._limit = cp_sat, guard, limit
        self._shares = tuple(float(share) for share in shares)
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for plans and start counting."""
        self._bench = Workbench(
            view,
            objective=self._objective,
            max_shards=self._most,
            ignore=self._ignore,
            owner=self.name,
        )
        self._scratch = np.zeros(view.compiled.state_bytes, np.uint8)
        self._instant = -1
        self.counters = dict.fromkeys(
            ("plans", "plans_taken", "plans_equal_base", "solver_failures"), 0.0
        )

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Plan the frontier; commit what starts now."""
        if view.instant == self._instant or not view.any_idle:
            return []
        self._instant = view.instant
        bench = self._bench
        news = bench.look(view)
        value = np.inf
        if self._guard:
            value = bench.renew(news)
        else:
            bench.begin_base()
            bench.best[:] = bench.base
        kept = bench.starting(view)
        frontier = self._frontier()
        seen = [_places(kept)]
        for share in self._shares if frontier.stage.size > 0 else ():
            proposal = self._propose(frontier, kept, share)
            if proposal is None:
                continue
            if not self._guard:
                return proposal or kept
            if _places(proposal) in seen:
                self.counters["plans_equal_base"] += 1
                continue
            seen.append(_places(proposal))
            value = self._consider(proposal, kept, value)
        if self._guard:
            bench.settle(value)
        return bench.starting(view)

    def _frontier(self) -> Frontier:
        bench = self._bench
        return score_frontier(
            bench.problem,
            bench.forks[0],
            self._scratch,
            NO_LOG,
            self._weights,
            self._window,
            self._kept,
            bench.shards,
        )

    def _propose(
        self, frontier: Frontier, kept: list[Assignment], share: float
    ) -> list[Assignment] | None:
        """What a plan starts now; None when the solver finds none."""
        self.counters["plans"] += 1
        plan = self._plan(frontier, kept, share)
        if plan.chosen is None:
            self.counters["solver_failures"] += 1
            return None
        return _starting_now(frontier, plan.chosen)

    def _plan(self, frontier: Frontier, kept: list[Assignment], share: float) -> Plan:
        if not self._cp_sat:
            firsts = np.searchsorted(frontier.stage, np.arange(frontier.stages.size))
            return Plan(firsts, optimal=True)
        frontier_problem = FrontierProblem(
            stage=frontier.stage,
            cost=frontier.end + frontier.later,
            busy=frontier.busy,
            devices=frontier.devices,
            free=frontier.free,
            hint=_hint(frontier, kept),
        )
        return solve(frontier_problem, share=share, limit=self._limit)

    def _consider(self, proposal: list[Assignment], kept: list[Assignment], value: float) -> float:
        """Take a proposal if it is better, else those of its placements that are; the value."""
        found = self._weigh(proposal, value)
        if found < value or len(proposal) == 1:
            return found
        same = _places(kept)
        for assignment in proposal:
            if not _places([assignment]) <= same:
                found = self._weigh([assignment], found)
        return found

    def _weigh(self, proposal: list[Assignment], value: float) -> float:
        """Take a proposal if what follows it is better than the plan kept; returns the value."""
        bench = self._bench
        style = bench.begin_base()
        taken = False
        for plan, how in ((bench.base, style), (bench.best, bench.style)):
            bench.trial[:] = plan
            start_first(bench.problem, bench.trial, *_rows(proposal))
            found = bench.value(bench.trial, value, how)
            if found < value:
                value, taken = found, True
                bench.other[:] = bench.trial
        if taken:
            bench.best[:] = bench.other
            self.counters["plans_taken"] += 1
        return value


def _rows(
    proposal: list[Assignment],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Stages (N,), devices used (N,), devices (N, K) and queries (N, K); -1: by speed."""
    most = max((len(a.devices) for a in proposal), default=1)
    stages = np.array([a.stage for a in proposal], np.int64)
    widths = np.array([len(a.devices) for a in proposal], np.int64)
    devices = np.full((len(proposal), most), -1, np.int64)
    counts = np.full((len(proposal), most), -1, np.int64)
    for i, a in enumerate(proposal):
        devices[i, : len(a.devices)] = a.devices
        if a.counts is not None:
            counts[i, : len(a.devices)] = a.counts
    return stages, widths, devices, counts


def _places(assignments: Sequence[Assignment]) -> set[tuple[int, tuple[int, ...]]]:
    return {(a.stage, a.devices) for a in assignments}


def _hint(frontier: Frontier, base: list[Assignment]) -> NDArray[np.int64]:
    """For each stage the base's candidate, else the best-scored."""
    wanted = {assignment.stage: assignment.devices for assignment in base}
    firsts = np.searchsorted(frontier.stage, np.arange(frontier.stages.size))
    hint = firsts.copy()
    for position, stage in enumerate(frontier.stages.tolist()):
        devices = wanted.get(stage)
        if devices is None:
            continue
        for candidate in np.flatnonzero(frontier.stage == position):
            width = frontier.width[candidate]
            if tuple(frontier.devices[candidate, :width].tolist()) == devices:
                hint[position] = candidate
    return hint


def _starting_now(frontier: Frontier, chosen: NDArray[np.int64]) -> list[Assignment]:
    """The chosen placements that can start: idle devices go to the highest-ranked stage."""
    free = frontier.free <= 0.0
    assignments = []
    for position, candidate in enumerate(chosen.tolist()):
        width = int(frontier.width[candidate])
        devices = frontier.devices[candidate, :width]
        if free[devices].all():
            free[devices] = False
            counts = tuple(frontier.counts[candidate, :width].tolist()) if width > 1 else None
            stage = int(frontier.stages[position])
            assignments.append(Assignment(stage, tuple(devices.tolist()), counts))
        else:
            # The stage waits for these devices: nobody of lower rank may take them.
            free[devices] = False
    return assignments
