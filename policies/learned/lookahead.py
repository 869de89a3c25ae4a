"""Looking ahead: the actions that an agent prefers, compared by playing on from each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.actions import row_of, wait_action
from fate_gym.env.schema import Run
from fate_gym.kernel.openings import starts_now
from fate_gym.kernel.schema import StateArrays, new_state
from fate_gym.sim import CompiledProblem, DecisionView
from policies.learned.teacher import RolloutTeacher

FARTHEST = 256
"""Most unfinished stages that are played: it bounds a decision's cost in runs of any size.

Plays always go to the end of the known work. Where they stop earlier, they favour actions that
leave long work for later.
"""

LEAST = 4.0
"""How far an action's score may be below the best (e^-4 is a fiftieth of its probability).

Plays do not know who is still to come; the agent has learned it, and rules out the rest.
"""


class LookAhead:
    """Compares actions of one problem by playing on from each with a list schedule.

    The list schedule (`policies.learned.teacher`) plays the known work to its end, and the lowest
    mean latency wins. On exclusive devices only placements that start now are compared, and
    waiting: in a queue a stage could no longer make way for one that arrives, and plays, which
    know of no arrivals, show no price for that.

    Args:
        compiled: the problem, without uncertainty.
        best_of: most actions to compare, besides waiting.
    """

    def __init__(self, compiled: CompiledProblem, best_of: int) -> None:
        self._problem, self._best_of = compiled.arrays, best_of
        self._teacher = RolloutTeacher(compiled)
        self._state = new_state(compiled.arrays)

    def choose(self, view: DecisionView, run: Run, scores: NDArray[np.float32]) -> int:
        """Return the action to take; where there is too much to play, that of the best score.

        Args:
            view: the run.
            run: arrays of the environment, with the placements of the actions.
            scores: (A,) the agent's scores; -inf: an action that is illegal, or not to be taken.
        """
        if view.state.known_left > FARTHEST:
            return int(scores.argmax())
        state = view.fork(self._state)
        compared = self._compared(state, run, scores)
        if compared.size == 1:
            return int(compared[0])
        wanted = np.zeros(scores.size, np.int8)
        wanted[compared] = 1
        values = self._teacher.values(state, run, wanted)
        # Among equal values the one that the agent prefers.
        return int(compared[values[compared].argmin()])

    def _compared(
        self, state: StateArrays, run: Run, scores: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Return the actions to compare, those that the agent prefers first."""
        order = np.argsort(-scores, kind="stable")
        order = order[np.isfinite(scores[order])]
        wait = wait_action(run)
        chosen: list[int] = []
        for action in order.tolist():
            if len(chosen) < self._best_of:
                if action == wait or self._problem.batching or self._starts(state, run, action):
                    chosen.append(action)
            elif action == wait:
                chosen.append(action)
        if not chosen:
            return order[:1]
        compared = np.array(chosen)
        return compared[scores[compared] >= scores[compared[0]] - LEAST]

    def _starts(self, state: StateArrays, run: Run, action: int) -> bool:
        """Whether the placement of an action starts now."""
        row, table = row_of(run, action), run.placements
        stage, width = int(table.rows["stage"][row]), int(table.rows["width"][row])
        return all(
            starts_now(
                self._problem,
                state,
                stage,
                int(table.devices[row, k]),
                int(table.counts[row, k]),
            )
            for k in range(width)
        )
