"""The CP-SAT model of `policies.references.oracle_cpsat`. S stages, D devices; times are ticks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from fate_gym.kernel.cost import prefill_seconds
from fate_gym.kernel.prefixes import left_by
from fate_gym.kernel.schema import FIXED_STAGE, MODEL_STAGE, TOOL_STAGE, ProblemArrays

TICK = 1e-4
"""Seconds per tick, the model's unit of time."""

MOST_CASES = 64
"""Most cases of a stage on a device; beyond that all contexts count as cached (optimistic)."""


def ticks(seconds: float) -> int:
    """Convert seconds to ticks, rounded down: the model must not cost more than the run."""
    return int(seconds / TICK * (1 - 1e-12))


class OracleModel:
    """A whole problem as a CP-SAT model.

    Attributes:
        model: the model to solve.
        on: (s, d) -> literal: stage s runs on device d; only for devices that can run it.
        turn, end: s -> variables of start and end.
        zero: the first arrival, from which makespans are measured, ticks.
    """

    def __init__(self, p: ProblemArrays) -> None:
        self._p = p
        self.model = cp_model.CpModel()
        self.on: dict[tuple[int, int], Any] = {}
        self.turn: dict[int, Any] = {}
        self.end: dict[int, Any] = {}
        self._after: dict[tuple[int, int, int], Any] = {}
        self._loads: dict[tuple[int, int], Any] = {}
        self._most = _horizon(p)
        stages = range(p.stages.size)
        for s in stages:
            first = ticks(p.workflows["arrival"][p.stages["workflow"][s]])
            self.turn[s] = self.model.new_int_var(first, self._most, "")
            self.end[s] = self.model.new_int_var(first, self._most, "")
            for d in np.flatnonzero(p.clean_seconds[s] < np.inf).tolist():
                self.on[s, d] = self.model.new_bool_var("")
        for s in stages:
            for edge in self._edges(s):
                self.model.add(self.turn[s] >= self.end[edge["parent"]])
            if p.stages["kind"][s] == TOOL_STAGE:
                self._tool(s)
            else:
                self._stage(s)
        for d in range(p.devices.size):
            self._sequence(d)
        self.zero = ticks(p.workflows["arrival"].min())
        last = self.model.new_int_var(0, self._most, "")
        self.model.add_max_equality(last, [self.end[s] for s in stages])
        self.model.minimize(last)

    def _edges(self, s: int) -> Any:
        stage = self._p.stages[s]
        return self._p.edges[stage["parents_from"] : stage["parents_to"]]

    def _tool(self, s: int) -> None:
        """Model a tool: it starts at once and fetches its inputs over one link per device."""
        seconds = ticks(self._p.stages["tool_seconds"][s])
        self.model.add(self.end[s] >= self.turn[s] + seconds)
        for d in range(self._p.devices.size):
            terms = [
                (self.on[edge["parent"], d], self._from_host(edge, d), edge["parent"])
                for edge in self._edges(s)
                if edge["bytes"] > 0 and (edge["parent"], d) in self.on
            ]
            self._arrive(s, terms, self.turn[s] + seconds, self.end[s], [])

    def _from_host(self, edge: Any, d: int) -> int:
        """Compute the ticks to move an edge's bytes between the host and device ``d``."""
        bandwidth = self._p.devices["host_bandwidth"][d]
        return ticks(self._p.link_latency[d, d] + edge["bytes"] / bandwidth)

    def _arrive(
        self, s: int, terms: list[tuple[Any, int, int]], base: Any, reached: Any, under: list[Any]
    ) -> None:
        """Constrain ``reached`` >= ``base`` + one link's transfers; if eager, they start early."""
        if self._p.eager:
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
        """Model a stage: exactly one device, set-up there, then prefill and decode in one case."""
        hosts = [d for d in range(self._p.devices.size) if (s, d) in self.on]
        self.model.add_exactly_one([self.on[s, d] for d in hosts])
        for d in hosts:
            here = self.on[s, d]
            run = self.model.new_int_var(0, self._most, "")
            self._cases(s, d, run)
            self.model.add(self.end[s] >= self.turn[s] + run).only_enforce_if(here)
            if self._p.stages["kind"][s] == MODEL_STAGE:
                load = self.model.new_bool_var("")
                time = ticks(self._p.load_seconds[self._p.stages["model"][s], d])
                self.model.add(self.end[s] >= self.turn[s] + run + time).only_enforce_if(
                    [here, load]
                )
                self._load_if_new(s, d, load)
                self._loads[s, d] = load
            for terms in self._links(s, d).values():
                self._arrive(s, terms, self.turn[s] + run, self.end[s], [here])

    def _links(self, s: int, d: int) -> dict[int, list[tuple[Any, int, int]]]:
        """List possible transfers to ``d`` by link: (literal, ticks, parent). -1: from the host."""
        p = self._p
        links: dict[int, list[tuple[Any, int, int]]] = {}
        for edge in self._edges(s):
            parent = edge["parent"]
            if edge["bytes"] <= 0:
                continue
            if p.stages["kind"][parent] == TOOL_STAGE:
                terms = links.setdefault(-1, [])
                terms.append((self.on[s, d], self._from_host(edge, d), parent))
                continue
            for other in range(p.devices.size):
                if other != d and (parent, other) in self.on:
                    seconds = p.link_latency[other, d] + edge["bytes"] / p.link_bandwidth[other, d]
                    link = int(p.link[other, d])
                    if p.contention:
                        link = min(link, p.devices.size)  # all nodes through one interface
                    terms = links.setdefault(link, [])
                    terms.append((self.on[parent, other], ticks(seconds), parent))
        return links

    def _behind(self, u: int, s: int, d: int) -> Any:
        """Return a literal that implies that ``u`` and ``s`` run on ``d`` and ``u`` ends before."""
        if (u, s, d) not in self._after:
            literal = self.model.new_bool_var("")
            self.model.add_implication(literal, self.on[u, d])
            self.model.add_implication(literal, self.on[s, d])
            self.model.add(self.turn[s] >= self.end[u]).only_enforce_if(literal)
            self._after[u, s, d] = literal
        return self._after[u, s, d]

    def _others(self, s: int, d: int) -> list[int]:
        """Stages with the same model as ``s`` that could run on ``d``."""
        same = np.flatnonzero(self._p.stages["model"] == self._p.stages["model"][s])
        return [u for u in same.tolist() if u != s and (u, d) in self.on]

    def _load_if_new(self, s: int, d: int, load: Any) -> None:
        """Force a load unless some stage of the same model ran on ``d`` before."""
        same = [self._behind(u, s, d) for u in self._others(s, d)]
        self.model.add_bool_or([load, self.on[s, d].negated(), *same])

    def _cases(self, s: int, d: int, run: Any) -> None:
        """Constrain ``run`` >= prefill + decode, depending on what is cached."""
        here = self.on[s, d]
        stage = self._p.stages[s]
        if stage["kind"] == FIXED_STAGE:
            time = ticks(self._p.clean_seconds[s, d])
            self.model.add(run >= time).only_enforce_if(here)
            return
        donors: dict[int, list[Any]] = {0: []}
        if stage["prefix"] >= 0 and stage["prefix_tokens"] > 0:
            for u in self._others(s, d):
                tokens = left_by(self._p, u, s)
                if tokens > 0:
                    donors.setdefault(tokens, []).append(self._behind(u, s, d))
        literals = []
        contexts = self._contexts(s, d, MOST_CASES // len(donors))
        for tokens, behind in donors.items():
            for context, parents in contexts:
                case = self.model.new_bool_var("")
                literals.append(case)
                prefill = prefill_seconds(self._p, s, d, stage["queries"], tokens, context)
                time = ticks(prefill + self._p.decode_seconds[s, d])
                self.model.add(run >= time).only_enforce_if(case)
                if tokens > 0:
                    self.model.add_bool_or(behind).only_enforce_if(case)
                for parent in parents:
                    self.model.add_implication(case, self.on[parent, d])
        self.model.add_exactly_one([*literals, here.negated()])

    def _contexts(self, s: int, d: int, most: int) -> list[tuple[int, list[int]]]:
        """List (inherited tokens cached on ``d``, parents that must run there for it) by case.

        If there were more than ``most`` cases: one in which all are cached, wherever parents run.
        """
        edges = [edge for edge in self._edges(s) if edge["same_model"]]
        here = [
            edge
            for edge in edges
            if edge["inherited_tokens"] > 0 and (edge["parent"], d) in self.on
        ]
        if 2 ** len(here) > most:
            return [(sum(int(edge["inherited_tokens"]) for edge in edges), [])]
        cases = []
        for hits in product((False, True), repeat=len(here)):
            cached = [edge for edge, hit in zip(here, hits, strict=True) if hit]
            tokens = sum(int(edge["inherited_tokens"]) for edge in cached)
            cases.append((tokens, [edge["parent"] for edge in cached]))
        return cases

    def _sequence(self, d: int) -> None:
        """Sequence the stages on ``d``; load a model that does not fit with the previous one."""
        members = [s for s in range(self._p.stages.size) if (s, d) in self.on]
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
        a, b = self._p.stages["model"][[s, u]]
        if a < 0 or a == b:
            return True
        weights = self._p.models["weight_bytes"]
        return bool(weights[a] + weights[b] <= self._p.devices["memory"][d])


def _horizon(p: ProblemArrays) -> int:
    """Compute an upper bound on all ends, ticks: all stages in turn, at their worst."""
    stages = p.stages.size
    hosts = p.devices["host_bandwidth"][p.devices["host_bandwidth"] > 0]
    slowest = min(p.link_bandwidth.min(), hosts.min() if hosts.size else np.inf)
    clean = np.where(p.clean_seconds < np.inf, p.clean_seconds, 0.0)
    worst = clean.max(axis=1).sum() + p.stages["tool_seconds"].sum()
    worst += p.load_seconds.max(initial=0.0) * stages
    worst += p.edges["bytes"].sum() / slowest + p.link_latency.max() * p.edges.size
    return int((worst + p.workflows["arrival"].max()) / TICK) + 10 * stages + 10
