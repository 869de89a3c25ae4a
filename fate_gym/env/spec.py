"""Options of the environment, and the sizes that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, GROUPS, NODES, STAGES
from fate_gym.env.layout import (
    FRAME_HEAD,
    LATENCY,
    MAKESPAN,
    SHAPED,
    FrameView,
    frame_bytes,
)
from fate_gym.errors import InputError
from fate_gym.problem.workflow import Frozen
from fate_gym.sim import Assignment, CompiledProblem
from fate_gym.sim.candidates import candidate_count
from fate_gym.sim.layout import Buffer
from fate_gym.workloads.arrivals import Arrivals
from fate_gym.workloads.config import parse

GroupKey = Literal["stages", "devices", "candidates", "globals"]
MASK = "action_mask"
_GROUPS = GROUPS | {NODES.key: NODES}
_REWARDS = {"makespan": MAKESPAN, "latency": LATENCY, "shaped": SHAPED}


class EnvOptions(Frozen):
    """What `fate_gym.env.WorkflowSchedulingEnv` can be told, besides its problems."""

    window: PositiveInt = Field(8, le=1024, description="S, ready stages shown at a time")
    max_shards: PositiveInt = Field(
        3, le=16, description="K, devices of one placement; a problem's own limit holds as well"
    )
    max_devices: PositiveInt | None = Field(None, description="D; None: as the problems need")
    max_models: PositiveInt | None = Field(None, description="M; None: as the problems need")
    observation: tuple[GroupKey, ...] = Field(
        ("stages", "devices", "candidates", "globals"), description="groups that are shown"
    )
    dag: bool = Field(False, description="show the graph: dag_nodes and dag_edges")
    max_stages: PositiveInt | None = Field(None, description="N; None: as the problems need")
    max_edges: PositiveInt | None = Field(None, description="E; None: as the problems need")
    reward: Literal["makespan", "latency", "shaped"] = "makespan"
    reward_scale: PositiveFloat | None = Field(
        None, description="seconds per unit of reward; None: each problem's own estimate"
    )
    discount: PositiveFloat = Field(1.0, le=1.0, description="gamma of the shaped reward")
    invalid_penalty: NonNegativeFloat = Field(0.1, description="price of an illegal action")
    strict: bool = Field(False, description="an illegal action raises")
    time_scale: PositiveFloat = Field(10.0, description="seconds at which a time is 0.5")
    uncertainty: NonNegativeFloat | None = Field(
        None, le=2.0, description="sigma of the noise on durations; None: the problem's own"
    )
    length_uncertainty: NonNegativeFloat | None = Field(
        None, le=2.0, description="sigma of actual / estimated output tokens; None: likewise"
    )
    arrivals: Arrivals | None = Field(
        None, description="process that every episode draws arrivals from; None: the problem's own"
    )

    @field_validator("observation")
    @classmethod
    def _once(cls, groups: tuple[GroupKey, ...]) -> tuple[GroupKey, ...]:
        if len(set(groups)) < len(groups):
            raise ValueError("a group stands twice")
        return groups


def parse_options(options: Mapping[str, Any]) -> EnvOptions:
    """Checked options. Raises `InputError` naming the option."""
    return parse(dict(options), EnvOptions, source="environment options")


@dataclass(frozen=True)
class Limits:
    """What the largest problem needs."""

    devices: int
    models: int
    stages: int
    edges: int

    @classmethod
    def of(cls, compiled: CompiledProblem) -> Limits:
        stages, devices, models = compiled.shape[:3]
        return cls(devices, models, stages, int(compiled.view.edges.size))

    def join(self, other: Limits) -> Limits:
        """Room for both."""
        return Limits(
            max(self.devices, other.devices),
            max(self.models, other.models),
            max(self.stages, other.stages),
            max(self.edges, other.edges),
        )


@dataclass(frozen=True)
class Block:
    """One array of the observation inside the output buffer of a batch."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    at: int
    """Bytes of one lane before this block; times the number of lanes it is the offset."""

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


class Spec:
    """Options and limits together: every size of an environment, fixed when it is made.

    Attributes:
        options: as given.
        limits: D, M, N and E, from the options or else from the problems.
    """

    def __init__(self, options: EnvOptions, needs: Limits) -> None:
        self.options = options
        self.limits = Limits(
            options.max_devices or needs.devices,
            options.max_models or max(1, needs.models),
            options.max_stages or needs.stages,
            options.max_edges or max(1, needs.edges),
        )

    @property
    def positions(self) -> int:
        """P, candidate placements of one slot."""
        return candidate_count(self.limits.devices, self.options.max_shards)

    @property
    def actions(self) -> int:
        """Number of actions: S P placements, and waiting."""
        return self.options.window * self.positions + 1

    def placement(
        self, frame: FrameView, compiled: CompiledProblem, action: int
    ) -> Assignment | None:
        """What an action places by the frame of the last observation; None if nothing."""
        slot, position = divmod(action, self.positions)
        if not 0 <= slot < frame.head["shown"][0]:
            return None
        line, stage = int(frame.lines[slot]), int(frame.window[slot])
        k = int(frame.widths[line * self.positions + position])
        if k == 0:
            return None
        if k == 1:
            return Assignment(stage, (position,), (int(compiled.view.stages["queries"][stage]),))
        number = line * 3 * (self.options.max_shards - 1) + position - self.limits.devices
        return Assignment(
            stage,
            tuple(frame.members[number, :k].tolist()),
            tuple(frame.counts[number, :k].tolist()),
        )

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The arrays of an observation, in the order of the output buffer."""
        window, models = self.options.window, self.limits.models
        single, byte, whole = np.dtype(np.float32), np.dtype(np.int8), np.dtype(np.int32)
        shapes: list[tuple[str, tuple[int, ...], np.dtype[Any]]] = [
            ("stages", (window, STAGES.width(models)), single),
            ("devices", (self.limits.devices, DEVICES.width(models)), single),
            ("candidates", (self.actions - 1, CANDIDATES.width(models)), single),
            ("globals", (GLOBALS.width(models),), single),
        ]
        shapes = [shape for shape in shapes if shape[0] in self.options.observation]
        if self.options.dag:
            shapes.append((NODES.key, (self.limits.stages, NODES.width(models)), single))
            shapes.append(("dag_edges", (self.limits.edges, 2), whole))
        shapes.append((MASK, (self.actions,), byte))
        blocks, at = [], 0
        for key, shape, dtype in shapes:
            blocks.append(Block(key, shape, dtype, at))
            at += blocks[-1].nbytes
        return tuple(blocks)

    @cached_property
    def bytes(self) -> int:
        """Size of the output buffer of one lane."""
        return sum(block.nbytes for block in self.blocks)

    def observation_space(self) -> spaces.Space[Any]:
        """The space of one lane's observation."""
        return spaces.Dict({block.key: self._space(block) for block in self.blocks})

    def action_space(self) -> spaces.Discrete[Any]:
        """Slot x position, and waiting last."""
        return spaces.Discrete(self.actions)

    def _space(self, block: Block) -> spaces.Box:
        if block.key == MASK:
            return spaces.Box(0, 1, block.shape, np.int8)
        if block.key == "dag_edges":
            return spaces.Box(-1, self.limits.stages - 1, block.shape, np.int32)
        columns = _GROUPS[block.key].columns(self.limits.models)
        low = np.broadcast_to([np.float32(column.low) for column in columns], block.shape)
        high = np.broadcast_to([np.float32(column.high) for column in columns], block.shape)
        return spaces.Box(low, high, block.shape, np.float32)

    def arrays(self, out: np.ndarray[Any, Any], lanes: int | None) -> dict[str, Any]:
        """The observation in an output buffer; with ``lanes``, arrays of a batch."""
        number = 1 if lanes is None else lanes
        lead = () if lanes is None else (lanes,)
        return {
            block.key: np.ndarray(
                (*lead, *block.shape), block.dtype, buffer=out, offset=block.at * number
            )
            for block in self.blocks
        }

    def frame_bytes(self, compiled: CompiledProblem) -> int:
        """Size of the frame of an episode of a problem."""
        window, shards = self.options.window, self.options.max_shards
        stages, devices = compiled.shape[:2]
        workflows = int(compiled.view.workflows.size)
        return frame_bytes(window, self.positions, shards, stages, devices, workflows)

    def head(self, lane: int, lanes: int) -> Buffer:
        """The first bytes of the frame of an episode that begins: the options, the rest zero.

        Args:
            lane: number of the lane whose observation the frame describes.
            lanes: lanes in the output buffer.
        """
        buffer = np.zeros(FRAME_HEAD.itemsize, np.uint8)
        head = buffer.view(FRAME_HEAD)[0]
        options, limits = self.options, self.limits
        head["slots"], head["positions"] = options.window, self.positions
        head["shards"], head["devices"] = options.max_shards, limits.devices
        head["models"] = limits.models
        if options.dag:
            head["nodes"], head["edges"] = limits.stages, limits.edges
        head["reward"] = _REWARDS[options.reward]
        head["discount"], head["penalty"] = options.discount, options.invalid_penalty
        head["time_scale"] = options.time_scale
        for key in GROUPS:
            head[f"{key}_at"] = -1
        for block in self.blocks:
            name = {MASK: "mask", NODES.key: "nodes", "dag_edges": "edges"}.get(
                block.key, block.key
            )
            head[f"{name}_at"] = block.at * lanes + lane * block.nbytes
        return buffer

    def same_as(self, other: Spec) -> bool:
        """Whether states and observations mean the same."""
        return self.options == other.options and self.limits == other.limits

    def check_fits(self, compiled: CompiledProblem) -> None:
        """Raises `InputError` if a problem is larger than the spaces."""
        needs = Limits.of(compiled)
        names = (
            ("devices", "models", "stages", "edges") if self.options.dag else ("devices", "models")
        )
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


__all__ = ["MASK", "Block", "EnvOptions", "Limits", "Spec", "parse_options"]
