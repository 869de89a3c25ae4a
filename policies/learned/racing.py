"""Who decides under uncertainty: an agent and list schedules race in drawn futures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import play
from fate_gym.env.observer import Observer
from fate_gym.env.output import Observation
from fate_gym.kernel.schema import NO_LOG, new_state
from fate_gym.sim import CompiledProblem, DecisionView
from policies.learned.teacher import ORDERS, list_planner, total_latency
from policies.list_scheduling.policy import InstantPlanner

FUTURES = 32
"""Futures of a race, unless more than `MOST` decisions of the agent are needed for them."""
MOST = 4_096
"""Most decisions of the agent in a race: it takes a tenth of a millisecond for each."""
FEWEST = 4
"""Fewer futures say nothing, and there is no race."""
ERRORS = 2.0
"""Standard errors by which a list schedule must be ahead of the agent to replace it.

Without them the race goes to the luckiest of four: differences are a few per cent, and so is
chance.
"""
FIRST_SEED = 8_000_000_000
"""First seed of the drawn futures; unlikely to be the seed of a run."""

Preference = Callable[[Observation], NDArray[np.float32]]
"""(A,) scores of the actions for an observation."""


class Race:
    """Lets an agent or a list schedule decide, whichever does better in drawn futures.

    When work arrives, the agent and the list schedules of `policies.learned.teacher` play the known
    work to its end in the same futures. The list schedule with the lowest mean latency decides
    until more work arrives, if it is clearly ahead of the agent, which decides otherwise (policy
    switching; Chang, Givan and Chong 2004, Discrete Event Dynamic Systems 14, pp. 309-341). Single
    actions are not compared in this way: what one of them changes is far less than what chance
    does.

    Args:
        compiled: the problem.
        observer: what observes the problem for the agent.
        prefer: the agent.
    """

    def __init__(self, compiled: CompiledProblem, observer: Observer, prefer: Preference) -> None:
        self._problem, self._prefer = compiled.arrays, prefer
        self._episode = observer.rehearse()
        # Where stages wait, what is uncertain comes to light, on batching devices too.
        self._planners = [list_planner(self._problem, order, waits=True) for order in ORDERS]
        self._state = new_state(self._problem)
        self._arrived = self._drawn = 0
        self._leader: InstantPlanner | None = None

    def leader(self, view: DecisionView) -> InstantPlanner | None:
        """Return the list schedule that decides now; None: the agent does."""
        arrived = len(view.arrived)
        if arrived > self._arrived:
            self._arrived = arrived
            self._leader = self._run(view)
        return self._leader

    def _run(self, view: DecisionView) -> InstantPlanner | None:
        futures = min(FUTURES, MOST // max(1, int(view.state.known_left)))
        if futures < FEWEST:
            return None
        gains = np.empty((futures, len(self._planners)))
        for future in range(futures):
            seed = FIRST_SEED + self._drawn
            self._drawn += 1
            agents = self._agent_total(view, seed)
            for i, planner in enumerate(self._planners):
                state = view.fork(self._state, seed=seed)
                planner.play(self._problem, state, NO_LOG)
                gains[future, i] = agents - total_latency(self._problem, state, np.inf)
        mean, error = gains.mean(axis=0), gains.std(axis=0, ddof=1) / np.sqrt(futures)
        clear = np.where(mean > ERRORS * error, mean, 0.0)
        return self._planners[int(clear.argmax())] if clear.any() else None

    def _agent_total(self, view: DecisionView, seed: int) -> float:
        """Play the agent in a future; return the total latency, s."""
        episode = self._episode
        view.fork(episode.run.state, seed=seed)
        play.enter(episode.run, episode.buffer, 0)
        while not (episode.run.episode.ended or episode.run.episode.truncated):
            action = int(self._prefer(episode.observation).argmax())
            play.step(episode.run, NO_LOG, episode.buffer, action)
        return float(total_latency(self._problem, episode.run.state, np.inf))
