"""Looking ahead: what is compared, and when the score alone decides."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.env.observer import Observer
from fate_gym.problem import Problem
from fate_gym.sim import Simulator, compile_problem
from fate_gym.validator import assert_valid
from policies.learned import lookahead
from policies.learned.lookahead import LEAST, LookAhead
from policies.learned.policy import Learned
from tests.policies.learned.problems import OPTIONS, random_agent, smoke, stream, two_speeds


class Preferring:
    """Looks ahead for a made-up agent that prefers the first action to all others by a margin."""

    def __init__(self, margin: float) -> None:
        self.simulator = Simulator(compile_problem(two_speeds()))
        observer = Observer(OPTIONS, self.simulator.compiled)
        mask = observer.observe(self.simulator.view())["action_mask"]
        self.run = observer.arrays
        self.scores = np.where(mask > 0, -margin, -np.inf).astype(np.float32)

    def device_after(self, favourite: int, best_of: int = 100) -> int:
        """Return the device that is chosen for the first stage when one device is preferred."""
        self.scores[self._action(favourite)] = 0.0
        chosen = LookAhead(self.simulator.compiled, best_of).choose(
            self.simulator.view(), self.run, self.scores
        )
        return int(self.run.placements.devices[chosen, 0])

    def _action(self, device: int) -> int:
        table = self.run.placements
        rows = (table.rows["width"] == 1) & (table.devices[:, 0] == device)
        return int(np.flatnonzero(rows)[0])


FAST, SLOW = 0, 1


def test_what_the_agent_almost_rules_out_is_not_compared() -> None:
    assert Preferring(LEAST - 0.5).device_after(SLOW) == FAST
    assert Preferring(LEAST + 0.5).device_after(SLOW) == SLOW


def test_only_as_many_as_asked_for_are_compared() -> None:
    assert Preferring(1.0).device_after(SLOW, best_of=1) == SLOW


def test_what_would_take_too_long_to_play_is_left_to_the_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages = two_speeds().stage_count
    monkeypatch.setattr(lookahead, "FARTHEST", stages - 1)
    assert Preferring(1.0).device_after(SLOW) == SLOW
    monkeypatch.setattr(lookahead, "FARTHEST", stages)
    assert Preferring(1.0).device_after(SLOW) == FAST


@pytest.mark.parametrize("problem", [*smoke(), stream(), two_speeds()])
def test_no_stage_waits_in_the_queue_of_an_exclusive_device(problem: Problem) -> None:
    policy = Learned.of_agent(random_agent(), best_of=4)
    trace = Simulator(problem).run(policy)
    assert_valid(trace)
    for device in np.unique(trace.shards["device"]):
        rows = np.sort(trace.shards[trace.shards["device"] == device], order="committed")
        assert np.all(rows["committed"][1:] >= rows["end"][:-1] - 1e-9)
