"""Playing the environment with the simulator's policies."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium

from fate_gym.env.actions import nearest_action
from fate_gym.env.env import Step, WorkflowSchedulingEnv
from fate_gym.env.faults import bad
from fate_gym.env.wrappers import unwrapped
from fate_gym.errors import IllegalActionError
from fate_gym.sim import Assignment, Decision, DecisionView, Policy, Retention, Trace


class PolicyAdapter:
    """Plays any `fate_gym.sim.Policy` through the environment, with the simulator's trace.

    A placement that is among the actions is played as that action. Policies may also place stages
    beyond the window, split queries differently, use more devices than ``max_shards``, copy
    prefixes or rank what is cached: then the environment is given the placement itself
    (`WorkflowSchedulingEnv.place_next`). Wrappers see such a step with the nearest legal action;
    its info has ``direct_placement`` set, so that learning from recorded steps can leave it out. A
    larger ``window`` and ``max_shards`` make such steps rarer.

    Args:
        policy: the policy that decides.

    Attributes:
        actions: decisions of this episode that were actions.
        direct: placements of this episode that were not.
        retentions: how often the policy has ranked what is cached.
        last_action: the action that the last step was given.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.actions = 0
        self.direct = 0
        self.retentions = 0
        self.last_action = -1
        self._env: WorkflowSchedulingEnv | None = None
        self._view: DecisionView | None = None
        self._decided: deque[Decision] = deque()

    def begin(self, env: gymnasium.Env[Any, Any]) -> None:
        """Prepare for the episode that ``env.reset`` has begun."""
        own = unwrapped(env, "PolicyAdapter")
        self.actions = self.direct = self.retentions = 0
        self._decided.clear()
        self._env, self._view = own, own.view()
        self.policy.reset(self._view, own.noise_seed)

    def decide(self) -> tuple[Assignment | None, list[Retention]]:
        """Return the policy's next assignment (None: wait) and the retentions that follow it.

        Call it once for each step. A policy that returns several placements at once is asked again
        when all of them have been played.
        """
        if self._env is None or self._view is None:
            remedy = "call begin(env) after env.reset()"
            raise bad("PolicyAdapter", None, "no episode has begun", remedy)
        if not self._decided:
            if not self._view.ready:
                return None, []  # the run has nothing to decide
            self._decided.extend(self.policy.decide(self._view))
            for retention in self._leading():
                self._env.retain(retention)
        if not self._decided:
            return None, []
        assignment = self._decided.popleft()
        assert isinstance(assignment, Assignment)
        return assignment, self._leading()

    def _leading(self) -> list[Retention]:
        """Return the retentions before the next assignment."""
        found: list[Retention] = []
        while self._decided and isinstance(self._decided[0], Retention):
            found.append(self._decided.popleft())  # type: ignore[arg-type]
        self.retentions += len(found)
        return found

    def step(self, env: gymnasium.Env[Any, Any]) -> Step:
        """Play the policy's next decision; return what ``env.step`` returns.

        Raises:
            IllegalActionError: the policy waits where no event lies ahead, or places a stage
                where the simulator does not allow it.
        """
        assignment, then = self.decide()
        own = self._env
        assert own is not None
        action = own.action_of(assignment, exact=True)
        if action is not None and not then:
            self.actions += 1
        elif assignment is None:
            raise IllegalActionError(
                "waiting is illegal when no event lies ahead: place a ready stage"
            )
        else:
            self.direct += 1
            own.place_next(assignment, *then)
            if action is None:
                action = nearest_action(own.arrays, assignment)
        self.last_action = action
        outcome: Step = env.step(action)
        return outcome

    def play(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> Trace:
        """Play a whole episode.

        Args:
            env: the environment, wrapped or not, made with ``record=True``.
            seed: seed of the reset.
            options: options of the reset.
        """
        env.reset(seed=seed, options=options)
        self.begin(env)
        own = unwrapped(env, "PolicyAdapter")
        while not own.ended:
            self.step(env)
        return own.trace(self.policy.name)
