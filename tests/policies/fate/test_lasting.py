"""The share of loads that is charged to the known work of a stream."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Problem, Stage, Workflow
from fate_gym.sim import DecisionView, Simulator, Trace
from policies import make_policy
from policies.base import Assignment
from policies.fate.arrivals import Arrivals
from policies.fate.lasting import LastingLoads

FIRST, SECOND = "Qwen2.5-7B", "Llama-3.1-8B"
SHARE = 0.25


def request(number: int, arrival: float, model: str, output_tokens: int = 20) -> Workflow:
    stage = Stage(id="answer", model=model, prompt_tokens=200, output_tokens=output_tokens)
    return Workflow(id=f"r{number}", stages=[stage], arrival=arrival)


def stream(arrivals: list[float], models: list[str]) -> Problem:
    # An A10G has room for one of the models, an A100 for both.
    devices = (Device(id="small", gpu="A10G"), Device(id="large", gpu="A100-80"))
    pairs = enumerate(zip(arrivals, models, strict=True))
    return Problem.build(
        Cluster(id="c", devices=devices), [request(n, time, model) for n, (time, model) in pairs]
    )


class Watching:
    """Places ready stages on the large device, and records the share charged at each decision."""

    name = "watching"

    def reset(self, view: DecisionView, seed: int) -> None:
        self._arrivals = Arrivals()
        self._full = view.compiled.arrays.load_seconds
        self._loads = LastingLoads(view.compiled.arrays, SHARE)
        self.charged: list[tuple[float, np.ndarray]] = []

    def decide(self, view: DecisionView) -> list[Assignment]:
        new = self._arrivals.update(view)
        self._loads.update(new, self._arrivals.stream)
        self.charged.append((view.now, self._loads.seconds / self._full))
        return [Assignment(view.ready[0], (1,))]


def charged(problem: Problem) -> list[tuple[float, np.ndarray]]:
    policy = Watching()
    Simulator(problem).run(policy)
    return policy.charged


def test_what_arrives_at_once_is_charged_in_full() -> None:
    for _, shares in charged(stream([0.0, 0.0, 0.0], [FIRST] * 3)):
        assert (shares == 1.0).all()


def test_a_stream_is_charged_in_part_once_it_is_seen_to_be_one() -> None:
    seen = charged(stream([0.0, 5.0, 9.0], [FIRST] * 3))
    assert [float(shares[0, 0]) for _, shares in seen] == [1.0, SHARE, SHARE]


def test_a_load_that_would_displace_a_model_of_the_stream_is_charged_in_full() -> None:
    seen = charged(stream([0.0, 5.0, 9.0], [FIRST, FIRST, SECOND]))
    assert (seen[1][1][0] == [SHARE, SHARE]).all()
    # A model that has not been seen is charged in full, whatever the problem holds.
    assert (seen[1][1][1] == [1.0, 1.0]).all()
    assert (seen[2][1][:, 0] == 1.0).all()
    assert (seen[2][1][:, 1] == SHARE).all()


def run(problem: Problem, policy: str, load_share: float) -> Trace:
    # With a toll on device time, a stream gets further copies sooner.
    return Simulator(problem).run(make_policy(policy, load_share=load_share, thrift=0.0))


@pytest.mark.parametrize("policy", ["fate", "fate_rollout"])
def test_a_stream_of_requests_gets_a_second_copy(policy: str) -> None:
    flows = [request(n, 0.9 * n, FIRST, 60 * (1 + 2 * (n % 2))) for n in range(16)]
    devices = tuple(Device(id=f"d{n}", gpu="A100-80") for n in range(3))
    problem = Problem.build(Cluster(id="c", devices=devices, load_gb_s=8.0), flows)
    full, shared = (run(problem, policy, share) for share in (1.0, 0.25))
    assert copies(shared) > copies(full)
    assert latency(shared) < 0.9 * latency(full)


def copies(trace: Trace) -> int:
    return int((trace.shards["load_s"] > 0).sum())


def latency(trace: Trace) -> float:
    return float((trace.workflow_end - trace.workflow_arrival).mean())
