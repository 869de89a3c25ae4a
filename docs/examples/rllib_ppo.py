"""PPO with action masks in RLlib: the environment behind `MaskedObservation`.

RLlib needs Gymnasium 1.2, so it gets an environment of its own:

    python -m venv .venv-rllib
    .venv-rllib/bin/pip install -r docs/examples/rllib-requirements.txt -e .
    .venv-rllib/bin/python docs/examples/rllib_ppo.py --iterations 5
"""

from __future__ import annotations

import argparse

import gymnasium
from ray import init, shutdown, tune
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule

import fate_gym
from fate_gym.env import MaskedObservation

GAMMA = 1.0
"""Of the learner and of the shaping: with two of them, shaping rewards other policies."""


def make_env(config: dict[str, object]) -> gymnasium.Env:
    """One environment of a worker."""
    env = gymnasium.make(fate_gym.ENV_ID, disable_env_checker=True, **config)
    return MaskedObservation(env)


def main() -> None:
    """Train, and print mean returns."""
    parser = argparse.ArgumentParser(description="PPO with action masks in RLlib")
    parser.add_argument("--problem", default="smoke", help="suite or problem file")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1000, help="environment steps an iteration")
    args = parser.parse_args()
    tune.register_env("fate_gym", make_env)
    init(num_cpus=1, include_dashboard=False)
    config = (
        PPOConfig()
        .environment(
            "fate_gym", env_config={"problem": args.problem, "reward": "shaped", "discount": GAMMA}
        )
        .env_runners(num_env_runners=0)
        .training(
            gamma=GAMMA, train_batch_size_per_learner=args.batch, minibatch_size=250, num_epochs=4
        )
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ActionMaskingTorchRLModule,
                model_config={"head_fcnet_hiddens": [64, 64]},
            )
        )
    )
    algorithm = config.build_algo()
    for iteration in range(args.iterations):
        result = algorithm.train()["env_runners"]
        print(f"iteration {iteration}: mean return {result['episode_return_mean']:.3f}", flush=True)
    algorithm.stop()
    shutdown()


if __name__ == "__main__":
    main()
