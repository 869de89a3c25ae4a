"""The part of a run in flight that a planner may know, as a small problem with its own state."""

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
"""Tables that an excerpt copies unchanged from the problem."""


class Excerpt:
    """The stages in flight of a run and all that affects them, renumbered.

    `DecisionView.excerpt` brings it up to date. The numbering stays until more workflows arrive or
    half of the stages have ended; the arrays stay as long as they have room. Surplus rows beyond
    those of ``stages`` belong to no workflow and count as done.

    Args:
        p: the problem.
        picture: the problem as the planner assumes it, with the same shapes; None: as it is.

    Attributes:
        problem: its problem; no workflow arrives in it.
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
        """Update to the state ``live``; return whether the numbering is new."""
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
        """Select what belongs to the excerpt of a state, and fill the problem with it."""
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
        """Allocate half again the stages, workflows, prefix keys and edges ``needed``."""
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
            # The live state knows more of the future than a planner may.
            self._raw = new_state(self.problem)
