"""Options of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator

from fate_gym.catalog.limits import Amount, Devices, PositiveAmount
from fate_gym.problem.workflow import Frozen
from fate_gym.workloads.arrivals import Arrivals
from fate_gym.workloads.config import parse

Room = Annotated[int, Field(ge=1, le=10**7)]
"""Rows of an observation. `fate_gym.env.spec` limits all of them together."""
GroupKey = Literal["stages", "devices", "candidates", "globals"]


class EnvOptions(Frozen):
    """What `fate_gym.env.WorkflowSchedulingEnv` can be told, besides its problems."""

    window: PositiveInt = Field(8, le=1024, description="S, ready stages shown at a time")
    max_shards: PositiveInt = Field(
        3, le=16, description="K, devices of one placement; a problem's own limit holds as well"
    )
    max_devices: Devices | None = Field(None, description="D; None: as the problems need")
    max_models: Room | None = Field(None, description="M; None: as the problems need")
    observation: tuple[GroupKey, ...] = Field(
        ("stages", "devices", "candidates", "globals"), description="groups that are shown"
    )
    dag: bool = Field(False, description="show the graph: dag_nodes and dag_edges")
    max_stages: Room | None = Field(None, description="N; None: as the problems need")
    max_edges: Room | None = Field(None, description="E; None: as the problems need")
    reward: Literal["makespan", "latency", "shaped"] = "makespan"
    reward_scale: PositiveAmount | None = Field(
        None, description="seconds per unit of reward; None: each problem's own estimate"
    )
    discount: float = Field(1.0, gt=0, le=1, description="gamma of the shaped reward")
    invalid_penalty: Amount = Field(0.1, description="price of an illegal action")
    strict: bool = Field(False, description="an illegal action raises")
    time_scale: PositiveAmount = Field(10.0, description="seconds at which a time is 0.5")
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
