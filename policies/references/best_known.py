"""`best_known`: the best schedule found offline, for the headroom that a policy leaves.

If one is kept (`policies.references.kept`), that is executed: the best of two long searches, this
one and `clairvoyant`'s. Else the planner of `fate_rollout` searches for a fixed budget among plans
of all that has arrived, and the plan is executed as it is until more arrives.
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
"""Share by which a change may make a plan worse, at the start of each round."""


class BestKnown:
    """Takes the schedule that is kept, or searches, then executes. Only sensible without noise.

    Counters: ``best_known_value``, what the plan is worth, by the objective, seconds;
    ``best_known_kept``, 1 if it was kept.

    Args:
        name: the policy's name in results.
        objective: as for `policies.fate.rollout.policy.FateRollout`.
        max_shards: devices that may share a stage.
        work: of all plays together (`policies.fate.plans.schema.Workspace`).
        rounds: searches; each begins with the best plan, with another random sequence.
        seed: of the search.
        kept: whether a schedule that is kept is taken; False: always search.
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
        """Look for a schedule that is kept, or prepare a search."""
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
