"""`oracle_cpsat`: solves small problems as a whole with CP-SAT, then executes the schedule.

The model decides the device of every stage and the sequence on every device. Its costs:

* prefill and decode in each *case*: which parents' contexts are still cached on the device, and how
  much of the prefix (because a stage with the same prefix ran there before);
* loads: the first stage of a model on a device loads it, and so does one directly after a stage of
  a model that does not fit in memory beside it; transfers over each link, parallel to the load;
* arrivals, tools, queues, and eager transfers, as in docs/execution-model.md.

Simplifications always make the model cheaper than the run: evictions other than those between
neighbours and, with contention, waits for other stages' fetches are left out, and times are
rounded down. So, for runs without shards and without noise, the solver's bound is a lower bound on
what any policy can reach, and the executed schedule an upper one: ``gap = executed / bound - 1``.
Shards are not modelled; with ``max_shards`` above 1 a policy may beat the bound by sharing stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ortools.sat.python import cp_model

from fate_gym.errors import InputError
from fate_gym.kernel.schema import ProblemArrays
from policies.base import Assignment, DecisionView
from policies.bounds import Count, SolverTime
from policies.list_scheduling.plan_queues import PlanQueues
from policies.references.oracle_model import TICK, OracleModel


class Oracle(NamedTuple):
    """The solver's result for S stages; times in seconds.

    Attributes:
        status: ``OPTIMAL``, ``FEASIBLE`` or ``UNKNOWN``.
        device: (S,) device of each stage; -1 for tools, or without a solution.
        start: (S,) planned start times.
        makespan: makespan in the model; inf without a solution.
        bound: lower bound on the makespan of any schedule without shards.
    """

    status: str
    device: list[int]
    start: list[float]
    makespan: float
    bound: float


class OracleCpSat:
    """Solves the whole problem at the start of the run and executes the schedule.

    Counters: ``oracle_bound``, ``oracle_planned`` (s), ``oracle_optimal``.

    Args:
        name: the policy's name in results.
        limit: CP-SAT's deterministic time limit.
        most_stages: problems with more stages are rejected.
    """

    def __init__(
        self, *, name: str = "oracle_cpsat", limit: SolverTime = 2.0, most_stages: Count = 40
    ) -> None:
        self.name = name
        self._limit, self._most_stages = limit, most_stages
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Solve the problem; raise `InputError` if the model does not cover it."""
        p = view.compiled.arrays
        stages = p.stages.size
        if p.batching:
            raise InputError(
                "its model is of devices that run one stage at a time, and these batch",
                item=f"policy {self.name!r}",
                remedy="use best_known, or cluster.execution=exclusive",
            )
        if p.followers.size > 0:
            raise InputError(
                "its model knows arrivals from the start, and here workflows follow others",
                item=f"policy {self.name!r}",
                remedy="use best_known, or a problem without follows",
            )
        if stages > self._most_stages:
            raise InputError(
                f"the problem has {stages} stages",
                item=f"policy {self.name!r}",
                field="params.most_stages",
                remedy=f"the oracle is for problems of at most {self._most_stages} stages",
            )
        found = solve_whole(p, limit=self._limit)
        self._queues = PlanQueues(view.devices)
        place = {int(s): i for i, s in enumerate(p.topological)}
        # Parents come first among stages that start at the same time (zero length).
        order = sorted(range(stages), key=lambda s: (found.start[s], place[s]))
        for device in range(view.devices):
            self._queues.append(device, [s for s in order if found.device[s] == device])
        self._planned = found.makespan < np.inf
        self.counters = {
            "oracle_bound": found.bound,
            "oracle_planned": found.makespan,
            "oracle_optimal": float(found.status == "OPTIMAL"),
        }

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Place the ready stages whose turn it is; without a solution, each where it ends first."""
        if self._planned:
            return self._queues.due(view)
        ends = {stage: view.end_estimates(stage) for stage in view.ready}
        return [
            Assignment(stage, (int(end.argmin()),))
            for stage, end in ends.items()
            if end.min() < np.inf
        ][:1]


def solve_whole(p: ProblemArrays, *, limit: float) -> Oracle:
    """Solve a whole problem; ``limit`` is CP-SAT's deterministic time limit."""
    made = OracleModel(p)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    status = solver.solve(made.model)
    stages = p.stages.size
    bound = (solver.best_objective_bound - made.zero) * TICK
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Oracle("UNKNOWN", [-1] * stages, [0.0] * stages, np.inf, max(0.0, bound))
    device = [-1] * stages
    for (s, d), chosen in made.on.items():
        if solver.boolean_value(chosen):
            device[s] = d
    start = [solver.value(made.turn[s]) * TICK for s in range(stages)]
    makespan = (solver.objective_value - made.zero) * TICK
    return Oracle(solver.status_name(status), device, start, makespan, bound)
