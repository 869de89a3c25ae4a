"""What has arrived."""

from __future__ import annotations

import pytest

from fate_gym.sim import DecisionView, Simulator
from policies.base import Assignment
from policies.fate.arrivals import Arrivals
from tests.policies.fate.test_device_time import call, problem


class Watching:
    """Places ready stages on device 0, and records what is new at each decision."""

    name = "watching"

    def reset(self, view: DecisionView, seed: int) -> None:
        self._arrivals = Arrivals()
        self.seen: list[tuple[list[slice], bool]] = []

    def decide(self, view: DecisionView) -> list[Assignment]:
        new = self._arrivals.update(view)
        self.seen.append((new, self._arrivals.stream))
        assert self._arrivals.update(view) == []
        return [Assignment(view.ready[0], (0,))]


@pytest.mark.parametrize(
    ("arrivals", "streams"),
    [([0.0, 0.0, 0.0], [False] * 3), ([5.0, 5.0, 60.0], [False, False, True])],
)
def test_each_workflow_is_new_once(arrivals: list[float], streams: list[bool]) -> None:
    flows = [call(n, time, prompt=100, output=10) for n, time in enumerate(arrivals)]
    policy = Watching()
    Simulator(problem(flows, "H100-SXM")).run(policy)
    new = [stages for found, _ in policy.seen for stages in found]
    assert new == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert [stream for _, stream in policy.seen] == streams
