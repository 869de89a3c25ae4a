"""What a planner may know of what is in flight, as a small problem with a state of its own."""

from __future__ import annotations

import numpy as np

from fate_gym.kernel.draws import is_uncertain
from fate_gym.kernel.excerpt.problem import fill_problem
from fate_gym.kernel.excerpt.selection import new_numbers, select
from fate_gym.kernel.excerpt.state import fill_state
from fate_gym.kernel.fork import fork, fork_sampled
from fate_gym.kernel.schema import EXPECTED, ProblemArrays, StateArrays, new_state

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

    `DecisionView.excerpt` renews it. Until more arrives or half of its stages have ended it keeps
    its numbers, and after that its arrays as long as there is room in them. Rows behind those of
    ``stages`` are of no workflow, and done.

    Args:
        p: the problem.
        picture: what a planner takes it for, of the same shapes; None: for what it is.

    Attributes:
        problem: its problem: nobody arrives in it.
        state: the run as it stands: what `DecisionView.fork` would give.
        stages, workflows: (n,) numbers in the whole problem, by number in the excerpt.
        arrived: workflows that have arrived so far.
    """

    problem: ProblemArrays
    state: StateArrays

    def __init__(self, p: ProblemArrays, picture: ProblemArrays | None = None) -> None:
        self._whole, self._picture = p, picture or p
        self._numbers = new_numbers(p)
        self._room: tuple[int, ...] = ()
        self._allocate((0, 0, 0, 0))
        self.stages = self.workflows = np.empty(0, np.int64)
        self.arrived, self._left = 0, 0

    def renew(self, live: StateArrays) -> bool:
        """Let it be the excerpt of a state. True: its numbers are new ones."""
        renumbered = live.arrived_count != self.arrived or 2 * live.known_left < self._left
        if renumbered:
            self.arrived, self._left = live.arrived_count, live.known_left
            self._select(live)
        fill_state(self._whole, live, self._numbers, self.problem, self._raw)
        if self._raw is not self.state:
            fork(self.problem, self._raw, self.state)
        self.state.origin = EXPECTED
        return renumbered

    def _select(self, live: StateArrays) -> None:
        """Let the problem be that of a state."""
        numbers = self._numbers
        select(self._whole, live, numbers)
        needed = (
            numbers.stages_count,
            numbers.workflows_count,
            numbers.prefixes_count,
            numbers.edges_count,
        )
        pairs = list(zip(needed, self._room, strict=True))
        if any(not need <= room <= max(32, 4 * need) for need, room in pairs):
            self._allocate(needed)
        fill_problem(self._picture, live, numbers, self.problem)
        self.stages = numbers.stages[: numbers.stages_count].copy()
        self.workflows = numbers.workflows[: numbers.workflows_count].copy()

    def sample(self, out: StateArrays, seed: int) -> None:
        """Make ``out`` a fork whose durations, lengths, choices and failures ``seed`` draws."""
        fork_sampled(self.problem, self._raw, out, seed)

    def _allocate(self, needed: tuple[int, ...]) -> None:
        """Room for so many stages, workflows, prefix keys and edges, and a half more."""
        p = self._picture
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
        self.state = self._raw = new_state(self.problem)
        if is_uncertain(p):
            # The run knows more of what is to come than a planner may.
            self._raw = new_state(self.problem)
