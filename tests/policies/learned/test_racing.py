"""Races under uncertainty: who wins, when, and on what knowledge."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fate_gym.env.observer import Observer
from fate_gym.env.output import Observation
from fate_gym.env.spec import MASK
from fate_gym.problem import Problem
from fate_gym.sim import Simulator
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.learned import racing
from policies.learned.policy import Learned
from policies.learned.racing import Race
from policies.learned.teacher import ORDERS
from tests.policies.learned.problems import OPTIONS, random_agent, stream, two_speeds


def uncertain(problem: Problem, noise: float = 0.3) -> Problem:
    options = problem.options.model_copy(update={"uncertainty": noise})
    return problem.model_copy(update={"options": options})


class Judge:
    """Races for an agent that takes the last legal action, or the first."""

    def __init__(self, problem: Problem, *, last: bool, seed: int = 0) -> None:
        self.simulator = Simulator(problem)
        self.simulator.reset(seed)
        self.asked, self._last = 0, last
        observer = Observer(OPTIONS, self.simulator.compiled)
        self.race = Race(self.simulator.compiled, observer, self._prefer)

    def _prefer(self, observation: Observation) -> NDArray[np.float32]:
        self.asked += 1
        mask = observation[MASK].astype(np.float32)
        mask[-1] = 0.0  # never wait
        scores = np.arange(mask.size, dtype=np.float32)
        return np.where(mask > 0, scores if self._last else -scores, np.float32(-np.inf))

    def agent_wins(self) -> bool:
        return self.race.leader(self.simulator.view()) is None


def test_a_bad_agent_loses_and_a_sensible_one_does_not() -> None:
    """The last candidate of the last slot is on the slow device, or on both."""
    problem = uncertain(two_speeds())
    assert not Judge(problem, last=True).agent_wins()
    # One stage on the fast device: everybody agrees, and among equals the agent decides.
    assert Judge(uncertain(two_speeds(1)), last=False).agent_wins()


def test_a_race_sees_nothing_of_the_run_to_come_and_changes_nothing() -> None:
    problem = uncertain(two_speeds(3))
    winners = set()
    for seed in range(5):
        judge = Judge(problem, last=True, seed=seed)
        before = judge.simulator.state.buffer.copy()
        winners.add(judge.agent_wins())
        assert judge.asked > 0
        np.testing.assert_array_equal(judge.simulator.state.buffer, before)
    assert len(winners) == 1


def test_there_is_one_race_for_each_arrival() -> None:
    judge = Judge(uncertain(two_speeds()), last=False)
    judge.agent_wins()
    asked = judge.asked
    judge.agent_wins()
    assert judge.asked == asked > 0


@pytest.mark.parametrize(("ahead", "agent_wins"), [(0.1, True), (1.0, False), (-1.0, True)])
def test_a_list_schedule_has_to_be_clearly_ahead(
    monkeypatch: pytest.MonkeyPatch, ahead: float, agent_wins: bool
) -> None:
    """By two standard errors: with 32 futures that differ by one, by more than 0.36."""
    agents = iter([10.0 + ahead + (-1.0) ** future for future in range(racing.FUTURES)])
    judge = Judge(uncertain(two_speeds()), last=True)
    monkeypatch.setattr(judge.race, "_agent_total", lambda *_: next(agents))
    monkeypatch.setattr(racing, "total_latency", lambda *_: 10.0)
    assert judge.agent_wins() == agent_wins


def test_where_plays_would_take_too_long_the_agent_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = uncertain(two_speeds())
    monkeypatch.setattr(racing, "MOST", racing.FEWEST * problem.stage_count - 1)
    judge = Judge(problem, last=True)
    assert judge.agent_wins()
    assert judge.asked == 0


def test_what_wins_the_race_is_played() -> None:
    """An untrained agent that looks ahead is far better than alone, and no worse than the worst."""
    problem = uncertain(stream())
    simulator = Simulator(problem)
    alone, racing_ones, lists = [], [], []
    for seed in range(6):
        alone.append(simulator.run(Learned.of_agent(random_agent()), seed=seed).latencies.mean())
        trace = simulator.run(Learned.of_agent(random_agent(), best_of=2), seed=seed)
        assert_valid(trace)
        racing_ones.append(trace.latencies.mean())
        for name in ("fdws_boosted", "eft", "max_min_boosted"):
            lists.append(simulator.run(make_policy(name), seed=seed).latencies.mean())
    assert len(ORDERS) == 3
    assert np.mean(racing_ones) < 0.9 * np.mean(alone)
    assert np.mean(racing_ones) <= max(np.reshape(lists, (6, 3)).mean(axis=0)) * 1.02
