"""The environment's observation of a run that the simulator plays: an agent as a policy.

`WorkflowSchedulingEnv` owns its run. Here the run is somebody else's (`Simulator.run`), and the
same window, placements, mask and features are worked out from a `DecisionView`. A test compares
the two bit for bit.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled, plain
from fate_gym.env import play
from fate_gym.env.env import Observation
from fate_gym.env.layout import FRAME_HEAD, FrameView, facts_view, frame_view
from fate_gym.env.observation import observe
from fate_gym.env.reward import survey
from fate_gym.env.source import Instance
from fate_gym.env.spec import EnvOptions, Limits, Spec
from fate_gym.errors import IllegalActionError
from fate_gym.sim import Assignment, CompiledProblem, DecisionView
from fate_gym.sim.layout import Buffer, problem_view, state_view


class Observer:
    """Observes one run from its first decision to its last.

    Args:
        options: of the environment; its reward does not matter.
        compiled: the problem that is played.
        limits: sizes of the spaces; None: as the problem needs, unless the options say.

    Raises:
        InputError: the problem is larger than the spaces.
    """

    def __init__(
        self, options: EnvOptions, compiled: CompiledProblem, limits: Limits | None = None
    ) -> None:
        self.spec = Spec(options, Limits.of(compiled) if limits is None else limits)
        self._instance = Instance(compiled, self.spec)
        self._frame: Buffer = np.zeros(self.spec.frame_bytes(compiled), np.uint8)
        self.reset()
        # Its sizes stand in the frame's head.
        self._frame_view: FrameView = plain(frame_view)(self._frame, compiled.view)
        self._out: Buffer = np.zeros(self.spec.bytes, np.uint8)
        self._observation: Observation = self.spec.arrays(self._out, None)

    def reset(self) -> None:
        """Before the first decision of a new run."""
        self._frame[:] = 0
        self._frame[: FRAME_HEAD.itemsize] = self.spec.head(0, 1)
        self._begun = False

    @property
    def frame(self) -> Buffer:
        """The frame (`fate_gym.env.layout`) of the last observation; for compiled code."""
        return self._frame

    def observe(self, view: DecisionView) -> Observation:
        """What the environment would show now. The arrays are written anew by the next call."""
        # The live state: what it must not show (noise, arrivals to come) the features leave out.
        buffers = self._instance.compiled.buffer, self._instance.facts, view._buffer, self._frame
        if self._begun:
            _look(*buffers, self._out)
        else:
            play.enter(*buffers, self._out)
            self._begun = True
        return self._observation

    def take(self, action: int) -> Assignment | None:
        """What an action does, and note that it will be done; None: wait.

        Raises:
            IllegalActionError: the action is illegal.
        """
        if action == self.spec.actions - 1 and self._observation["action_mask"][action]:
            return None
        assignment = self.spec.placement(self._frame_view, self._instance.compiled, action)
        if assignment is None:
            raise IllegalActionError(f"action {action} is illegal")
        compiled = self._instance.compiled
        _note(compiled.buffer, self._instance.facts, self._frame, assignment.stage)
        return assignment


@compiled
def _look(problem: Buffer, facts: Buffer, state: Buffer, frame: Buffer, out: Buffer) -> None:
    p = problem_view(problem)
    st = state_view(state, p)
    fr = frame_view(frame, p)
    h = fr.head[0]
    if st.head[0].instants > h.instants:
        survey(p, st, facts_view(facts, p), fr)
    h.time = st.head[0].now
    observe(problem, facts, state, frame, out)


@compiled
def _note(problem: Buffer, facts: Buffer, frame: Buffer, stage: int) -> None:
    p = problem_view(problem)
    frame_view(frame, p).head[0].work -= facts_view(facts, p).stages[stage].best


__all__ = ["Observer"]
