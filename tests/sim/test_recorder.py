"""What a recorder stores of a run, and that it does not change the run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from fate_gym.problem import Problem
from fate_gym.sim import ExplainingPolicy, Recorder, Simulator
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy
from tests.strategies import problems

LISTS = ("heft", "heft_boosted", "min_min", "peft", "lookahead_heft_boosted", "dls")


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Return a real graph on GPUs of several kinds, without noise."""
    suite = load_suite("smoke")
    return build_suite(suite, load_cluster(suite.cluster), 0)[-1]


@settings(max_examples=15)
@given(problem=problems())
def test_a_run_is_the_same_with_a_recorder(problem: Problem) -> None:
    for name in ("round_robin", "heft_sharded", "fate_rollout"):
        recorder = Recorder()
        simulator = Simulator(problem)
        plain = simulator.run(make_policy(name), seed=3)
        recorded = simulator.run(make_policy(name), seed=3, recorder=recorder)
        assert recorded.same_schedule(plain)
        rows = [one.estimates.row for one in recorder.placed_stages]
        shards = recorded.shards[rows]
        assert shards["stage"].tolist() == [one.assignment.stage for one in recorder.placed_stages]
        devices = [one.assignment.devices[0] for one in recorder.placed_stages]
        assert shards["device"].tolist() == devices


@pytest.mark.parametrize("name", LISTS)
def test_list_schedules_take_what_they_valued_best(problem: Problem, name: str) -> None:
    recorder, policy = Recorder(), make_policy(name)
    assert isinstance(policy, ExplainingPolicy)
    Simulator(problem).run(policy, seed=0, recorder=recorder)
    assert recorder.placed_stages
    for one in recorder.placed_stages:
        assert one.explanation is not None
        stage = one.assignment.stage
        values = {c.devices: c.value for c in one.explanation.candidates if c.stage == stage}
        able = np.flatnonzero(np.isfinite(one.estimates.parts[:, -1]))
        assert sorted(values) == [(device,) for device in able.tolist()]
        assert values[one.assignment.devices] == min(values.values())


@pytest.mark.parametrize("name", ["fate", "fate_rollout"])
def test_planners_say_what_they_compared(problem: Problem, name: str) -> None:
    recorder = Recorder()
    Simulator(problem).run(make_policy(name), seed=0, recorder=recorder)
    found = [one for one in recorder.placed_stages if one.explanation is not None]
    assert found
    for one in found:
        assert one.explanation is not None
        own = [c for c in one.explanation.candidates if c.stage == one.assignment.stage]
        assert len({c.devices for c in own}) == len(own)
        for candidate in own:
            # Devices that cannot host the stage are not candidates.
            assert np.isfinite(one.estimates.parts[list(candidate.devices), -1]).all()


def test_estimates_are_what_comes_where_nothing_is_uncertain(problem: Problem) -> None:
    recorder = Recorder()
    trace = Simulator(problem).run(make_policy("heft_sharded"), seed=0, recorder=recorder)
    widths = set()
    for one in recorder.placed_stages:
        widths.add(len(one.assignment.devices))
        end = trace.stage_end[one.assignment.stage]
        assert one.estimates.end == pytest.approx(end, abs=1e-9)
    assert widths > {1}


def test_memory_is_what_devices_hold_from_each_start_on(problem: Problem) -> None:
    recorder = Recorder()
    trace = Simulator(problem).run(make_policy("heft"), seed=0, recorder=recorder)
    weights = {model.name: model.weight_bytes for model in problem.model_facts.values()}
    for held in recorder.held:
        shard = trace.shards[held.row]
        assert shard["device"] == held.device
        expected = sum(weights[trace.model_names[model]] for model in held.models)
        assert held.weights == pytest.approx(expected)
        assert held.cached >= 0
    assert len({one.device for one in recorder.held}) == len(set(trace.shards["device"]) - {-1})
