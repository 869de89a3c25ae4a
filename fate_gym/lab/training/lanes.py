"""The native vector environment, with the observations that trainings use."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from fate_gym.env import WorkflowSchedulingVectorEnv
from fate_gym.env.features import DEVICES, GLOBALS, NODES, STAGES
from fate_gym.env.options import EnvOptions
from fate_gym.env.sb3 import SB3VecEnv
from fate_gym.env.spec import Limits
from fate_gym.lab.training.problems import env_arguments
from fate_gym.sim import CompiledProblem

_SHOWN = {group.key: len(group.features) for group in (STAGES, DEVICES, GLOBALS, NODES)}


class Lanes(SB3VecEnv):
    """B lanes that step in one compiled call.

    Columns about individual models are dropped: no network uses them (`policies.learned`), and
    without them the rollout buffer is smaller.
    """

    def shown(self, observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return narrow(observation)

    def shown_space(self, space: spaces.Space[Any]) -> spaces.Dict:
        assert isinstance(space, spaces.Dict)
        return spaces.Dict({key: narrow_space(key, box) for key, box in space.spaces.items()})


def narrow(observation: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return an observation without the columns about individual models."""
    return {
        key: value[..., : _SHOWN[key]] if key in _SHOWN else value
        for key, value in observation.items()
    }


def narrow_space(key: str, box: spaces.Space[Any]) -> spaces.Box:
    """Return the space of an observation's key after `narrow`."""
    assert isinstance(box, spaces.Box)
    if key not in _SHOWN:
        return box
    columns = slice(0, _SHOWN[key])
    return spaces.Box(box.low[..., columns], box.high[..., columns], dtype=np.float32)


def make_lanes(
    lanes: int, problems: list[CompiledProblem], limits: Limits, options: EnvOptions
) -> Lanes:
    """Make lanes that draw from the problems; observations have room for sizes up to ``limits``."""
    given = env_arguments(options, limits)
    return Lanes(WorkflowSchedulingVectorEnv(lanes, problems, autoreset_mode="SameStep", **given))
