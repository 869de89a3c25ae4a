"""What each action is worth when a list schedule goes on from there: labels to imitate.

One step of policy improvement by rollout (Bertsekas, Tsitsiklis and Wu 1997): the value of an
action is that of the run in which it is taken now and HEFT with state costs decides from then on.
A network that is trained on these values decides in a hundredth of the time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled
from fate_gym.env.layout import frame_view
from fate_gym.env.placements import deal
from fate_gym.sim import CompiledProblem
from fate_gym.sim.engine import advance, commit
from fate_gym.sim.layout import DONE, NO_LOG, Array, Buffer, Log, problem_view, state_view
from policies.list_core import STATE, UPWARD_RANK, Choices, Rules, make_choices, play

TIE = 0.02
"""Weight of the mean end of all stages: of two runs that end together, what is done early."""

BASE = Rules(UPWARD_RANK, STATE, 1, 1)


class RolloutTeacher:
    """Values the actions of one problem's runs.

    Args:
        compiled: the problem.
    """

    def __init__(self, compiled: CompiledProblem) -> None:
        stages, shards = compiled.shape[0], compiled.shape[5]
        self._problem = compiled.buffer
        self._choices = make_choices(stages, shards)
        self._rooms = [np.zeros(compiled.state_bytes, np.uint8) for _ in range(2)]

    def values(self, fork: Buffer, frame: Buffer, mask: NDArray[np.int8]) -> NDArray[np.float64]:
        """(A,) mean end of the known workflows, seconds, ties broken; inf for illegal actions.

        Args:
            fork: the state as a planner may see it (`DecisionView.fork`).
            frame: the environment's frame, which has the placements behind the actions.
            mask: (A,) legal actions.
        """
        out = np.full(mask.size, np.inf)
        room, scratch = self._rooms
        _values(self._problem, fork, frame, mask, NO_LOG, self._choices, room, scratch, BASE, out)
        return out


@compiled
def _values(
    problem: Buffer,
    state: Buffer,
    frame: Buffer,
    mask: Array,
    log: Log,
    choices: Choices,
    room: Buffer,
    scratch: Buffer,
    base: Rules,
    out: Array,
) -> None:
    p = problem_view(problem)
    fr = frame_view(frame, p)
    positions = fr.head[0].positions
    last = mask.size - 1
    for a in range(mask.size):
        if not mask[a]:
            continue
        room[:] = state
        if a == last:
            # An arrival may be the only event ahead: a planner does not know of it.
            if not advance(problem, room, log):
                continue
        else:
            k = deal(p, fr, a)
            commit(problem, room, log, fr.window[a // positions], fr.team, fr.deal, k)
        play(problem, room, log, base, choices, scratch)
        st = state_view(room, p)
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
        out[a] = ends / max(1, workflows) + TIE * total / max(1, stages)


__all__ = ["TIE", "RolloutTeacher"]
