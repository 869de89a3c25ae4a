"""`clairvoyant`: the best schedule that a genetic search finds with full knowledge of the future.

It is given the run's seed, and so every future duration, length, branch, failure and arrival.
Candidates are played on the run itself, and the best one is executed. Without uncertainty this is
a second search for the best known schedule, independent of that of `best_known`. With uncertainty
it gives the value of perfect information (Raiffa & Schlaifer 1961): as far as the search is good,
no policy without foresight can be expected to do better.
"""

from __future__ import annotations

from collections.abc import Sequence as Listing

import numpy as np

from fate_gym.kernel.ranks import find_tails
from fate_gym.kernel.schema import TOOL_STAGE
from fate_gym.sim import CompiledProblem, Simulator
from policies.base import Assignment, DecisionView
from policies.bounds import Seed, Some, Weight, Work
from policies.references.execution import Execution
from policies.references.genetic import evolve
from policies.references.sequences import (
    Search,
    leave_out_vanished,
    mark_critical,
    new_search,
    play,
    write_trace,
)
from policies.registry import make_policy

FIRST = (
    "heft_boosted", "heft", "heft_sharded", "dls_boosted", "max_min_boosted", "sufferage_boosted",
    "peft_boosted", "eft", "min_min_boosted", "least_loaded", "lookahead_heft_boosted",
)  # fmt: skip
"""Policies whose schedules form the initial population."""


class Clairvoyant:
    """Searches at the start of the run, knowing its future, then executes the schedule found.

    Counters: ``clairvoyant_value``, makespan found by the search, seconds.

    Args:
        name: the policy's name in results.
        work: work of all plays together, in stages placed.
        members: size of the initial population.
        heat: mean share by which a new schedule may be worse than the one that it replaces.
        seed: seed of the search.
    """

    def __init__(
        self,
        *,
        name: str = "clairvoyant",
        work: Work = 4_000_000,
        members: Some = 8,
        heat: Weight = 0.003,
        seed: Seed = 0,
    ) -> None:
        self.name = name
        self._work, self._members, self._heat, self._seed = work, members, heat, seed
        self.counters: dict[str, float] = {}

    def reset(self, view: DecisionView, seed: int) -> None:
        """Search for a schedule of the run with this seed, future arrivals included."""
        search, value = search_run(
            view.compiled, seed, work=self._work, members=self._members, heat=self._heat,
            search_seed=self._seed,
        )  # fmt: skip
        first = float(view.compiled.arrays.workflows["arrival"][view.compiled.follows < 0].min())
        self.counters = {"clairvoyant_value": value - first}
        self._execution = Execution(search)

    def decide(self, view: DecisionView) -> Listing[Assignment]:
        """Execute the schedule."""
        return self._execution.due(view)


def search_run(
    compiled: CompiledProblem,
    seed: int,
    *,
    work: int,
    members: int,
    heat: float,
    search_seed: int = 0,
) -> tuple[Search, float]:
    """Search for the best sequence of the run that ``seed`` determines.

    Returns:
        The search, whose ``best`` is the sequence found, and the end of that sequence, seconds.
    """
    p = compiled.arrays
    c, population = new_search(p, members, seed)
    c.tables.random += 2 * search_seed
    if (
        compiled.problem.options.uncertainty == 0
        and compiled.problem.options.length_uncertainty == 0
    ):
        c.tables.tail[:] = _tails(compiled)
    simulator = Simulator(compiled, seed=seed)
    for number, member in enumerate(population):
        write_trace(p, simulator.run(make_policy(FIRST[number % len(FIRST)]), seed=seed), member)
        leave_out_vanished(c, member)
        play(c, member, np.inf)
        mark_critical(c, member)
    return c, float(evolve(c, work, heat))


def _tails(compiled: CompiledProblem) -> np.ndarray:
    """Compute lower bounds (S,) on the seconds from each stage's end to the last end."""
    p = compiled.arrays
    floor = compiled.floor_seconds.min(axis=1)
    floor = np.where(p.stages["kind"] == TOOL_STAGE, compiled.tool_seconds, floor / p.max_shards)
    floor[(p.stages["chooser"] >= 0) | ~np.isfinite(floor)] = 0.0
    tails = np.empty(p.stages.size)
    find_tails(p, floor, tails)
    return tails
