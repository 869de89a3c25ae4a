"""`best_known`: the best schedule found offline, for the headroom that a policy leaves.

The planner of `fate_rollout` searches for a fixed budget among plans of all that has arrived, and
the plan is executed as it is until more arrives. What was found is kept in ``best_known.json``
by a digest of the compiled problem, costs included, with the command that found it; a change of the
cost model makes every entry void by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TypedDict

import numpy as np

from fate_gym.kernel.schema import ProblemArrays
from fate_gym.sim import CompiledProblem
from policies.base import Assignment, DecisionView
from policies.bounds import Count, MaxShards, Seed, Work
from policies.fate.plans.objective import Objective, check_objective
from policies.fate.rollout.incumbent import Incumbent

HEATS = (0.01, 0.003, 0.0)
"""Share by which a change may make a plan worse, at the start of each round."""


class Entry(TypedDict):
    """The best makespan known of one instance, seconds, and where it is from."""

    problem: str
    makespan: float
    found_by: str
    command: str


class BestKnown:
    """Searches at the start of the run, then executes. Only sensible without noise.

    Args:
        name: the policy's name in results.
        objective: as for `policies.fate.rollout.policy.FateRollout`.
        max_shards: devices that may share a stage.
        work: of all plays together (`policies.fate.plans.schema.Workspace`).
        rounds: searches; each begins with the best plan, with another random sequence.
        seed: of the search.
    """

    def __init__(
        self,
        *,
        name: str = "best_known",
        objective: Objective = "makespan",
        max_shards: MaxShards = 4,
        work: Work = 4_000_000,
        rounds: Count = 3,
        seed: Seed = 0,
    ) -> None:
        self.name = name
        check_objective(objective, name)
        self._objective, self._most = objective, max_shards
        self._work, self._rounds, self._seed = work, rounds, seed
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Search for a plan of all that is known now."""
        self._incumbent = Incumbent(
            view, objective=self._objective, max_shards=self._most, seed=self._seed
        )
        self._instant = -1
        self._planned = False
        self.counters = {}

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Execute the plan."""
        if view.instant == self._instant or not view.any_open:
            return []
        self._instant = view.instant
        arrived = self._incumbent.update(view)
        if arrived or not self._planned:
            self._planned = True
            self.counters["best_known_value"] = self._search()
        return self._incumbent.starting(view)

    def _search(self) -> float:
        incumbent = self._incumbent
        value = incumbent.revalue(arrived=True)
        share = self._work // (2 * self._rounds)
        for number in range(self._rounds):
            heat = HEATS[number % len(HEATS)]
            incumbent.tune(value, share, heat)
            value = incumbent.improve(share, heat)
        return value


def problem_key(compiled: CompiledProblem) -> str:
    """A digest of everything that decides a makespan: stages, cluster, costs.

    Of the values by name: it stays when they lie elsewhere, or a field is added that is zero here.
    """
    digest = hashlib.sha256()
    for name in ProblemArrays.fields:
        values = np.asarray(getattr(compiled.arrays, name))
        for column in values.dtype.names or ("",):
            numbers = values[column] if column else values
            if numbers.any():
                digest.update(f"{name}.{column}".encode())
                digest.update(numbers.astype(np.float64).tobytes())
    return digest.hexdigest()[:16]


def load_best_known(path: Path | None = None) -> dict[str, Entry]:
    """The entries kept, by `problem_key`; none if there is no file."""
    source = path or files("policies.references").joinpath("best_known.json")
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    entries: dict[str, Entry] = json.loads(text)
    return entries


def headroom_captured(
    policy: Mapping[str, float], strongest: Mapping[str, float], best: Mapping[str, float]
) -> dict[str, float]:
    """(strongest - policy) / (strongest - best) of each instance with at least 1 % of headroom.

    Args:
        policy: makespan by instance.
        strongest: the same of the strongest baseline.
        best: the best known; a policy or a baseline that is better counts as best known.
    """
    captured = {}
    for name, value in policy.items():
        if name not in strongest or name not in best:
            continue
        least = min(best[name], value, strongest[name])
        room = strongest[name] - least
        if room >= 0.01 * strongest[name]:
            captured[name] = (strongest[name] - value) / room
    return captured
