"""The toll on device time in streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import DecisionView, Simulator, Trace
from policies import make_policy
from policies.base import Assignment
from policies.fate.arrivals import Arrivals
from policies.fate.blinding import Sight
from policies.fate.device_time import DeviceTime, speed_ratios
from policies.fate.rollout.incumbent import Incumbent

MODEL = "Qwen2.5-7B"
PLANNERS = ("fate", "fate_rollout")


def call(number: int, arrival: float, *, prompt: int, output: int, prefix: int = 0) -> Workflow:
    """A workflow of one stage; those with a prefix share one."""
    stage = Stage(
        id="call",
        model=MODEL,
        prompt_tokens=prompt,
        output_tokens=output,
        prefix_group="session" if prefix else None,
        prefix_tokens=prefix,
    )
    return Workflow(id=f"w{number}", stages=[stage], arrival=arrival)


def problem(workflows: list[Workflow], *gpus: str, execution: str = "exclusive") -> Problem:
    devices = tuple(Device(id=f"d{n}", gpu=gpu) for n, gpu in enumerate(gpus))
    cluster = Cluster(id="c", devices=devices)
    return Problem.build(cluster.model_copy(update={"execution": execution}), workflows)


class Watching:
    """Places ready stages on device 0, and records the tolls at each decision."""

    name = "watching"

    def reset(self, view: DecisionView, seed: int) -> None:
        self._arrivals = Arrivals()
        self._time = DeviceTime(view.compiled.arrays, thrift=0.5)
        self.seen: list[np.ndarray] = []

    def decide(self, view: DecisionView) -> list[Assignment]:
        new = self._arrivals.update(view)
        # As in a stream from the start, to see the first toll too.
        self._time.update(new, stream=True)
        self.seen.append(self._time.tolls)
        return [Assignment(view.ready[0], (0,))]


def seen(problem: Problem) -> list[np.ndarray]:
    policy = Watching()
    Simulator(problem).run(policy)
    return policy.seen


def test_speed_ratios() -> None:
    seconds = np.array([[2.0, 4.0, np.inf], [0.0, 0.0, 0.0], [9.0, 3.0, 6.0]])
    expected = [[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [1 / 3, 1.0, 0.5]]
    np.testing.assert_allclose(speed_ratios(seconds), expected)


def test_the_toll_goes_with_the_square_of_the_speed_for_the_work_seen_so_far() -> None:
    # Prefill and decoding differ in how much faster the one device is than the other.
    flows = [call(0, 0.0, prompt=8000, output=1), call(1, 50.0, prompt=10, output=200)]
    made = problem(flows, "H100-SXM", "A10G")
    ratios = speed_ratios(Simulator(made).compiled.clean_seconds)
    assert ratios[0, 1] != pytest.approx(ratios[1, 1])
    for count, tolls in enumerate(seen(made), start=1):
        np.testing.assert_allclose(tolls, 0.5 * ratios[:count].mean(axis=0) ** 2)


def test_there_is_no_toll_on_devices_that_batch() -> None:
    flows = [call(n, float(n), prompt=100, output=10) for n in range(3)]
    for tolls in seen(problem(flows, "H100-SXM", "A10G", execution="batching")):
        assert (tolls == 0.0).all()


def run(problem: Problem, policy: str, thrift: float) -> Trace:
    return Simulator(problem).run(make_policy(policy, thrift=thrift))


@pytest.mark.parametrize("policy", PLANNERS)
def test_work_that_arrives_at_once_has_no_toll(policy: str) -> None:
    flows = [call(n, 0.0, prompt=2000 * (n + 1), output=30, prefix=9000) for n in range(8)]
    made = problem(flows, "H100-SXM", "A100-80", "A10G")
    charged, free = run(made, policy, 5.0), run(made, policy, 0.0)
    np.testing.assert_array_equal(charged.shards, free.shards)


class ListSchedule:
    """Follows the list schedule that a planner's plays begin with."""

    name = "list schedule"

    def __init__(self, thrift: float) -> None:
        self._sight = Sight(thrift=thrift)

    def reset(self, view: DecisionView, seed: int) -> None:
        self._incumbent = Incumbent(view, objective="latency", max_shards=1, sight=self._sight)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        self._incumbent.update(view)
        self._incumbent.write_base()
        self._incumbent.take(self._incumbent.context.base)
        return self._incumbent.starting(view)


@pytest.mark.parametrize(("thrift", "stays"), [(0.0, False), (1.0, True)])
def test_with_a_toll_a_turn_waits_for_the_device_with_its_prefix(
    thrift: float, stays: bool
) -> None:
    # The session's device is busy for two seconds longer than the other one would take to compute
    # the prefix of its second turn again.
    flows = [
        call(0, 0.0, prompt=100, output=5, prefix=30_000),
        call(1, 0.0, prompt=100, output=200),
        call(2, 60.0, prompt=100, output=500),
        call(3, 60.1, prompt=100, output=5, prefix=30_000),
    ]
    made = problem(flows, "A100-80", "A100-80")
    shards = Simulator(made).run(ListSchedule(thrift)).shards
    device, end = dict(zip(shards["stage"], shards["device"], strict=True)), shards["end"]
    assert device[0] == device[2] != device[1]
    assert (device[3] == device[0]) == stays
    assert (end[3] > end[2]) == stays
