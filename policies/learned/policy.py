"""Trained agents as policies, run and reported like all others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.features import GLOBAL
from fate_gym.env.observer import Observer
from fate_gym.env.output import Observation
from fate_gym.env.spec import MASK
from fate_gym.errors import InputError
from fate_gym.kernel.draws import is_uncertain
from fate_gym.sim import CompiledProblem
from policies.base import Assignment, DecisionView
from policies.bounds import Count
from policies.learned.agent import Agent, make_agent
from policies.learned.checkpoint import load_checkpoint
from policies.learned.lookahead import LookAhead
from policies.learned.racing import Race


class NotFiniteScoresError(InputError):
    """The weights of an agent are finite, but its scores are not."""


class Learned:
    """Plays a trained agent from a checkpoint: the action with the highest score, one at a time.

    The checkpoint contains the options of the environment that the agent was trained in, and
    observations are made by the environment's own code (`fate_gym.env.observer`). The agent does
    not wait while nothing runs and something can be placed.

    Args:
        name: the policy's name in results.
        checkpoint: name of a shipped checkpoint, or a directory.
        sample: sample actions from the softmax of the scores instead of taking the best.
        best_of: compare that many actions, those with the highest scores, by playing on from each
            (`policies.learned.lookahead`). Where durations, lengths, branches or devices are
            uncertain, plays of what is expected mislead; any number above 1 then lets the agent
            race against list schedules (`policies.learned.racing`). 1: trust the scores.

    Raises:
        InputError: there is no such checkpoint, it is damaged or does not fit this version, or the
            extra ``rl`` is missing.
    """

    def __init__(
        self,
        *,
        name: str = "learned",
        checkpoint: str | Path,
        sample: bool = False,
        best_of: Count = 1,
    ) -> None:
        loaded = load_checkpoint(checkpoint)
        if sample and loaded.facts.values == "q":
            raise InputError(
                "the scores of this agent are values, not probabilities",
                field="params.sample",
                remedy="leave params.sample out",
            )
        self._setup(name, make_agent(loaded), sample, best_of)

    @classmethod
    def of_agent(cls, agent: Agent, *, name: str = "learned", best_of: int = 1) -> Learned:
        """Make a policy of an agent in memory, such as one that is being trained."""
        policy = cls.__new__(cls)
        policy._setup(name, agent, sample=False, best_of=best_of)
        return policy

    def reset(self, view: DecisionView, seed: int) -> None:
        """Prepare for a run.

        Raises:
            InputError: the problem is larger than the agent's network allows.
        """
        self._observer = self._observer_of(view.compiled)
        self._rng = np.random.default_rng(seed)
        self._ahead: LookAhead | None = None
        self._race: Race | None = None
        if self._best_of > 1 and is_uncertain(view.compiled.arrays):
            self._race = Race(view.compiled, self._observer, self._prefer)
        elif self._best_of > 1:
            self._ahead = LookAhead(view.compiled, self._best_of)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Return the chosen placement; nothing in order to wait.

        Raises:
            NotFiniteScoresError: the weights are finite, but the scores are not.
        """
        leader = None if self._race is None else self._race.leader(view)
        if leader is not None:
            self._observer.reset()  # it has to look anew when the agent decides again
            return [] if leader.done(view) else leader.decide(view)
        scores = self._prefer(self._observer.observe(view))
        if self._sample:
            noise = self._rng.gumbel(size=scores.size)
            scores = scores + noise.astype(np.float32)
        if self._ahead is None:
            action = int(scores.argmax())
        else:
            action = self._ahead.choose(view, self._observer.arrays, scores)
        assignment = self._observer.take(action)
        return [] if assignment is None else [assignment]

    def _prefer(self, observation: Observation) -> NDArray[np.float32]:
        """Return (A,) scores of the actions; -inf: illegal, or not to be taken."""
        scores = self._agent.scores(observation)
        if not math.isfinite(scores.max()):
            raise NotFiniteScoresError(
                "the scores are not finite: the weights are too large",
                source=f"policy '{self.name}'",
                field="checkpoint",
                remedy="the training failed: take an earlier checkpoint",
            )
        if observation["globals"][GLOBAL.busy] == 0.0 and observation[MASK][:-1].any():
            # Waiting would only be for a repair or an arrival, which no ready stage needs.
            scores[-1] = -np.inf
        return scores

    def _setup(self, name: str, agent: Agent, sample: bool, best_of: int) -> None:
        self.name = name
        self._agent, self._sample, self._best_of = agent, sample, best_of
        self._problem: CompiledProblem | None = None

    def _observer_of(self, compiled: CompiledProblem) -> Observer:
        """Return the observer of a problem; its static features are computed once per problem."""
        if self._problem is not compiled:
            try:
                self._known = Observer(self._agent.options, compiled, self._agent.limits)
            except InputError as error:
                raise InputError(
                    f"the agent cannot look at this problem: {error.fault}",
                    source=f"policy '{self.name}'",
                    item=error.item,
                    field="checkpoint",
                    remedy="use an agent with a pointer network, or train one on larger problems",
                ) from None
            self._problem = compiled
        else:
            self._known.reset()
        return self._known
