"""`best_known`: the best schedule found offline, to measure the headroom left by a policy.

A stored schedule (`policies.references.kept`), the best of two long searches (this one and that of
`clairvoyant`), is executed if there is one. Otherwise the planner of `fate_rollout` searches with a
fixed budget for a plan of all work that has arrived, and executes it unchanged until more arrives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fate_gym.problem import Objective
from policies.base import Assignment, DecisionView
from policies.bounds import Count, MaxShards, Seed, Work
from policies.fate.plans.objective import check_objective
from policies.fate.rollout.incumbent import Incumbent
from policies.references.execution import Execution
from policies.references.kept import kept_schedule, load_best_known, problem_key

HEATS = (0.01, 0.003, 0.0)
"""Mean share by which a change may worsen a plan, at the start of each round."""


class BestKnown:
    """Loads a stored schedule, or searches for one, then executes it. Only sensible without noise.

    Counters: ``best_known_value``, objective value of the plan, seconds; ``best_known_kept``, 1 if
    the schedule was stored.

    Args:
        name: the policy's name in results.
        objective: as for `policies.fate.rollout.policy.FateRollout`.
        max_shards: most devices that may share a stage.
        work: work of all plays together (`policies.fate.plans.schema.Workspace`).
        rounds: number of searches; each starts from the best plan, with new random numbers.
        seed: seed of the search.
        kept: True: use a stored schedule if there is one; False: always search.
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
        kept: bool = True,
    ) -> None:
        self.name = name
        check_objective(objective, name)
        self._objective, self._most = objective, max_shards
        self._work, self._rounds, self._seed = work, rounds, seed
        self._kept = load_best_known() if kept and objective == "makespan" else {}
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Look up a stored schedule, or prepare a search."""
        self.counters = {}
        self._execution: Execution | None = None
        entry = self._kept.get(problem_key(view.compiled)) if self._kept else None
        if entry is not None:
            self._execution = Execution(kept_schedule(view.compiled, entry))
            self.counters = {"best_known_value": entry["makespan"], "best_known_kept": 1.0}
            return
        self._incumbent = Incumbent(
            view, objective=self._objective, max_shards=self._most, seed=self._seed
        )
        self._instant = -1
        self._planned = False

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Execute the plan."""
        if self._execution is not None:
            return self._execution.due(view)
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
        value = incumbent.revalue(arrived=True, budget=self._work)
        share = self._work // (2 * self._rounds)
        for number in range(self._rounds):
            heat = HEATS[number % len(HEATS)]
            incumbent.tune(value, share, heat)
            value = incumbent.improve(share, heat)
        return value


def headroom_captured(
    policy: Mapping[str, float], strongest: Mapping[str, float], best: Mapping[str, float]
) -> dict[str, float]:
    """Compute (strongest - policy) / (strongest - best) for instances with at least 1 % headroom.

    Args:
        policy: the policy's makespan by instance.
        strongest: makespan of the strongest baseline by instance.
        best: best known makespan by instance; a better policy or baseline replaces it.
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
