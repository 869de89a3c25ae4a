"""The price of device time in streams."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import DecisionView, Simulator, Trace
from policies import make_policy
from policies.base import Assignment
from policies.fate.device_time import DeviceTime, speed_ratios
from policies.fate.plans.schema import new_context

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
    """Places ready stages on device 0, and records the prices at each decision."""

    name = "watching"

    def reset(self, view: DecisionView, seed: int) -> None:
        p = view.compiled.arrays
        self._time = DeviceTime(p, time_price=3.0, thrift=0.5)
        self._work = new_context(p, view.state, 1, 1, 0).work
        self._work.workflows["weight"][0] = 0.25
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def decide(self, view: DecisionView) -> list[Assignment]:
        self._time.update(view)
        self._time.charge(self._work)
        devices = self._work.devices
        self.seen.append((devices["price"].copy(), devices["toll"].copy()))
        return [Assignment(view.ready[0], (0,))]


def seen(problem: Problem) -> list[tuple[np.ndarray, np.ndarray]]:
    policy = Watching()
    Simulator(problem).run(policy)
    return policy.seen


def test_speed_ratios() -> None:
    seconds = np.array([[2.0, 4.0, np.inf], [0.0, 0.0, 0.0], [9.0, 3.0, 6.0]])
    expected = [[1.0, 0.5, 0.0], [0.0, 0.0, 0.0], [1 / 3, 1.0, 0.5]]
    np.testing.assert_allclose(speed_ratios(seconds), expected)


def test_the_price_is_the_square_of_the_speed_for_the_work_seen_so_far() -> None:
    # Prefill and decoding differ in how much faster the one device is than the other.
    flows = [call(0, 0.0, prompt=8000, output=1), call(1, 50.0, prompt=10, output=200)]
    made = problem(flows, "H100-SXM", "A10G")
    ratios = speed_ratios(Simulator(made).compiled.clean_seconds)
    assert ratios[0, 1] != pytest.approx(ratios[1, 1])
    for count, (prices, tolls) in enumerate(seen(made), start=1):
        value = ratios[:count].mean(axis=0) ** 2
        np.testing.assert_allclose(prices, 3.0 * 0.25 * value)
        np.testing.assert_allclose(tolls, 0.5 * value)


def test_devices_that_batch_have_no_price() -> None:
    flows = [call(n, float(n), prompt=100, output=10) for n in range(3)]
    for prices, tolls in seen(problem(flows, "H100-SXM", "A10G", execution="batching")):
        assert (prices == 0.0).all() and (tolls == 0.0).all()


def run(problem: Problem, policy: str, time_price: float, thrift: float) -> Trace:
    return Simulator(problem).run(make_policy(policy, time_price=time_price, thrift=thrift))


@pytest.mark.parametrize("policy", PLANNERS)
def test_work_that_arrives_at_once_has_no_price(policy: str) -> None:
    flows = [call(n, 0.0, prompt=2000 * (n + 1), output=30, prefix=9000) for n in range(8)]
    made = problem(flows, "H100-SXM", "A100-80", "A10G")
    charged, free = run(made, policy, 5.0, 5.0), run(made, policy, 0.0, 0.0)
    np.testing.assert_array_equal(charged.shards, free.shards)


@pytest.mark.parametrize("policy", PLANNERS)
@pytest.mark.parametrize(("time_price", "thrift", "stays"), [(0.0, 0.0, False), (2.0, 1.0, True)])
def test_a_turn_waits_for_the_device_with_its_prefix_if_device_time_has_a_price(
    policy: str, time_price: float, thrift: float, stays: bool
) -> None:
    # The session's device is busy for two seconds longer than the other one would take to compute
    # the prefix of its second turn again.
    flows = [
        call(0, 0.0, prompt=100, output=5, prefix=30_000),
        call(1, 0.0, prompt=100, output=200),
        call(2, 60.0, prompt=100, output=500),
        call(3, 60.1, prompt=100, output=5, prefix=30_000),
    ]
    shards = run(problem(flows, "A100-80", "A100-80"), policy, time_price, thrift).shards
    device, end = dict(zip(shards["stage"], shards["device"], strict=True)), shards["end"]
    assert device[0] == device[2] != device[1]
    assert (device[3] == device[0]) == stays
    assert (end[3] > end[2]) == stays
