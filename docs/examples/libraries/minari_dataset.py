"""A Minari dataset for offline RL: episodes of a planner on the problems of a suite.

    pip install 'minari[hdf5,create]==0.5.4'
    python docs/examples/libraries/minari_dataset.py --policy fate --suite agentic_train

Rewards and infos (the action mask among them) are recorded with every step. Steps whose
`info["direct_placement"]` is true are no actions: leave them out, or have fewer with a larger
`--window` (docs/libraries.md).
"""

from __future__ import annotations

import argparse

import gymnasium
import minari

import fate_gym
from fate_gym.env import PolicyAdapter
from policies import make_policy, policy_names


def record(policy: str, suite: str, episodes: int, window: int, name: str) -> minari.MinariDataset:
    """Play and write the episodes; the dataset keeps what makes the environment again."""
    options = {"problem": suite, "window": window, "max_shards": 1, "reward": "shaped_latency"}
    env = minari.DataCollector(gymnasium.make(fate_gym.ENV_ID, **options), record_infos=True)
    adapter = PolicyAdapter(make_policy(policy))
    for seed in range(episodes):
        adapter.play(env, seed=seed)
    dataset = env.create_dataset(
        name, algorithm_name=policy, description=f"{policy} on suite {suite}, window {window}"
    )
    env.close()
    return dataset


def main() -> None:
    """Record, and say what there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--policy", default="heft", choices=policy_names(), metavar="NAME")
    parser.add_argument("--suite", default="real_dag_train")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--name", help="of the dataset (default: fate_gym/SUITE-POLICY-v0)")
    chosen = parser.parse_args()
    name = chosen.name or f"fate_gym/{chosen.suite}-{chosen.policy}-v0"
    dataset = record(chosen.policy, chosen.suite, chosen.episodes, chosen.window, name)
    returns = [float(one.rewards.sum()) for one in dataset.iterate_episodes()]
    mean = sum(returns) / len(returns)
    print(f"{name}: {len(returns)} episodes, {dataset.total_steps} steps, mean return {mean:.3f}")


if __name__ == "__main__":
    main()
