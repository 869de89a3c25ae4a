"""Reinforcement learning with a model of Stable-Baselines3 or sb3-contrib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.utils import set_random_seed

from fate_gym.env.spec import Limits
from fate_gym.lab.training.agent_config import DqnConfig, PpoConfig
from fate_gym.lab.training.config import TrainConfig
from fate_gym.lab.training.lanes import Lanes, make_lanes
from fate_gym.lab.training.state import check_stored, damaged
from fate_gym.sim import CompiledProblem
from policies.learned.agent import Agent, PointerAgent, TorchAgent
from policies.learned.checkpoint import MOST_WEIGHT
from policies.learned.sb3 import CandidatePolicy, CandidateQPolicy, MaskedDQN

MODEL = "model.zip"
BUFFER = "buffer.npz"

_OURS = (
    "algorithm",
    "steps",
    "lanes",
    "final_rate",
    "exploration_fraction",
    "exploration_final",
    "anchor",
    "discount",
)
_NAMES = {
    "rollout": "n_steps",
    "epochs": "n_epochs",
    "entropy": "ent_coef",
    "value_weight": "vf_coef",
}
"""Stable-Baselines3's names of our options where they differ; it does not take `_OURS`."""


class NotFiniteError(Exception):
    """A parameter is no longer finite, or so large that products may not be."""


class Learner:
    """The model of a training, on the problems of one phase at a time.

    Args:
        config: configuration of the training.
        phases: problems of each phase.
        limits: sizes with room for all problems.
        curves: receives what Stable-Baselines3 logs.
    """

    def __init__(
        self,
        config: TrainConfig,
        phases: Sequence[list[CompiledProblem]],
        limits: Limits,
        curves: KVWriter,
    ) -> None:
        self._config, self._phases, self._limits = config, phases, limits
        self._options = config.options
        self._phase = 0
        self.model = make_model(config, self._lanes(0))
        self.model.set_logger(Logger(None, [curves]))

    @property
    def is_dqn(self) -> bool:
        return isinstance(self.model, MaskedDQN)

    @property
    def steps(self) -> int:
        return int(self.model.num_timesteps)

    @property
    def updates(self) -> int:
        return int(self.model._n_updates)

    def _lanes(self, phase: int) -> Lanes:
        learning = self._config.agent.learning
        lanes = learning.lanes if learning is not None else 1
        return make_lanes(lanes, self._phases[phase], self._limits, self._options)

    def use_phase(self, number: int) -> None:
        """Use the problems of a phase from now on."""
        if number != self._phase:
            self.model.set_env(self._lanes(number))
            self._phase = number

    def seed(self, seed: int) -> None:
        """Seed all random number generators, and the lanes."""
        set_random_seed(seed)
        self.model.action_space.seed(seed)
        self.model.env.seed(seed)

    def learn(self, config: PpoConfig | DqnConfig, steps: int) -> None:
        """Train for a chunk of ``steps`` steps, in new episodes.

        Apart from what `save` writes, nothing carries over from earlier chunks.

        Raises:
            NotFiniteError: a parameter is no longer finite.
        """
        model = self.model
        if model.ep_info_buffer is not None:
            model.ep_info_buffer.clear()
        part = self.steps / config.steps
        rate = config.learning_rate * max(config.final_rate, 1.0 - part)
        model.learning_rate = rate
        model.lr_schedule = lambda _: rate
        if isinstance(config, DqnConfig):
            # SB3's own schedule would restart with each chunk.
            explored = min(1.0, part / config.exploration_fraction)
            exploration = 1.0 + explored * (config.exploration_final - 1.0)
            model.exploration_rate = exploration
            model.exploration_schedule = lambda _: exploration
        model._last_obs = None  # SB3 then resets the lanes
        try:
            model.learn(
                steps,
                callback=_Watch(),
                reset_num_timesteps=False,
                log_interval=1 if isinstance(config, PpoConfig) else 1000,
            )
        except ValueError as error:
            # torch rejects distributions of NaN before our own check.
            self.check_finite()
            if "nan" in str(error):
                raise NotFiniteError from None
            raise
        # SB3 would log the last update only with the next chunk's first rollout.
        model.logger.dump(self.steps)
        self.check_finite()

    def set_anchor(self) -> None:
        """Make the present network the anchor of reinforcement learning, if the agent has one."""
        if isinstance(self.model.policy, CandidatePolicy):
            self.model.policy.set_anchor()

    def check_finite(self) -> None:
        """Raise `NotFiniteError` if a parameter is not finite or exceeds `MOST_WEIGHT`."""
        _check_finite(self.model)

    def mean_return(self) -> float:
        """Return the mean return of the chunk's last episodes; NaN if none has ended."""
        recent = [episode["r"] for episode in self.model.ep_info_buffer or ()]
        return float(np.mean(recent)) if recent else math.nan

    def agent(self) -> Agent:
        """Return the present network as an agent that plays."""
        kind = self._config.agent.network.kind
        if kind == "pointer":
            return PointerAgent(self._options, self.weights())
        return TorchAgent(self._options, self._network, self._limits if kind == "mlp" else None)

    @property
    def _network(self) -> Any:
        inner = self.model.q_net if self.is_dqn else self.model.policy
        return inner.features_extractor.network

    def weights(self) -> dict[str, Any]:
        """Return the network's arrays by name."""
        return {name: value.numpy() for name, value in self._network.state_dict().items()}

    def save(self, folder: Path) -> None:
        """Write everything that `load` needs in order to continue."""
        self.model.save(folder / MODEL)
        if self.is_dqn:
            with (folder / BUFFER).open("wb") as file:
                np.savez(file, **_arrays(self.model.replay_buffer))  # type: ignore[arg-type]

    def load(self, folder: Path, steps: int, updates: int) -> None:
        """Continue from a model that was saved after ``steps`` steps and ``updates`` updates.

        Raises:
            InputError: a file is missing or damaged.
        """
        self.model.num_timesteps = steps
        self.model._n_updates = updates
        path = folder / MODEL
        try:
            check_stored(path, path.stat().st_size)
            self.model.set_parameters(path)
            if self.is_dqn:
                path = folder / BUFFER
                check_stored(path, path.stat().st_size)
                _fill(self.model.replay_buffer, path)
        # zipfile, torch and NumPy raise errors of many kinds.
        except Exception:  # noqa: BLE001
            raise damaged(path, folder.parent) from None


def _arrays(buffer: Any) -> dict[str, NDArray[Any]]:
    """Return a replay buffer's content as arrays: SB3 would use pickle, which can run code."""
    arrays = {name: value for name, value in vars(buffer).items() if isinstance(value, np.ndarray)}
    for group in ("observations", "next_observations"):
        arrays |= {f"{group}/{key}": value for key, value in getattr(buffer, group).items()}
    return arrays | {"place": np.array([buffer.pos, buffer.full], np.int64)}


def _fill(buffer: Any, path: Path) -> None:
    """Fill a replay buffer from a file of the arrays that `_arrays` returned."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        for name, array in _arrays(buffer).items():
            if name != "place":
                if archive[name].shape != array.shape:
                    raise ValueError(name)
                array[...] = archive[name]
        position, full = archive["place"].tolist()
    if not 0 <= position < buffer.buffer_size:
        raise ValueError("place")
    buffer.pos, buffer.full = position, bool(full)


def make_model(config: TrainConfig, env: Lanes) -> Any:
    """Make an untrained model of SB3 or sb3-contrib."""
    network = config.agent.network
    kwargs: dict[str, Any] = {"network": {"kind": network.kind, **network.params}}
    common: dict[str, Any] = {"seed": config.seed, "device": "cpu", "policy_kwargs": kwargs}
    learning = config.agent.learning
    if learning is None:
        return MaskablePPO(CandidatePolicy, env, n_steps=2, batch_size=2, **common)
    common["gamma"] = config.discount
    given = {_NAMES.get(name, name): value for name, value in learning if name not in _OURS}
    if isinstance(learning, DqnConfig):
        return MaskedDQN(CandidateQPolicy, env, **given, **common)
    if learning.anchor is not None:
        given["ent_coef"] = learning.anchor
        kwargs["anchored"] = True
    return MaskablePPO(CandidatePolicy, env, **given, **common)


class _Watch(BaseCallback):
    """Raises `NotFiniteError` before a rollout with parameters that are not finite."""

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        _check_finite(self.model)


def _check_finite(model: Any) -> None:
    # Checkpoints hold no larger values. NaN fails the comparison, too.
    if not all(bool((value.abs() <= MOST_WEIGHT).all()) for value in model.policy.parameters()):
        raise NotFiniteError
