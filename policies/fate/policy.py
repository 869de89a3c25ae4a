"""FATE: frontier-aware planning with CP-SAT (Huang et al., arXiv 2605.07238), with a guard.

At every event with ready stages and an idle device:

1. candidates and their state-conditional costs (`frontier`), bounded shards included;
2. horizon-aware scores (`scoring`);
3. CP-SAT picks one placement for each stage of the frontier (`planner`);
4. of the plan, what can start now is proposed: on each idle device its highest-ranked stage;
5. guard (ours): the base list schedules (HEFT with state costs and with classical costs, planned
   anew at every event) are played to the end of the known work, alone and behind the proposal;
   what ends first decides. So without noise FATE is never behind the best of its bases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled
from fate_gym.sim.engine import commit
from fate_gym.sim.layout import NO_LOG, Buffer, Log, problem_view
from policies.base import Assignment, DecisionView
from policies.fate.frontier import Frontier, score_frontier
from policies.fate.planner import FrontierProblem, Plan, solve
from policies.fate.scoring import Weights
from policies.list_core import (
    STATE,
    STRICT,
    UPWARD_RANK,
    Choices,
    Rules,
    decide_instant,
    make_choices,
    play,
)
from policies.list_scheduling import read_choices


class Fate:
    """The FATE planner. Every term of the score is a weight; 0 switches it off.

    Args:
        name: the policy's name in results.
        residency, locality, prefix, reachability: weights of the four dimensions of state.
        horizon: weight of what descendants will cost (lambda of the paper); 0: no horizon.
        decay: weight of a descendant one edge further away.
        depth: edges that the horizon reaches.
        window: ready stages in one plan, by upward rank.
        kept: candidates of a stage in the plan.
        max_shards: devices that may share a stage; 1: no shards.
        cp_sat: False takes each stage's best-scored candidate instead of solving (ablation).
        guard: False takes every plan unchecked, with the first base only (ablation).
        share: weight of the candidates' mean cost against the time at which all devices are done.
        limit: CP-SAT's deterministic time limit of one plan.
    """

    def __init__(
        self,
        *,
        name: str = "fate",
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
        share: float = 1.0,
        limit: float = 0.005,
    ) -> None:
        self.name = name
        self._weights = Weights(
            float(residency),
            float(locality),
            float(prefix),
            float(reachability),
            float(horizon),
            float(decay),
            int(depth),
        )
        self._window, self._kept, self._most = window, kept, max_shards
        self._cp_sat, self._guard, self._share, self._limit = cp_sat, guard, share, limit
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for plans and start counting."""
        compiled_problem = view.compiled
        stages, _, _, _, _, shards = compiled_problem.shape
        self._shards = min(self._most, shards)
        self._choices = make_choices(stages, shards)
        bases = [Rules(UPWARD_RANK, STATE, 1, 1), Rules(UPWARD_RANK, STRICT, 1, 1)]
        self._bases = bases if self._guard else bases[:1]
        self._buffers = [np.zeros(compiled_problem.state_bytes, np.uint8) for _ in range(4)]
        self.counters = dict.fromkeys(
            ("plans", "plans_taken", "plans_equal_base", "solver_failures"), 0.0
        )

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Plan the frontier; commit what starts now."""
        if not view.any_idle:
            return []
        problem = view.compiled.buffer
        fork = view.fork(self._buffers[0])
        end, base = self._best_base(problem, fork)
        if not base:
            return base
        proposal = self._propose(problem, fork, base)
        if proposal is None or _same(proposal, base):
            self.counters["plans_equal_base"] += proposal is not None
            return base
        if self._guard and self._end_behind(problem, fork, proposal) >= end:
            return base
        self.counters["plans_taken"] += 1
        return proposal

    def _best_base(self, problem: Buffer, fork: Buffer) -> tuple[float, list[Assignment]]:
        """When the known work ends with the best base, and what that base does now."""
        rules, end = self._bases[0], np.inf
        if self._guard:
            end, number = self._play_bases(problem, fork)
            rules = self._bases[number]
        scratch = self._buffers[1]
        scratch[:] = fork
        noted = decide_instant(problem, scratch, NO_LOG, rules, self._choices)
        return end, read_choices(self._choices, noted)

    def _play_bases(self, problem: Buffer, start: Buffer) -> tuple[float, int]:
        """The earliest end over the bases, and the number of the base that reaches it."""
        played, scratch = self._buffers[1:3]
        ends = []
        for rules in self._bases:
            played[:] = start
            ends.append(play(problem, played, NO_LOG, rules, self._choices, scratch))
        number = int(np.argmin(ends))
        return ends[number], number

    def _propose(
        self, problem: Buffer, fork: Buffer, base: list[Assignment]
    ) -> list[Assignment] | None:
        frontier = score_frontier(
            problem,
            fork,
            self._buffers[1],
            NO_LOG,
            self._weights,
            self._window,
            self._kept,
            self._shards,
        )
        self.counters["plans"] += 1
        plan = self._plan(frontier, base)
        if plan.chosen is None:
            self.counters["solver_failures"] += 1
            return None
        return _starting_now(frontier, plan.chosen)

    def _plan(self, frontier: Frontier, base: list[Assignment]) -> Plan:
        hint = _hint(frontier, base)
        if not self._cp_sat:
            firsts = np.searchsorted(frontier.stage, np.arange(frontier.stages.size))
            return Plan(firsts, optimal=True)
        frontier_problem = FrontierProblem(
            stage=frontier.stage,
            cost=frontier.end + frontier.later,
            busy=frontier.busy,
            devices=frontier.devices,
            free=frontier.free,
            hint=hint,
        )
        return solve(frontier_problem, share=self._share, limit=self._limit)

    def _end_behind(self, problem: Buffer, fork: Buffer, first: list[Assignment]) -> float:
        """When the known work ends if the best base goes on after these assignments."""
        choices = self._choices
        for i, assignment in enumerate(first):
            width = len(assignment.devices)
            choices.stage[i] = assignment.stage
            choices.width[i] = width
            choices.devices[i, :width] = assignment.devices
            # A single device takes all queries: `_commit_all` fills them in.
            choices.counts[i, :width] = assignment.counts or -1
        begun = self._buffers[3]
        begun[:] = fork
        _commit_all(problem, begun, NO_LOG, choices, len(first))
        end, _ = self._play_bases(problem, begun)
        return end


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


def _same(a: list[Assignment], b: list[Assignment]) -> bool:
    return {(x.stage, x.devices) for x in a} == {(x.stage, x.devices) for x in b}


@compiled
def _commit_all(problem: Buffer, state: Buffer, log: Log, choices: Choices, noted: int) -> None:
    p = problem_view(problem)
    for i in range(noted):
        s = choices.stage[i]
        if choices.width[i] == 1:
            choices.counts[i, 0] = p.stages[s].queries
        commit(problem, state, log, s, choices.devices[i], choices.counts[i], choices.width[i])
