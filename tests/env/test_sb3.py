"""The native vector environment in Stable-Baselines3 (tests of `lab.training` compare lanes)."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

import fate_gym
from fate_gym.env import FlatObservation, FlatVectorObservation, WorkflowSchedulingEnv
from fate_gym.errors import InputError
from tests.env.episodes import legal_action

pytest.importorskip("stable_baselines3")


def make(**options: Any) -> Any:
    given = {"problem": "smoke", "autoreset_mode": "SameStep"} | options
    return fate_gym.make_vec(3, **given)


def test_lanes_of_flat_observations_and_their_ends() -> None:
    """Also of episodes that are cut off, which learners have to know."""
    from fate_gym.env.sb3 import SB3VecEnv

    env = SB3VecEnv(FlatVectorObservation(make(max_episode_steps=12)))
    env.seed(5)
    seen = env.reset()
    singles = [
        FlatObservation(gymnasium.make(fate_gym.ENV_ID, problem="smoke", max_episode_steps=12))
        for _ in range(3)
    ]
    for i, single in enumerate(singles):
        assert np.array_equal(single.reset(seed=5 + i)[0], seen[i])
    rng, cut = np.random.default_rng(0), 0
    for _ in range(80):
        actions = np.array([legal_action(mask, rng) for mask in env.env_method("action_masks")])
        seen, rewards, over, infos = env.step(actions)
        for i, single in enumerate(singles):
            expected, reward, terminated, truncated, info = single.step(actions[i])
            assert rewards[i] == np.float32(reward)
            assert over[i] == (terminated or truncated)
            if over[i]:
                assert np.array_equal(infos[i]["terminal_observation"], expected)
                assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
                assert infos[i]["metrics"] == info["metrics"]
                cut += infos[i]["TimeLimit.truncated"]
                expected, _ = single.reset()
            assert np.array_equal(seen[i], expected)
    assert cut > 3


def test_evaluation_of_an_agent_without_masks_ends() -> None:
    """Its best action may be illegal for ever."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    from fate_gym.env.sb3 import SB3VecEnv

    model = PPO("MultiInputPolicy", SB3VecEnv(make()), n_steps=8, batch_size=8, device="cpu")
    model.learn(24)
    env = gymnasium.make(fate_gym.ENV_ID, problem="smoke", max_invalid_actions=5)
    returns, lengths = evaluate_policy(
        model, env, n_eval_episodes=2, return_episode_rewards=True, warn=False
    )
    assert len(returns) == 2
    assert max(lengths) < 1000


@pytest.mark.parametrize(
    ("envs", "field"),
    [
        (lambda: make(autoreset_mode="NextStep"), "autoreset_mode"),
        (lambda: make(reward=("makespan", "latency")), "reward"),
        (lambda: gymnasium.make_vec("CartPole-v1", 2, vectorization_mode="sync"), "envs"),
    ],
)
def test_bad_arguments(envs: Any, field: str) -> None:
    from fate_gym.env.sb3 import SB3VecEnv

    with pytest.raises(InputError) as raised:
        SB3VecEnv(envs())
    assert raised.value.field == field


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_flat_lanes(mode: str) -> None:
    envs = FlatVectorObservation(make(autoreset_mode=mode))
    flat, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(flat)
    single = FlatObservation(WorkflowSchedulingEnv("smoke"))
    assert envs.single_observation_space == single.observation_space
    assert np.array_equal(flat[0], single.reset(seed=0)[0])
    action = int(envs.action_masks()[0].argmax())
    flat, *_ = envs.step(np.full(3, action))
    assert np.array_equal(flat[0], single.step(action)[0])
