"""DQN of Tianshou 2, whose policies take the mask of an observation's attribute ``mask``.

python -m venv .venv-tianshou
.venv-tianshou/bin/pip install -r docs/examples/libraries/tianshou-requirements.txt -e .
.venv-tianshou/bin/python docs/examples/libraries/tianshou_dqn.py
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from tianshou.algorithm import DQN
from tianshou.algorithm.modelfree.dqn import DiscreteQLearningPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OffPolicyTrainerParams
from tianshou.utils.net.common import Net

import fate_gym
from fate_gym.env import MaskedObservation


class WithMask(gymnasium.ObservationWrapper):
    """``{"obs", "mask"}``, as Tianshou names them."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        parts = env.observation_space.spaces
        mask = gymnasium.spaces.MultiBinary(parts["action_mask"].shape[0])
        self.observation_space = gymnasium.spaces.Dict({"obs": parts["observations"], "mask": mask})

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        mask = observation["action_mask"].astype(np.int8)
        return {"obs": observation["observations"], "mask": mask}


def make() -> gymnasium.Env:
    """One environment."""
    options = {"problem": "smoke", "reward": "shaped", "observation": ("candidates", "globals")}
    return WithMask(MaskedObservation(gymnasium.make(fate_gym.ENV_ID, **options)))


def main() -> None:
    """Train for some thousand steps, then play without exploration."""
    env, train, test = make(), DummyVectorEnv([make] * 4), DummyVectorEnv([make])
    size, actions = env.observation_space["obs"].shape, env.action_space.n
    policy = DiscreteQLearningPolicy(
        model=Net(state_shape=size, action_shape=actions, hidden_sizes=(64, 64)),
        action_space=env.action_space,
        observation_space=env.observation_space,
        eps_training=0.2,
    )
    optimiser = AdamOptimizerFactory(lr=1e-3)
    algorithm = DQN(policy=policy, optim=optimiser, gamma=1.0, target_update_freq=200)
    result = algorithm.run_training(
        OffPolicyTrainerParams(
            training_collector=Collector(algorithm, train, VectorReplayBuffer(10_000, 4)),
            test_collector=Collector(algorithm, test),
            max_epochs=1,
            epoch_num_steps=1000,
            collection_step_num_env_steps=40,
            update_step_num_gradient_steps_per_sample=0.1,
            test_step_num_episodes=2,
            show_progress=False,
        )
    )
    print(f"best mean return of a test: {result.best_reward:.3f}")


if __name__ == "__main__":
    main()
