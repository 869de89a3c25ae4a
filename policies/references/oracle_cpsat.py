"""`oracle_cpsat`: the whole problem in CP-SAT, for small instances; its schedule is then executed.

Decided are the device of every stage and the sequence on every device. The model's costs:

* prefill and decode in each *case*: which parents' contexts are still cached on the device, and how
  much of the prefix (because a stage with the same prefix ran there before);
* loads: the first stage of a model on a device loads it, and so does one that follows directly on
  a stage of a model which does not fit beside it; transfers over each link, beside the load;
* arrivals, tools, queues, and eager transfers, as in docs/execution-model.md.

Left out, and always in favour of the model: evictions other than those between neighbours, with
contention the wait for the fetches of others, and rounding (times are rounded down). So, for runs
without shards and without noise, the solver's bound is a lower bound on what any policy can reach,
and the executed schedule an upper one:
``gap = executed / bound - 1``. Shards are not modelled; with ``max_shards`` above 1 a policy may
beat the bound by sharing stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from fate_gym.errors import InputError
from fate_gym.kernel.cost import prefill_seconds
from fate_gym.kernel.schema import FIXED_STAGE, MODEL_STAGE, TOOL_STAGE, ProblemArrays
from policies.base import Assignment, DecisionView
from policies.list_scheduling.plan_queues import PlanQueues

TICK = 1e-4
"""Seconds of one unit of time in the model."""

MOST_CASES = 64
"""Cases of one stage on one device; beyond, all contexts count as cached (in favour)."""


class Oracle(NamedTuple):
    """What the solver found. S stages; seconds.

    Attributes:
        status: ``OPTIMAL``, ``FEASIBLE`` or ``UNKNOWN``.
        device: (S,) device of each stage, -1 for tools and without a solution.
        start: (S,) planned turns.
        makespan: the last end in the model, inf without a solution.
        bound: no schedule without shards ends earlier.
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
        most_stages: larger problems are refused.
    """

    def __init__(
        self, *, name: str = "oracle_cpsat", limit: float = 2.0, most_stages: int = 40
    ) -> None:
        self.name = name
        self._limit, self._most_stages = limit, most_stages
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Solve."""
        p = view.compiled.arrays
        stages = p.stages.size
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
        # Of stages without length, parents first.
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
        """Place the ready stages whose turn it is on their devices."""
        if self._planned:
            return self._queues.due(view)
        ends = {stage: view.end_estimates(stage) for stage in view.ready}
        return [
            Assignment(stage, (int(end.argmin()),))
            for stage, end in ends.items()
            if end.min() < np.inf
        ][:1]


def solve_whole(p: ProblemArrays, *, limit: float) -> Oracle:
    """Solve a whole problem; ``limit`` is deterministic time."""
    from ortools.sat.python import cp_model

    model = _Model(p)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.max_deterministic_time = limit
    status = solver.solve(model.model)
    stages = p.stages.size
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        bound = max(0.0, float(solver.best_objective_bound) - model.zero) * TICK
        return Oracle("UNKNOWN", [-1] * stages, [0.0] * stages, np.inf, bound)
    device, start = [-1] * stages, [0.0] * stages
    for (s, d), chosen in model.on.items():
        if solver.boolean_value(chosen):
            device[s] = d
    for s, variable in model.turn.items():
        start[s] = solver.value(variable) * TICK
    return Oracle(
        solver.status_name(status),
        device,
        start,
        (solver.objective_value - model.zero) * TICK,
        (solver.best_objective_bound - model.zero) * TICK,
    )


class _Model:
    """The CP-SAT model. ``on[s, d]``: stage s runs on device d; ``turn[s]``, ``end[s]``: ticks."""

    def __init__(self, p: ProblemArrays) -> None:
        from ortools.sat.python import cp_model

        self.p = p
        self.model = cp_model.CpModel()
        self.on: dict[tuple[int, int], Any] = {}
        self.turn: dict[int, Any] = {}
        self.end: dict[int, Any] = {}
        self._after: dict[tuple[int, int, int], Any] = {}
        self._loads: dict[tuple[int, int], Any] = {}
        stages = self.p.stages.size
        self.devices = self.p.devices.size
        finite = np.where(np.isfinite(self.p.clean_seconds), self.p.clean_seconds, 0.0)
        loads = self.p.load_seconds.max() if self.p.load_seconds.size else 0.0
        slow = 1.0 / self.p.link_bandwidth.min() if self.devices else 0.0
        worst = finite.max(axis=1).sum() + self.p.stages["tool_seconds"].sum() + loads * stages
        worst += self.p.edges["bytes"].sum() * max(slow, 1.0 / _slowest_host(self.p))
        worst += self.p.link_latency.max() * len(self.p.edges)
        self.most = int((worst + self.p.workflows["arrival"].max()) / TICK) + 10 * stages + 10
        for s in range(stages):
            arrival = self.p.workflows[self.p.stages[s]["workflow"]]["arrival"]
            first = _ticks(float(arrival))
            self.turn[s] = self.model.new_int_var(first, self.most, "")
            self.end[s] = self.model.new_int_var(first, self.most, "")
            for d in range(self.devices):
                if np.isfinite(self.p.clean_seconds[s, d]):
                    self.on[s, d] = self.model.new_bool_var("")
        for s in range(stages):
            for e in self._edges(s):
                self.model.add(self.turn[s] >= self.end[int(self.p.edges[e]["parent"])])
            if self.p.stages[s]["kind"] == TOOL_STAGE:
                self._tool(s)
            else:
                self._stage(s)
        for d in range(self.devices):
            self._sequence(d)
        # Makespans count from the first arrival.
        self.zero = _ticks(float(self.p.workflows["arrival"].min()))
        last = self.model.new_int_var(0, self.most, "")
        self.model.add_max_equality(last, [self.end[s] for s in range(stages)])
        self.model.minimize(last)

    def _edges(self, s: int) -> range:
        stage = self.p.stages[s]
        return range(int(stage["parents_from"]), int(stage["parents_to"]))

    def _tool(self, s: int) -> None:
        """Starts at once; fetches over one link from each device."""
        seconds = _ticks(float(self.p.stages[s]["tool_seconds"]))
        self.model.add(self.end[s] >= self.turn[s] + seconds)
        for d in range(self.devices):
            terms = []
            for e in self._edges(s):
                edge = self.p.edges[e]
                key = (int(edge["parent"]), d)
                if edge["bytes"] <= 0 or key not in self.on:
                    continue
                time = self._from_host(edge, d)
                terms.append((self.on[key], time, int(edge["parent"])))
            self._arrive(s, terms, self.turn[s] + seconds, self.end[s], [])

    def _from_host(self, edge: Any, d: int) -> int:
        """Ticks to move an edge's bytes between the host and device ``d``."""
        size = float(edge["bytes"])
        bandwidth = float(self.p.devices[d]["host_bandwidth"])
        return _ticks(float(self.p.link_latency[d, d]) + size / bandwidth)

    def _arrive(
        self, s: int, terms: list[tuple[Any, int, int]], base: Any, reached: Any, under: list[Any]
    ) -> None:
        """``reached`` >= ``base`` + the transfers of one link, or those that left early."""
        if self.p.eager:
            for chosen, time, parent in terms:
                rest = base - self.turn[s]
                self.model.add(reached >= self.end[parent] + time + rest).only_enforce_if(
                    [chosen, *under]
                )
        elif terms:
            total = sum(time * chosen for chosen, time, _ in terms)
            constraint = self.model.add(reached >= base + total)
            if under:
                constraint.only_enforce_if(under)

    def _stage(self, s: int) -> None:
        """One device; on it set-up, then prefill and decode in one of the cases."""
        choices = [self.on[s, d] for d in range(self.devices) if (s, d) in self.on]
        self.model.add_exactly_one(choices)
        for d in range(self.devices):
            if (s, d) not in self.on:
                continue
            here = self.on[s, d]
            run = self.model.new_int_var(0, self.most, "")
            self._cases(s, d, run)
            self.model.add(self.end[s] >= self.turn[s] + run).only_enforce_if(here)
            if self.p.stages[s]["kind"] == MODEL_STAGE:
                load = self.model.new_bool_var("")
                time = _ticks(float(self.p.load_seconds[self.p.stages[s]["model"], d]))
                self.model.add(self.end[s] >= self.turn[s] + run + time).only_enforce_if(
                    [here, load]
                )
                self._load_if_new(s, d, load)
                self._loads[s, d] = load
            links: dict[int, list[tuple[Any, int, int]]] = {}
            for e in self._edges(s):
                edge = self.p.edges[e]
                parent = int(edge["parent"])
                if edge["bytes"] <= 0:
                    continue
                if self.p.stages[parent]["kind"] == TOOL_STAGE:
                    time = self._from_host(edge, d)
                    links.setdefault(-1, []).append((here, time, parent))
                    continue
                for other in range(self.devices):
                    if other != d and (parent, other) in self.on:
                        time = _ticks(
                            float(
                                self.p.link_latency[other, d]
                                + edge["bytes"] / self.p.link_bandwidth[other, d]
                            )
                        )
                        link = int(self.p.link[other, d])
                        if self.p.contention:
                            link = min(link, self.devices)  # all nodes through one interface
                        links.setdefault(link, []).append((self.on[parent, other], time, parent))
            for terms in links.values():
                self._arrive(s, terms, self.turn[s] + run, self.end[s], [here])

    def _behind(self, u: int, s: int, d: int) -> Any:
        """A literal that implies: ``u`` and ``s`` both run on ``d``, and ``u`` has ended before."""
        if (u, s, d) not in self._after:
            literal = self.model.new_bool_var("")
            self.model.add_implication(literal, self.on[u, d])
            self.model.add_implication(literal, self.on[s, d])
            self.model.add(self.turn[s] >= self.end[u]).only_enforce_if(literal)
            self._after[u, s, d] = literal
        return self._after[u, s, d]

    def _load_if_new(self, s: int, d: int, load: Any) -> None:
        """No load only behind a stage of the same model."""
        same = [
            self._behind(u, s, d)
            for u in range(self.p.stages.size)
            if u != s
            and self.p.stages[u]["model"] == self.p.stages[s]["model"]
            and (u, d) in self.on
        ]
        self.model.add_bool_or([load, self.on[s, d].negated(), *same])

    def _cases(self, s: int, d: int, run: Any) -> None:
        """``run`` >= prefill + decode, by what is cached."""
        here = self.on[s, d]
        stage = self.p.stages[s]
        if stage["kind"] == FIXED_STAGE:
            time = _ticks(float(self.p.clean_seconds[s, d]))
            self.model.add(run >= time).only_enforce_if(here)
            return
        queries = int(stage["queries"])
        donors: dict[int, list[Any]] = {0: []}
        if stage["prefix"] >= 0 and stage["prefix_tokens"] > 0:
            for u in range(self.p.stages.size):
                other = self.p.stages[u]
                if u != s and other["prefix"] == stage["prefix"] and (u, d) in self.on:
                    tokens = int(min(stage["prefix_tokens"], other["prefix_tokens"]))
                    if tokens > 0:
                        donors.setdefault(tokens, []).append(self._behind(u, s, d))
        parents = [
            e
            for e in self._edges(s)
            if self.p.edges[e]["same_model"]
            and self.p.edges[e]["inherited_tokens"] > 0
            and (int(self.p.edges[e]["parent"]), d) in self.on
        ]
        combinations: list[tuple[bool, ...]] = list(product((False, True), repeat=len(parents)))
        if len(combinations) * len(donors) > MOST_CASES:
            combinations = [(True,) * len(parents)]
            parents = []
        literals = []
        for tokens, behind in donors.items():
            for hits in combinations:
                case = self.model.new_bool_var("")
                literals.append(case)
                context = self._context(s, hits, parents)
                prefill = prefill_seconds(self.p, s, d, queries, float(tokens), context)
                time = _ticks(float(prefill + self.p.decode_seconds[s, d]))
                self.model.add(run >= time).only_enforce_if(case)
                if tokens > 0:
                    self.model.add_bool_or(behind).only_enforce_if(case)
                for hit, e in zip(hits, parents, strict=False):
                    if hit:
                        parent = int(self.p.edges[e]["parent"])
                        self.model.add_implication(case, self.on[parent, d])
        self.model.add_exactly_one([*literals, here.negated()])

    def _context(self, s: int, hits: tuple[bool, ...], parents: list[int]) -> float:
        if len(hits) > len(parents):
            return float(
                sum(
                    int(self.p.edges[e]["inherited_tokens"])
                    for e in self._edges(s)
                    if self.p.edges[e]["same_model"]
                )
            )
        return float(
            sum(
                int(self.p.edges[e]["inherited_tokens"])
                for hit, e in zip(hits, parents, strict=True)
                if hit
            )
        )

    def _sequence(self, d: int) -> None:
        """One stage at a time; a direct successor whose model does not fit beside loads."""
        members = [s for s in range(self.p.stages.size) if (s, d) in self.on]
        if not members:
            return
        arcs = [(0, 0, self.model.new_bool_var(""))]
        empty = arcs[0][2]
        for i, s in enumerate(members, 1):
            arcs.append((i, i, self.on[s, d].negated()))
            self.model.add_implication(self.on[s, d], empty.negated())
            first, last = self.model.new_bool_var(""), self.model.new_bool_var("")
            arcs += [(0, i, first), (i, 0, last)]
            for j, u in enumerate(members, 1):
                if i == j:
                    continue
                arc = self.model.new_bool_var("")
                arcs.append((i, j, arc))
                self.model.add(self.turn[u] >= self.end[s]).only_enforce_if(arc)
                if (u, d) in self._loads and not self._beside(s, u, d):
                    self.model.add_implication(arc, self._loads[u, d])
        self.model.add_circuit(arcs)

    def _beside(self, s: int, u: int, d: int) -> bool:
        """Whether the model of ``u`` may be resident on ``d`` while ``s`` runs there."""
        a, b = int(self.p.stages[s]["model"]), int(self.p.stages[u]["model"])
        if a < 0 or a == b:
            return True
        weights = self.p.models[a]["weight_bytes"] + self.p.models[b]["weight_bytes"]
        return bool(weights <= self.p.devices[d]["memory"])


def _slowest_host(p: ProblemArrays) -> float:
    bandwidth = p.devices["host_bandwidth"]
    positive = bandwidth[bandwidth > 0]
    return float(positive.min()) if positive.size else np.inf


def _ticks(seconds: float) -> int:
    """Rounded down: the model must not be dearer than what happens."""
    return int(seconds / TICK * (1 - 1e-12))
