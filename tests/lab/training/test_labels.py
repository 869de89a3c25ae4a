"""Labels: which policy an agent imitates, and what rollouts add to its own preferences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pytest.importorskip("sb3_contrib")

from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.env.spec import MASK
from fate_gym.lab.training import labels
from fate_gym.lab.training.agent_config import ExpertIterationConfig
from fate_gym.sim import CompiledProblem, compile_problem
from tests.policies.learned.problems import OPTIONS, random_agent, smoke, stream, two_speeds

EVERYTHING = ExpertIterationConfig(states=100, share=1.0, actions=50, others=1)


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max())
    return weights / weights.sum()


@settings(max_examples=50)
@given(st.data(), st.integers(2, 9))
def test_the_improved_policy(data: st.DataObject, count: int) -> None:
    numbers = st.floats(-5, 5, width=32)
    scores = data.draw(arrays(np.float32, count, elements=numbers))
    mask = data.draw(arrays(np.bool_, count).filter(np.any))
    costs = data.draw(arrays(np.float64, count, elements=st.floats(0, 4)))
    known = mask & data.draw(arrays(np.bool_, count))
    known |= mask & ~known.any()
    costs[~known] = np.inf
    label = labels._improved(costs, mask, scores)
    assert label.sum() == pytest.approx(1.0, abs=1e-5)
    assert np.all(label[~mask] == 0.0)
    before = softmax(np.where(mask, scores, -np.inf).astype(float))
    # What is not looked at keeps its odds, and of what is the odds follow the costs.
    others = mask & ~known
    odds = label[others] / before[others]
    assert np.allclose(odds, odds[:1], rtol=1e-3)
    gains = np.log(label[known] / before[known])
    differences = gains[:, None] - gains[None, :]
    wanted = costs[known][None, :] - costs[known][:, None]
    # A single state adds three to a logit at most.
    assert np.all(np.abs(differences) <= np.abs(wanted) + 1e-3)
    assert np.all(differences * wanted >= -1e-3)
    if known.sum() > 1 and np.ptp(costs[known]) < 3.0:
        assert np.allclose(differences, wanted, atol=1e-3)


def test_costs_that_are_equal_change_nothing() -> None:
    scores = np.array([2.0, 0.5, -1.0], np.float32)
    mask = np.ones(3, np.bool_)
    label = labels._improved(np.array([7.0, 7.0, np.inf]), mask, scores)
    np.testing.assert_allclose(label, softmax(scores.astype(float)), rtol=1e-6)


def test_rollouts_prefer_the_fast_device() -> None:
    env = WorkflowSchedulingEnv(two_speeds(3), **OPTIONS.model_dump())
    observation, _ = env.reset(seed=0)
    labeller = labels.RolloutLabeller(EVERYTHING, seed=0)
    labeller.begin(env)
    scores = np.where(observation[MASK], 0.0, -np.inf).astype(np.float32)
    label = labeller.label(env, observation, scores)
    assert label is not None
    chosen = env.placement(int(label.argmax()))
    assert chosen is not None
    assert env.compiled.device_ids[chosen.devices[0]] == "fast"
    # From there on the fast device is dear, and the slow one is worth taking only at the end.
    env.step(int(label.argmax()))
    assert env.arrays.state.buffer.sum() != 0


def test_rollouts_leave_the_run_alone_and_follow_the_seed() -> None:
    env = WorkflowSchedulingEnv(stream(0.3), **OPTIONS.model_dump())
    observation, _ = env.reset(seed=3)
    before = env.arrays.state.buffer.copy()
    found = []
    for seed in (5, 5, 6):
        labeller = labels.RolloutLabeller(
            EVERYTHING.model_copy(update={"actions": 4, "others": 2}), seed=seed
        )
        labeller.begin(env)
        scores = random_agent().scores(observation)
        found.append(labeller.label(env, observation, scores))
    assert np.array_equal(before, env.arrays.state.buffer)
    assert all(label is not None for label in found)
    assert np.array_equal(found[0], found[1])


def test_a_share_of_the_states_is_labelled() -> None:
    env = WorkflowSchedulingEnv(smoke()[0], **OPTIONS.model_dump())
    for share, an_episode in ((0.3, 1000), (1.0, round(0.3 * env.source.spec.limits.stages))):
        config = EVERYTHING.model_copy(
            update={"share": share, "an_episode": an_episode, "actions": 2}
        )
        labeller = labels.RolloutLabeller(config, seed=0)
        observation, _ = env.reset(seed=0)
        labeller.begin(env)
        agent = random_agent()
        seen = 0
        for _ in range(200):
            seen += labeller.label(env, observation, agent.scores(observation)) is not None
        assert 30 < seen < 100


def compiled(*problems: object) -> list[CompiledProblem]:
    return [compile_problem(one) for one in problems]  # type: ignore[arg-type]


def test_each_kind_of_problem_has_its_teacher() -> None:
    easy, real = compiled(two_speeds(6), two_speeds(8)), compiled(*smoke())
    labeller = labels.PolicyLabeller(("random", "heft_boosted", "round_robin"), [easy, real])
    for problem in (*easy, *real):
        env = WorkflowSchedulingEnv(problem, **OPTIONS.model_dump())
        observation, _ = env.reset(seed=0)
        labeller.begin(env)
        assert labeller._policy.name == "heft_boosted"
        label = labeller.label(env, observation, None)
        assert label is not None
        assert label.sum() == 1.0
        assert observation[MASK][label.argmax()]


def test_what_followed_is_discounted() -> None:
    np.testing.assert_allclose(labels._to_go([1.0, 2.0, 4.0], 0.5), [3.0, 4.0, 4.0])
    np.testing.assert_allclose(labels._to_go([1.0, 2.0, 4.0], 1.0), [7.0, 6.0, 4.0])
