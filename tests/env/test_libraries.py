"""Optional libraries: recorded datasets and a learner (docs/libraries.md)."""

from __future__ import annotations

import gc
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import fate_gym
from fate_gym.env import FlatObservation, PolicyAdapter
from policies import make_policy


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planner's episodes with their infos, and the environment back from the dataset."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari = pytest.importorskip("minari")
    pytest.importorskip("jax")
    env = minari.DataCollector(gymnasium.make(fate_gym.ENV_ID, problem="smoke"), record_infos=True)
    adapter = PolicyAdapter(make_policy("heft"))
    lengths = []
    for seed in range(2):
        adapter.play(env, seed=seed)
        lengths.append(adapter.actions + adapter.direct)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a dataset without author and licence
        dataset = env.create_dataset("fate_gym/heft-v0")
    episodes = list(dataset.iterate_episodes())
    assert [len(one.rewards) for one in episodes] == lengths
    assert episodes[0].infos["metrics"]["makespan"][-1] < np.inf
    env.close()
    recovered = dataset.recover_environment()
    assert recovered.observation_space == env.observation_space
    # The collector leaves its folder to the garbage collector.
    del env, adapter
    gc.collect()


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")
def test_the_minari_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    for needed in ("minari", "jax", "h5py"):
        pytest.importorskip(needed)
    script = runpy.run_path("docs/examples/libraries/minari_dataset.py")
    monkeypatch.setattr(sys, "argv", ["", "--suite=smoke", "--episodes=2", "--name=fate_gym/x-v0"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script["main"]()
    assert "fate_gym/x-v0: 2 episodes, " in capsys.readouterr().out
    gc.collect()


def test_skrl() -> None:
    """Its wrapper takes the flat environment, and the native lanes."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("skrl")
    from skrl.envs.wrappers.torch import wrap_env

    from fate_gym.env import FlatVectorObservation

    envs: list[Any] = [
        FlatObservation(gymnasium.make(fate_gym.ENV_ID, problem="smoke")),
        FlatVectorObservation(fate_gym.make_vec(3, problem="smoke")),
    ]
    for env in envs:
        wrapped = wrap_env(env, verbose=False)
        observation, _ = wrapped.reset()
        assert observation.shape == (wrapped.num_envs, wrapped.observation_space.shape[0])
        action = torch.zeros((wrapped.num_envs, 1), dtype=torch.int64)
        following, reward, *_ = wrapped.step(action)
        assert following.shape == observation.shape
        assert torch.isfinite(reward).all()
