"""The native vector environment as Stable-Baselines3 wants it."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from fate_gym.env import WorkflowSchedulingVectorEnv
from fate_gym.env.features import DEVICES, GLOBALS, NODES, STAGES
from fate_gym.env.options import EnvOptions
from fate_gym.env.spec import Limits
from fate_gym.lab.training.problems import env_arguments
from fate_gym.sim import CompiledProblem

_SHOWN = {group.key: len(group.features) for group in (STAGES, DEVICES, GLOBALS, NODES)}


class Lanes(VecEnv):
    """B lanes that step in one compiled call.

    The columns about single models are left out: no network uses them (`policies.learned`), and
    without them the rollout buffer is smaller.

    Args:
        env: the vector environment, made with autoreset mode SameStep.
    """

    def __init__(self, env: WorkflowSchedulingVectorEnv) -> None:
        assert env.autoreset_mode is AutoresetMode.SAME_STEP
        self._env = env
        inner = env.single_observation_space
        assert isinstance(inner, spaces.Dict)
        shown: dict[str, spaces.Space[Any]] = {
            key: narrow_space(key, box) for key, box in inner.spaces.items()
        }
        self.render_mode = None
        super().__init__(env.num_envs, spaces.Dict(shown), env.single_action_space)
        self._actions: NDArray[np.int64] = np.zeros(env.num_envs, np.int64)
        self._started = perf_counter()
        self._forget_returns()

    def reset(self) -> dict[str, NDArray[Any]]:
        """Start an episode in every lane, with the seeds given to `seed`."""
        seeds = [None if seed is None else int(seed) for seed in self._seeds]
        observation, _ = self._env.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        self._forget_returns()
        return narrow(observation)

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observation, rewards, ended, _, infos = self._env.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        lane_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(ended).tolist():
            lane_infos[i] = {
                "terminal_observation": narrow(infos["final_obs"][i]),
                "TimeLimit.truncated": False,
                "metrics": {
                    name: value[i] for name, value in infos["final_info"]["metrics"].items()
                },
                "episode": {
                    "r": float(self._returns[i]),
                    "l": int(self._lengths[i]),
                    "t": perf_counter() - self._started,
                },
            }
            self._returns[i] = 0.0
            self._lengths[i] = 0
        return narrow(observation), rewards.astype(np.float32), ended, lane_infos

    def action_masks(self) -> NDArray[np.bool_]:
        """(B, A) the legal actions."""
        return self._env.action_masks()

    def close(self) -> None:
        self._env.close()

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "action_masks"

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        value = getattr(self._env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("lanes have no attributes of their own")

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> Sequence[Any]:
        """sb3-contrib asks for ``action_masks``; nothing else is there."""
        if method_name != "action_masks":
            raise NotImplementedError(f"lanes have no method {method_name!r}")
        masks = self.action_masks()
        return [masks[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def _forget_returns(self) -> None:
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)


def narrow(observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """An observation without the columns about single models."""
    return {
        key: value[..., : _SHOWN[key]] if key in _SHOWN else value
        for key, value in observation.items()
    }


def narrow_space(key: str, box: spaces.Space[Any]) -> spaces.Box:
    """The space of what `narrow` leaves of a key."""
    assert isinstance(box, spaces.Box)
    if key not in _SHOWN:
        return box
    columns = slice(0, _SHOWN[key])
    return spaces.Box(box.low[..., columns], box.high[..., columns], dtype=np.float32)


def make_lanes(
    lanes: int, problems: list[CompiledProblem], limits: Limits, options: EnvOptions
) -> Lanes:
    """Lanes that draw their problems; observations have room for all that ``limits`` allow."""
    given = env_arguments(options, limits)
    return Lanes(WorkflowSchedulingVectorEnv(lanes, problems, autoreset_mode="SameStep", **given))
