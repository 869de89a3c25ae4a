"""A dataset of a planner's steps, and offline RL on it with d3rlpy: behaviour cloning, then CQL.

d3rlpy brings the old `gym`, so it gets an environment of its own:

    python -m venv .venv-d3rlpy
    .venv-d3rlpy/bin/pip install -r docs/examples/libraries/d3rlpy-requirements.txt -e .
    .venv-d3rlpy/bin/python docs/examples/libraries/d3rlpy_offline.py
"""

from __future__ import annotations

import d3rlpy
import gymnasium
import numpy as np

import fate_gym
from fate_gym.env import FlatObservation, PolicyAdapter
from policies import make_policy

QUIET = {"show_progress": False, "logger_adapter": d3rlpy.logging.NoopAdapterFactory()}


def make() -> gymnasium.Env:
    """The environment that is recorded and that the agents play in."""
    options = {"problem": "smoke", "reward": "shaped", "observation": ("candidates", "globals")}
    return FlatObservation(gymnasium.make(fate_gym.ENV_ID, **options))


def record(episodes: int) -> d3rlpy.dataset.MDPDataset:
    """What HEFT does; steps that are no actions are left out."""
    env, adapter = make(), PolicyAdapter(make_policy("heft"))
    observations, actions, rewards, ends = [], [], [], []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        adapter.begin(env)
        terminated = False
        while not terminated:
            following, reward, terminated, _, info = adapter.step(env)
            if not info["direct_placement"]:
                observations.append(observation)
                actions.append(adapter.last_action)
                rewards.append(float(reward))
                ends.append(float(terminated))
            elif ends:
                ends[-1] = float(terminated)
            observation = following
    columns = (np.array(one) for one in (observations, actions, rewards, ends))
    return d3rlpy.dataset.MDPDataset(*columns, action_space=d3rlpy.ActionSpace.DISCRETE)


def play(algorithm: d3rlpy.base.LearnableBase) -> float:
    """Mean makespan of its best legal actions, by scores of all."""
    env, makespans = make(), []
    for seed in range(100, 104):
        observation, info = env.reset(seed=seed)
        terminated = False
        while not terminated:
            legal = np.flatnonzero(info["action_mask"])
            repeated = np.repeat(observation[None], len(legal), axis=0)
            values = algorithm.predict_value(repeated, legal)
            action = int(legal[values.argmax()])
            observation, _, terminated, _, info = env.step(action)
        makespans.append(info["metrics"]["makespan"])
    return float(np.mean(makespans))


def main() -> None:
    """Record, learn, play."""
    dataset = record(episodes=20)
    print(f"{dataset.transition_count} steps of {dataset.size()} episodes")
    cloning = d3rlpy.algos.DiscreteBCConfig(batch_size=64).create(device="cpu:0")
    cloning.fit(dataset, n_steps=500, n_steps_per_epoch=500, **QUIET)
    print("cloned:", cloning.predict(dataset.episodes[0].observations[:3]).tolist())
    offline = d3rlpy.algos.DiscreteCQLConfig(batch_size=64, gamma=1.0).create(device="cpu:0")
    offline.fit(dataset, n_steps=500, n_steps_per_epoch=500, **QUIET)
    print(f"CQL: mean makespan {play(offline):.2f} s")


if __name__ == "__main__":
    main()
