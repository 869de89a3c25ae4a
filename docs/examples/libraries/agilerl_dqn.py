"""DQN of AgileRL, which takes the mask as an argument of ``get_action``.

python -m venv .venv-agilerl
.venv-agilerl/bin/pip install -r docs/examples/libraries/agilerl-requirements.txt -e .
.venv-agilerl/bin/python docs/examples/libraries/agilerl_dqn.py
"""

from __future__ import annotations

import numpy as np
import torch
from agilerl.algorithms import DQN
from agilerl.components.replay_buffer import ReplayBuffer
from tensordict import TensorDict

import fate_gym
from fate_gym.env import FlatVectorObservation

LANES = 8


def main() -> None:
    """Train for some thousand steps; print mean returns."""
    envs = FlatVectorObservation(
        fate_gym.make_vec(
            LANES,
            problem="smoke",
            reward="shaped",
            observation=("candidates", "globals"),
            autoreset_mode="SameStep",
        )
    )
    agent = DQN(
        envs.single_observation_space,
        envs.single_action_space,
        batch_size=64,
        lr=1e-3,
        gamma=1.0,
        net_config={"encoder_config": {"hidden_size": [64, 64]}},
    )
    memory = ReplayBuffer(max_size=10_000)
    observation, infos = envs.reset(seed=0)
    total, ended = 0.0, 0
    for step in range(400):
        masks = infos["action_mask"]
        actions = np.asarray(agent.get_action(observation, epsilon=0.2, action_mask=masks))
        following, rewards, terminated, truncated, infos = envs.step(actions)
        last = following.copy()
        for i in np.flatnonzero(terminated | truncated):
            last[i] = infos["final_obs"][i]
        memory.add(
            TensorDict(
                {
                    "obs": torch.from_numpy(observation),
                    "action": torch.from_numpy(actions),
                    "reward": torch.from_numpy(rewards).float()[:, None],
                    "next_obs": torch.from_numpy(last),
                    "done": torch.from_numpy(terminated).float()[:, None],
                },
                batch_size=[LANES],
            )
        )
        observation = following
        total, ended = total + rewards.sum(), ended + int((terminated | truncated).sum())
        if len(memory) >= 64:
            agent.learn(memory.sample(64))
        if step % 100 == 99:
            print(f"steps {LANES * (step + 1)}: mean return {total / max(1, ended):.3f}")
            total, ended = 0.0, 0


if __name__ == "__main__":
    main()
