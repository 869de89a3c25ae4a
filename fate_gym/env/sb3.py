"""The native vector environment as a `VecEnv` of Stable-Baselines3.

    from sb3_contrib import MaskablePPO

    from fate_gym.env.sb3 import SB3VecEnv

    envs = fate_gym.make_vec(32, autoreset_mode="SameStep")
    model = MaskablePPO("MultiInputPolicy", SB3VecEnv(envs), gamma=1.0)

Needs the extra ``rl``; nothing else in `fate_gym.env` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from fate_gym.env.faults import bad
from fate_gym.env.vector import WorkflowSchedulingVectorEnv


class SB3VecEnv(VecEnv):
    """B lanes that step in one compiled call.

    When an episode ends, its info has ``terminal_observation``, ``TimeLimit.truncated``, the
    ``metrics``, and ``episode`` (return, length and wall time) as `VecMonitor` writes it.

    Args:
        envs: the native vector environment, made with autoreset mode SameStep; or
            `FlatVectorObservation` around it.

    Raises:
        InputError: another environment, another mode, or a vector of rewards.
    """

    def __init__(self, envs: VectorEnv[Any, Any, Any]) -> None:
        own = envs.unwrapped
        if not isinstance(own, WorkflowSchedulingVectorEnv):
            fault = f"a {type(own).__name__} is not the native vector environment"
            raise bad("SB3VecEnv", "envs", fault, "give what fate_gym.make_vec makes")
        if own.autoreset_mode is not AutoresetMode.SAME_STEP:
            fault = f"Stable-Baselines3 resets at once, not {own.autoreset_mode.value!r}"
            raise bad("SB3VecEnv", "autoreset_mode", fault, "make it with 'SameStep'")
        if own.reward_space is not None:
            fault = "Stable-Baselines3 takes one reward, not several"
            raise bad("SB3VecEnv", "reward", fault, "name one, or give a function of them")
        self._envs, self._own = envs, own
        self.render_mode = None
        space = self.shown_space(envs.single_observation_space)
        super().__init__(envs.num_envs, space, envs.single_action_space)
        self._actions: NDArray[np.int64] = np.zeros(envs.num_envs, np.int64)
        self._started = perf_counter()
        self._forget_returns()

    def shown(self, observation: Any) -> Any:
        """Return what learners see of an observation; for subclasses."""
        return observation

    def shown_space(self, space: spaces.Space[Any]) -> spaces.Space[Any]:
        """Return the space of what learners see; for subclasses."""
        return space

    def reset(self) -> Any:
        """Start an episode in every lane, with the seeds given to `seed`."""
        seeds: Any = [None if seed is None else int(seed) for seed in self._seeds]
        observation, _ = self._envs.reset(seed=seeds)
        self._reset_seeds()
        self._reset_options()
        self._forget_returns()
        return self.shown(observation)

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self._actions = actions

    def step_wait(self) -> Any:
        observation, rewards, terminated, truncated, infos = self._envs.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        over = terminated | truncated
        lane_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(over).tolist():
            metrics = infos["final_info"]["metrics"]
            lane_infos[i] = {
                "terminal_observation": self.shown(infos["final_obs"][i]),
                "TimeLimit.truncated": bool(truncated[i] and not terminated[i]),
                "metrics": {
                    name: value[i] for name, value in metrics.items() if not name.startswith("_")
                },
                "episode": {
                    "r": float(self._returns[i]),
                    "l": int(self._lengths[i]),
                    "t": perf_counter() - self._started,
                },
            }
            self._returns[i] = 0.0
            self._lengths[i] = 0
        return self.shown(observation), rewards.astype(np.float32), over, lane_infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return the (B, A) mask of legal actions."""
        return self._own.action_masks()

    def close(self) -> None:
        self._envs.close()

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "action_masks" or hasattr(self._own, attr_name)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        value = getattr(self._own, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("lanes have no attributes of their own")

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> Sequence[Any]:
        """Call ``action_masks``, which sb3-contrib asks for; no other method is available."""
        if method_name != "action_masks":
            raise NotImplementedError(f"lanes have no method {method_name!r}")
        masks = self.action_masks()
        return [masks[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def _forget_returns(self) -> None:
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)
