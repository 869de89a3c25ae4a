"""Values of actions by rollout with a list schedule: labels to learn from.

One step of policy improvement by rollout (Bertsekas, Tsitsiklis and Wu 1997): the value of an
action is that of the run in which it is taken now and a list schedule with state costs decides
afterwards. A network trained on such values (cost-to-go of the expert: AggreVaTe, Ross and Bagnell
2014) decides in a hundredth of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.actions import row_of, wait_action
from fate_gym.env.schema import Run
from fate_gym.jit import kernel
from fate_gym.kernel.advance import advance
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.schema import DONE, NO_LOG, PLACED, ProblemArrays, StateArrays, new_state
from fate_gym.sim import CompiledProblem
from policies.list_scheduling.policy import InstantPlanner
from policies.list_scheduling.rules import FCFS, FDWS, MAX_MIN, STATE, Rules

TIE = 0.02
"""Weight of the stages' mean end: among equal latencies, runs whose stages end earlier win."""

ORDERS = (FDWS, FCFS, MAX_MIN)
"""Orders of the list schedules that play rollouts: each is the best on some problem."""


class RolloutTeacher:
    """Values the actions in runs of one problem.

    Args:
        compiled: the problem.
    """

    def __init__(self, compiled: CompiledProblem) -> None:
        self._problem = compiled.arrays
        self._base = self._planner(ORDERS[0])
        self._state = new_state(compiled.arrays)

    def choose_base(self, state: StateArrays) -> None:
        """Use from now on the list schedule that is best when it continues from ``state``."""
        planners, values = [self._planner(order) for order in ORDERS], []
        for planner in planners:
            self._state.buffer[:] = state.buffer
            planner.play(self._problem, self._state, NO_LOG)
            values.append(total_latency(self._problem, self._state, np.inf))
        self._base = planners[int(np.argmin(values))]

    def _planner(self, order: int) -> InstantPlanner:
        # On batching devices waiting gains nothing in plays whose future is known.
        return list_planner(self._problem, order, waits=not self._problem.batching)

    def values(
        self,
        state: StateArrays,
        run: Run,
        mask: NDArray[np.int8],
        *,
        arrived_by: float = np.inf,
        until: float = np.inf,
    ) -> NDArray[np.float64]:
        """Return (A,) total latencies, s, plus a tie-break; inf where the mask is 0.

        Args:
            state: the state as a planner may see it (`DecisionView.fork`), or in training the true
                state, including its future.
            run: arrays of the environment, with the placements of the actions.
            mask: (A,) 1 for actions to value, which must be legal.
            arrived_by: time, s; workflows that arrive later do not count.
            until: time, s, at which plays end; the remaining work then runs undisturbed.
        """
        values = np.full(mask.size, np.inf)
        for action in np.flatnonzero(mask).tolist():
            self._state.buffer[:] = state.buffer
            if self._take(run, action):
                self._base.play(self._problem, self._state, NO_LOG, until)
                values[action] = total_latency(self._problem, self._state, arrived_by)
        return values

    def _take(self, run: Run, action: int) -> bool:
        """Take an action in the scratch state; False if it is to wait and no event is known."""
        if action == wait_action(run):
            return advance(self._problem, self._state, NO_LOG)
        row, table = row_of(run, action), run.placements
        stage, width = int(table.rows["stage"][row]), int(table.rows["width"][row])
        devices, counts = table.devices[row], table.counts[row]
        commit(self._problem, self._state, NO_LOG, stage, devices, counts, width, NOBODY)
        return True


def list_planner(p: ProblemArrays, order: int, *, waits: bool) -> InstantPlanner:
    """Return the list schedule with state costs that goes with an order.

    If it ``waits`` it plans anew at each event and commits only what starts at once; otherwise, and
    first come first served always, it commits all that is ready.
    """
    return InstantPlanner(p, Rules(order, STATE, int(waits and order != FCFS), 1))


@kernel
def total_latency(p: ProblemArrays, st: StateArrays, arrived_by: float) -> float:
    """Return the total latency of workflows that arrived by a time, plus `TIE` of stage ends."""
    workflows, stages = 0, 0
    latency, total = 0.0, 0.0
    for i in range(st.arrived_count):
        w = st.arrived[i]
        workflow = p.workflows[w]
        if st.workflows[w].arrived_at > arrived_by:
            continue
        end = 0.0
        for s in range(workflow.stages_from, workflow.stages_to):
            own = st.stages[s].end
            if st.stages[s].status != DONE:
                left = p.stages[s].upward_rank
                own = max(own, st.now) if st.stages[s].status == PLACED else st.now + left
            end = max(end, own)
            total += own
            stages += 1
        workflows += 1
        latency += end - st.workflows[w].arrived_at
    return latency + TIE * workflows * total / max(1, stages)
