"""Agents of other libraries learn something in the environment: real but small trainings."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import fate_gym
from fate_gym.env import FlatObservation
from fate_gym.problem import Problem
from tests.env.episodes import legal_action

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

TRAP = Problem.classical(
    {f"t{i}": {"slow": 9.0, "fast": 1.0, "slower": 15.0} for i in range(6)},
    {(f"t{i}", f"t{i + 1}"): 0.1 for i in range(5)},
    id="trap",
)
"""A chain of six tasks: 6 s if all are on the fast machine, the optimum; about 50 s at random."""


def make(**options: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(
        fate_gym.ENV_ID, **({"problem": TRAP, "window": 2, "max_shards": 1} | options)
    )


def random_makespan() -> float:
    env, rng = make(), np.random.default_rng(0)
    makespans = []
    for episode in range(20):
        _, info = env.reset(seed=episode)
        ended = False
        while not ended:
            _, _, ended, _, info = env.step(legal_action(info["action_mask"], rng))
        makespans.append(info["metrics"]["makespan"])
    return float(np.mean(makespans))


def test_maskable_ppo() -> None:
    from sb3_contrib import MaskablePPO

    env = make()
    model = MaskablePPO(
        "MultiInputPolicy", env, n_steps=256, batch_size=64, learning_rate=3e-3, seed=0,
        device="cpu",
    )  # fmt: skip
    model.learn(2048)
    observation, info = env.reset(seed=0)
    ended = False
    while not ended:
        action, _ = model.predict(
            observation, action_masks=info["action_mask"].astype(bool), deterministic=True
        )
        observation, _, ended, _, info = env.step(action.item())
    assert info["metrics"]["invalid_actions"] == 0
    assert info["metrics"]["makespan"] < 0.4 * random_makespan()


def test_dqn() -> None:
    """Without masks: it also has to learn which actions are illegal."""
    from stable_baselines3 import DQN

    env = gymnasium.wrappers.TimeLimit(FlatObservation(make()), 60)
    model = DQN(
        "MlpPolicy", env, learning_starts=200, train_freq=2, target_update_interval=200,
        exploration_fraction=0.6, learning_rate=2e-3, gamma=0.97, seed=0, device="cpu",
    )  # fmt: skip
    model.learn(4000)
    observation, info = env.reset(seed=0)
    total, ended, truncated = 0.0, False, False
    while not (ended or truncated):
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, ended, truncated, info = env.step(action.item())
        total += float(reward)
    assert ended
    assert info["metrics"]["makespan"] < 0.5 * random_makespan()


def test_torchrl() -> None:
    """The specs hold, and masked random rollouts have no illegal action."""
    with warnings.catch_warnings():
        # Deprecations inside TorchRL and TensorDict.
        warnings.simplefilter("ignore")
        from torchrl.envs import GymWrapper, TransformedEnv
        from torchrl.envs.transforms import ActionMask
        from torchrl.envs.utils import check_env_specs

        own = make(problem="smoke", window=4)
        env = TransformedEnv(GymWrapper(own, categorical_action_encoding=True), ActionMask())
        env.set_seed(0)
        check_env_specs(env)
        rollout = env.rollout(300, break_when_any_done=True)
    assert rollout["next", "done"][-1].item()
    mask = rollout["action_mask"].numpy()
    actions = rollout["action"].numpy()
    assert mask[np.arange(len(actions)), actions].all()


def test_the_ppo_of_the_documentation(tmp_path: Path) -> None:
    """It runs, and gets better within seconds."""
    file = tmp_path / "trap.json"
    file.write_text(TRAP.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-W", "error", "docs/examples/ppo.py", "--problem", str(file)]
    options = ["--steps", "8192", "--lanes", "16", "--horizon", "32", "--learning-rate", "3e-3"]
    done = subprocess.run(
        [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    makespans = [float(found) for found in re.findall(r"makespan +([\d.]+) s", done.stdout)]
    assert len(makespans) == 16
    assert makespans[-1] < 0.5 * makespans[0]
