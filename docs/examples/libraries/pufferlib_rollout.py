"""PufferLib's emulation and vectorisation around the single environment, with its flat buffers.

PufferLib's trainers need a compiler and CUDA to install; `pufferlib-core` has what is used here.

    python -m venv .venv-pufferlib
    .venv-pufferlib/bin/pip install -r docs/examples/libraries/pufferlib-requirements.txt -e .
    .venv-pufferlib/bin/python docs/examples/libraries/pufferlib_rollout.py
"""

from __future__ import annotations

import gymnasium
import numpy as np
import pufferlib.emulation
import pufferlib.vector

import fate_gym


def make(buf: object = None, seed: int = 0, **options: object) -> object:
    """One environment in PufferLib's clothes."""
    env = gymnasium.make(fate_gym.ENV_ID, disable_env_checker=True, **options)
    return pufferlib.emulation.GymnasiumPufferEnv(env=env, buf=buf, seed=seed)


def main() -> None:
    """Legal random actions, by the masks in the flat observations."""
    options = {"problem": "smoke", "reward": "shaped", "observation": ("candidates",)}
    envs = pufferlib.vector.make(
        make, num_envs=4, backend=pufferlib.vector.Serial, env_kwargs=options
    )
    kind = envs.driver_env.obs_dtype
    observation, _ = envs.reset(seed=0)
    rng, ended, total = np.random.default_rng(0), 0, 0.0
    for _ in range(500):
        masks = observation.view(kind)["action_mask"].reshape(4, -1).astype(bool)
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        observation, rewards, terminated, _, _ = envs.step(actions)
        ended, total = ended + int(terminated.sum()), total + float(rewards.sum())
    print(f"{ended} episodes, mean return {total / ended:.3f}")


if __name__ == "__main__":
    main()
