"""What each action is worth when a list schedule goes on from there: labels to imitate.

One step of policy improvement by rollout (Bertsekas, Tsitsiklis and Wu 1997): the value of an
action is that of the run in which it is taken now and HEFT with state costs decides from then on.
A network that is trained on these values decides in a hundredth of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.actions import row_of, wait_action
from fate_gym.env.schema import Run
from fate_gym.jit import kernel
from fate_gym.kernel.advance import advance
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.schema import DONE, NO_LOG, ProblemArrays, StateArrays, new_state
from fate_gym.sim import CompiledProblem
from policies.list_scheduling.policy import InstantPlanner
from policies.list_scheduling.rules import STATE, UPWARD_RANK, Rules

TIE = 0.02
"""Weight of the mean end of all stages: of two runs that end together, what is done early."""

BASE = Rules(UPWARD_RANK, STATE, 1, 1)


class RolloutTeacher:
    """Values the actions of one problem's runs.

    Args:
        compiled: the problem.
    """

    def __init__(self, compiled: CompiledProblem) -> None:
        self._problem = compiled.arrays
        self._planner = InstantPlanner(compiled.arrays, BASE)
        self._state = new_state(compiled.arrays)

    def values(self, fork: StateArrays, run: Run, mask: NDArray[np.int8]) -> NDArray[np.float64]:
        """(A,) mean end of the known workflows, seconds, ties broken; inf for illegal actions.

        Args:
            fork: the state as a planner may see it (`DecisionView.fork`).
            run: of the environment, which has the placements behind the actions.
            mask: (A,) legal actions.
        """
        values = np.full(mask.size, np.inf)
        for action in np.flatnonzero(mask).tolist():
            self._state.buffer[:] = fork.buffer
            if self._take(run, action):
                self._planner.play(self._problem, self._state, NO_LOG)
                values[action] = _mean_end(self._problem, self._state)
        return values

    def _take(self, run: Run, action: int) -> bool:
        """An arrival may be the only event ahead, of which a planner does not know: False."""
        if action == wait_action(run):
            return advance(self._problem, self._state, NO_LOG)
        row, table = row_of(run, action), run.placements
        stage, width = int(table.rows["stage"][row]), int(table.rows["width"][row])
        devices, counts = table.devices[row], table.counts[row]
        commit(self._problem, self._state, NO_LOG, stage, devices, counts, width, NOBODY)
        return True


@kernel
def _mean_end(p: ProblemArrays, st: StateArrays) -> float:
    """Mean end of the workflows whose first stage has ended, and a little of all stages' ends."""
    workflows, stages = 0, 0
    ends, total = 0.0, 0.0
    for w in range(p.workflows.size):
        workflow = p.workflows[w]
        if st.stages[workflow.stages_from].status != DONE:
            continue  # not known yet
        end = 0.0
        for s in range(workflow.stages_from, workflow.stages_to):
            end = max(end, st.stages[s].end)
            total += st.stages[s].end
            stages += 1
        workflows += 1
        ends += end
    return ends / max(1, workflows) + TIE * total / max(1, stages)
