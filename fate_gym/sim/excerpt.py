"""What a planner may know of what is in flight, as a small problem with a state of its own."""

from __future__ import annotations

import numpy as np

from fate_gym.kernel.excerpt.problem import fill_problem
from fate_gym.kernel.excerpt.selection import new_numbers, select
from fate_gym.kernel.excerpt.state import fill_state
from fate_gym.kernel.fork import fork, fork_sampled
from fate_gym.kernel.schema import ProblemArrays, StateArrays, new_state

CONSTANT = (
    "devices",
    "models",
    "outages",
    "load_seconds",
    "link_bandwidth",
    "link_latency",
    "link",
)
"""Tables of a problem that every excerpt of it has as they are."""


class Excerpt:
    """The stages in flight of a run, and what they may find, with numbers of their own.

    `DecisionView.excerpt` renews it. The arrays have room for a few more stages than there are:
    these are done, and of no workflow (their number is ``stages.size`` or more).

    Args:
        p: the problem, or a picture of it of the same shapes.
        most: stages that are not placed: of more, those that may begin soonest belong to it.

    Attributes:
        problem: its problem: nobody arrives in it.
        state: the run as it stands: what `DecisionView.fork` would give.
        stages, workflows: (n,) numbers in the whole problem, by number in the excerpt.
        unplaced: stages of it that are not placed.
        cut: stages of arrived workflows that are left out, ended ones apart.
        arrived: workflows that have arrived so far.
    """

    problem: ProblemArrays
    state: StateArrays

    def __init__(self, p: ProblemArrays, most: int) -> None:
        self._whole, self._most = p, most
        self._numbers = new_numbers(p)
        self._room: tuple[int, ...] = (0, 0, 0, 0)
        self._allocate((1, 1, 0, 0))
        self.stages = self.workflows = np.empty(0, np.int64)
        self.unplaced = self.cut = self.arrived = 0

    def renew(self, live: StateArrays) -> bool:
        """Let it be the excerpt of a state. True: its arrays are new ones, of other sizes."""
        numbers = self._numbers
        select(self._whole, live, self._most, numbers)
        needed = (
            numbers.stages_count,
            numbers.workflows_count,
            numbers.prefixes_count,
            numbers.edges_count,
        )
        grown = any(
            not need <= room <= max(16, 4 * need)
            for need, room in zip(needed, self._room, strict=True)
        )
        if grown:
            self._allocate(needed)
        fill_problem(self._whole, live, numbers, self.problem)
        fill_state(self._whole, live, numbers, self.problem, self._raw)
        fork(self.problem, self._raw, self.state)
        self.stages = numbers.stages[: numbers.stages_count]
        self.workflows = numbers.workflows[: numbers.workflows_count]
        self.unplaced, self.cut = numbers.unplaced, numbers.cut
        self.arrived = live.arrived_count
        return grown

    def sample(self, out: StateArrays, seed: int) -> None:
        """Make ``out`` a fork whose durations, lengths and choices are drawn by ``seed``."""
        fork_sampled(self.problem, self._raw, out, seed)

    def _allocate(self, needed: tuple[int, ...]) -> None:
        """Arrays with room for so many stages, workflows, prefix keys and edges, and a half more."""
        p = self._whole
        most = (p.stages.size, p.workflows.size, p.prefixes.size, p.edges.size)
        self._room = tuple(
            min(limit, max(need + need // 2, 8)) for need, limit in zip(needed, most, strict=True)
        )
        stages, workflows, prefixes, edges = self._room
        self.problem = ProblemArrays.allocate(
            S=stages,
            W=workflows,
            Q=prefixes,
            E=edges,
            D=p.devices.size,
            M=p.models.size,
            O=p.outages.size,
            A=0,
            T=0,
        )
        for name, field in ProblemArrays.fields.items():
            if field.scalar:
                setattr(self.problem, name, getattr(p, name))
        for name in CONSTANT:
            getattr(self.problem, name)[...] = getattr(p, name)
        self._raw, self.state = new_state(self.problem), new_state(self.problem)
