"""The environment's observation of a run that the simulator plays, for agents as policies.

`WorkflowSchedulingEnv` owns its run. Here another caller owns it (`Simulator.run`), and the same
window, placements, mask and features are computed from a `DecisionView`. A test compares the two
bit for bit.
"""

from __future__ import annotations

from typing import NamedTuple

from fate_gym.env import actions, play
from fate_gym.env.options import EnvOptions
from fate_gym.env.output import Observation
from fate_gym.env.progress import count_placement
from fate_gym.env.schema import Run
from fate_gym.env.source import Instance
from fate_gym.env.spec import Limits, Spec
from fate_gym.errors import IllegalActionError
from fate_gym.jit import Ints
from fate_gym.kernel.schema import new_state
from fate_gym.sim import Assignment, CompiledProblem, DecisionView


class Rehearsal(NamedTuple):
    """Arrays for playing forks of an observed run as the environment would (`env.play`).

    Attributes:
        run: arrays of an episode with a state of its own, to be overwritten with the fork.
        buffer: where `env.play` writes observations, as lane 0.
        observation: the observation there.
    """

    run: Run
    buffer: Ints
    observation: Observation


class Observer:
    """Observes one run from its first decision to its last.

    Args:
        options: options of the environment; the reward is ignored.
        compiled: the problem that is played.
        limits: sizes of the spaces; None: as the problem needs, unless the options set them.

    Raises:
        InputError: the problem is larger than the spaces.
    """

    def __init__(
        self, options: EnvOptions, compiled: CompiledProblem, limits: Limits | None = None
    ) -> None:
        self.spec = Spec(options, Limits.of(compiled) if limits is None else limits)
        self._instance = Instance(compiled, self.spec)
        output = self.spec.output()
        self._buffer = output.new()
        self._observation = output.observation(self._buffer)
        self._run: Run | None = None

    def reset(self) -> None:
        """Prepare for the first decision of a new run."""
        self._run = None

    @property
    def arrays(self) -> Run:
        """The arrays of the run as of the last observation, for compiled code."""
        assert self._run is not None, "nothing has been observed"
        return self._run

    def rehearse(self) -> Rehearsal:
        """Allocate arrays for playing forks of the run."""
        output = self.spec.output()
        buffer = output.new()
        run = self._instance.run(new_state(self._instance.compiled.arrays))
        return Rehearsal(run, buffer, output.observation(buffer))

    def observe(self, view: DecisionView) -> Observation:
        """Return what the environment would show now; the next call overwrites the arrays."""
        # This is the live state: the features leave out what must stay hidden (noise, arrivals).
        if self._run is None:
            self._run = self._instance.run(view.state)
            play.enter(self._run, self._buffer, 0)
        else:
            play.look(self._run._replace(state=view.state), self._buffer, 0)
        return self._observation

    def take(self, action: int) -> Assignment | None:
        """Return the placement of an action and count it as made; None: wait.

        Raises:
            IllegalActionError: the action is illegal.
        """
        run = self.arrays
        if action == actions.wait_action(run) and run.episode.can_wait:
            return None
        assignment = actions.placement_of(run, action)
        if assignment is None:
            raise IllegalActionError(f"action {action} is illegal")
        count_placement(run, assignment.stage)
        return assignment
