"""Any policy can play through the environment, with the same trace as in the simulator."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

import fate_gym
from fate_gym.env import PolicyAdapter, WorkflowSchedulingEnv
from fate_gym.errors import IllegalActionError, InputError
from fate_gym.problem import Problem
from fate_gym.sim import Assignment, Decision, DecisionView, Retention, Simulator
from fate_gym.validator import assert_valid
from policies import make_policy, policy_names
from tests.policies.instances import SMALL
from tests.strategies import Kind, problems, untied

SEEDS = st.integers(0, 2**32)


@pytest.mark.parametrize("name", policy_names())
@pytest.mark.parametrize("kind", ["mixed", "pressure"])
@settings(max_examples=4)
@given(data=st.data(), seed=SEEDS, window=st.integers(1, 4), shards=st.integers(1, 3))
def test_every_policys_trace(
    name: str, kind: Kind, data: st.DataObject, seed: int, window: int, shards: int
) -> None:
    """Also with a window smaller than the frontier and fewer shards than the policy uses."""
    problem = data.draw(problems(kind))
    if name == "oracle_cpsat":
        problem = untied(problem)
    simulator = Simulator(problem)
    params = SMALL.get(name, {})
    expected = simulator.run(make_policy(name, **params), seed=seed)
    env = WorkflowSchedulingEnv(simulator.compiled.problem, window=window, max_shards=shards)
    adapter = PolicyAdapter(make_policy(name, **params))
    trace = adapter.play(env, seed=seed)
    assert trace.same_schedule(expected)
    assert trace.policy == expected.policy
    assert adapter.actions + adapter.direct >= len(set(trace.shards["stage"].tolist())) - sum(
        stage.kind == "tool" for w in problem.workflows for stage in w.stages
    )
    # The same object plays again, and another problem in between does not matter.
    assert adapter.play(env, seed=seed).same_schedule(expected)


class Odd:
    """Places several stages at once, in reverse, on devices in descending order, by odd counts."""

    name = "odd"

    def reset(self, view: DecisionView, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        if view.can_wait and self.rng.random() < 0.3:
            return []
        decided = []
        for stage in reversed(view.ready):
            queries = view.stage(stage)["queries"]
            devices = view.eligible(stage)[::-1].tolist()[: view.compiled.shape[5]]
            k = min(len(devices), queries)
            counts = (queries - k + 1, *[1] * (k - 1))
            decided.append(Assignment(stage, tuple(devices[:k]), counts))
        return decided


@settings(max_examples=25)
@given(problems(), SEEDS)
def test_a_policy_that_no_window_foresees(problem: Problem, seed: int) -> None:
    expected = Simulator(problem).run(Odd(), seed=seed)
    env = WorkflowSchedulingEnv(problem, window=2, max_shards=2)
    trace = PolicyAdapter(Odd()).play(env, seed=seed)
    assert trace.same_schedule(expected)
    assert_valid(trace)


def test_a_wide_window_offers_what_list_schedulers_do() -> None:
    """All their decisions are actions, so that one can learn from them; wrappers see them."""
    env = RecordEpisodeStatistics(
        gymnasium.make(fate_gym.ENV_ID, problem="smoke", window=64, max_shards=4)
    )
    for name in ("heft", "eft", "round_robin", "least_loaded"):
        adapter = PolicyAdapter(make_policy(name))
        observation, _ = env.reset(seed=1)
        adapter.begin(env)
        ended = False
        while not ended:
            observation, _, ended, _, info = adapter.step(env)
            assert env.observation_space.contains(observation)
        assert adapter.direct == 0
        assert info["episode"]["l"] == adapter.actions


def test_rewards_of_direct_placements_add_up_too() -> None:
    env = WorkflowSchedulingEnv("smoke", window=1, max_shards=1, reward_scale=1.0)
    env.reset(seed=0)
    adapter = PolicyAdapter(make_policy("heft_sharded"))
    adapter.begin(env)
    total = 0.0
    while not env.ended:
        _, reward, _, _, info = adapter.step(env)
        total += float(reward)
    assert adapter.direct > 0
    assert total == pytest.approx(-env.trace().makespan)
    assert info["metrics"]["placements"] == len(set(env.trace().shards["stage"].tolist()))


class Keeper:
    """Ranks cached items before, between and after placements, and copies prefixes."""

    name = "keeper"

    def reset(self, view: DecisionView, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def decide(self, view: DecisionView) -> Sequence[Decision]:
        stages, devices, models, prefixes, _, _ = view.compiled.shape
        decided: list[Decision] = []
        for stage in view.ready[:2]:
            if self.rng.random() < 0.6:
                decided.append(Retention(self.rng.random(prefixes), self.rng.random(stages)))
            device = int(self.rng.choice(view.eligible(stage)))
            source = int(self.rng.integers(devices)) if self.rng.random() < 0.5 else None
            decided.append(Assignment(stage, (device,), None, source))
        if self.rng.random() < 0.6:
            decided.append(Retention(models=self.rng.random((devices, models))))
        if view.can_wait and self.rng.random() < 0.3:
            return [one for one in decided if isinstance(one, Retention)]
        return decided


@settings(max_examples=25)
@given(problems("pressure"), SEEDS)
def test_retentions_and_migrations(problem: Problem, seed: int) -> None:
    expected = Simulator(problem).run(Keeper(), seed=seed)
    env = WorkflowSchedulingEnv(problem)
    trace = PolicyAdapter(Keeper()).play(env, seed=seed)
    assert trace.same_schedule(expected)
    assert [rows for rows, _ in trace.retentions] == [rows for rows, _ in expected.retentions]
    assert_valid(trace)


class Waiter:
    """Only waits."""

    name = "waiter"

    def reset(self, view: DecisionView, seed: int) -> None: ...

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        return []


def test_faults_of_a_policy_and_of_a_caller() -> None:
    env = WorkflowSchedulingEnv("smoke")
    with pytest.raises(IllegalActionError, match="no event lies ahead"):
        PolicyAdapter(Waiter()).play(env)
    with pytest.raises(InputError, match="no episode has begun"):
        PolicyAdapter(Waiter()).decide()
    with pytest.raises(InputError, match="CartPoleEnv"):
        PolicyAdapter(Waiter()).play(gymnasium.make("CartPole-v1"))
    env.reset(seed=0)
    stage = env.window[0]
    for assignment in (
        Assignment(stage, (99,)),
        Assignment(10**6, (0,)),
        Assignment(stage, (0, 0)),
        Assignment(stage, ()),
    ):
        with pytest.raises(IllegalActionError):
            env.place(assignment)


def test_actions_of_assignments() -> None:
    env = WorkflowSchedulingEnv(Problem.classical({"a": {"m": 1.0, "n": 2.0}}, {}))
    env.reset(seed=0)
    assert env.action_of(Assignment(0, (1,))) == 1
    assert env.action_of(Assignment(0, (1,), (1,)), exact=True) == 1
    assert env.action_of(Assignment(3, (1,))) is None
    assert env.action_of(Assignment(0, (0, 1))) is None
    assert env.action_of(None) is None
    assert env.placement(1) == Assignment(0, (1,), (1,))
    with pytest.raises(IllegalActionError):
        env.placement(2)
