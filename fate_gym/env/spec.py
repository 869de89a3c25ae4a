"""The sizes of an environment, which follow from its options and its problems."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, NODES, STAGES
from fate_gym.env.objectives import RewardPlan
from fate_gym.env.options import EnvOptions
from fate_gym.env.output import Output
from fate_gym.errors import InputError
from fate_gym.kernel.placements import candidate_count
from fate_gym.sim import CompiledProblem

MASK = "action_mask"
EDGES = "dag_edges"
STREAK = "invalid_streak"
MOST_VALUES = 2**27
"""Most values of one observation: half a gigabyte."""
_GROUPS = {group.key: group for group in (STAGES, DEVICES, CANDIDATES, GLOBALS, NODES)}


class Limits(NamedTuple):
    """The sizes that the largest problem needs."""

    devices: int
    models: int
    stages: int
    edges: int

    @classmethod
    def of(cls, compiled: CompiledProblem) -> Limits:
        stages, devices, models = compiled.shape[:3]
        return cls(devices, models, stages, int(compiled.arrays.edges.size))

    def join(self, other: Limits) -> Limits:
        """Return limits with room for both."""
        return Limits(*map(max, self, other))


class Spec:
    """Options and limits together: every size of an environment, fixed when it is made.

    Attributes:
        options: as given.
        limits: D, M, N and E, from the options or else from the problems.
        rewards: how rewards are computed.

    Raises:
        InputError: an observation would not fit in memory.
    """

    def __init__(self, options: EnvOptions, needs: Limits) -> None:
        self.options = options
        self.rewards = RewardPlan(options.reward)
        self.limits = Limits(
            options.max_devices or needs.devices,
            options.max_models or max(1, needs.models),
            options.max_stages or needs.stages,
            options.max_edges or max(1, needs.edges),
        )
        values = sum(map(math.prod, self.shapes.values()))
        if values > MOST_VALUES:
            raise InputError(
                f"an observation would have {values:,} values, more than {MOST_VALUES:,}",
                source="environment options",
                field="window",
                remedy="lower window, max_devices, max_models, max_stages or max_edges",
            )

    @property
    def positions(self) -> int:
        """P, candidate placements per slot."""
        return candidate_count(self.limits.devices, self.options.max_shards)

    @property
    def actions(self) -> int:
        """Number of actions: S P placements, and waiting."""
        return self.options.window * self.positions + 1

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the arrays of an observation, in order."""
        models = self.limits.models
        shapes: dict[str, tuple[int, ...]] = {
            STAGES.key: (self.options.window, STAGES.width(models)),
            DEVICES.key: (self.limits.devices, DEVICES.width(models)),
            CANDIDATES.key: (self.actions - 1, CANDIDATES.width(models)),
            GLOBALS.key: (GLOBALS.width(models),),
        }
        shapes = {key: shape for key, shape in shapes.items() if key in self.options.observation}
        if self.options.dag:
            shapes[NODES.key] = (self.limits.stages, NODES.width(models))
            shapes[EDGES] = (self.limits.edges, 2)
        return shapes | {STREAK: (1,), MASK: (self.actions,)}

    def output(self, lanes: int | None = None) -> Output:
        """Return the maker of observation arrays; with ``lanes``, for a batch."""
        return Output(self.shapes, lanes)

    def observation_space(self) -> spaces.Space[Any]:
        """Return the space of one lane's observation."""
        return spaces.Dict({key: self._space(key, shape) for key, shape in self.shapes.items()})

    def action_space(self) -> spaces.Discrete[Any]:
        """Return the action space: slot x position, and waiting last."""
        return spaces.Discrete(self.actions)

    def _space(self, key: str, shape: tuple[int, ...]) -> spaces.Space[Any]:
        if key == MASK:
            dtype: Any = np.bool_  # Gymnasium accepts it; its annotations do not.
            return spaces.Box(0, 1, shape, dtype)
        if key == STREAK:
            return spaces.Box(0.0, 1.0, shape, np.float32)
        if key == EDGES:
            return spaces.Box(-1, self.limits.stages - 1, shape, np.int32)
        columns = _GROUPS[key].columns(self.limits.models)
        low = np.broadcast_to([np.float32(column.low) for column in columns], shape)
        high = np.broadcast_to([np.float32(column.high) for column in columns], shape)
        return spaces.Box(low, high, shape, np.float32)

    def same_as(self, other: Spec) -> bool:
        """Return whether states and observations mean the same under both specs."""
        return self.options == other.options and self.limits == other.limits

    def check_fits(self, compiled: CompiledProblem) -> None:
        """Raise `InputError` if a problem is larger than the spaces."""
        needs = Limits.of(compiled)
        names = ["devices", "models", *(("stages", "edges") if self.options.dag else ())]
        for name in names:
            need, room = getattr(needs, name), getattr(self.limits, name)
            if need > room:
                raise InputError(
                    f"the problem has {need} {name}, the environment has room for {room}",
                    source="environment",
                    item=f"problem {compiled.problem.id!r}",
                    field=f"max_{name}",
                    remedy=f"make the environment with max_{name}={need} or more",
                )
