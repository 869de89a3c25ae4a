"""Options of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator

from fate_gym.catalog.limits import Amount, Devices, PositiveAmount
from fate_gym.env.named import is_name_of_object, named_object
from fate_gym.env.objectives import Reward, RewardName
from fate_gym.errors import near_matches
from fate_gym.problem import Cluster
from fate_gym.problem.workflow import Frozen
from fate_gym.workloads.arrivals import Arrivals
from fate_gym.workloads.config import parse

Room = Annotated[int, Field(ge=1, le=10**7)]
"""Rows of an observation. `fate_gym.env.spec` limits the total."""
GroupKey = Literal["stages", "devices", "candidates", "globals"]


class EnvOptions(Frozen):
    """The options of `fate_gym.env.WorkflowSchedulingEnv`, except its problems."""

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
    reward: Reward = Field(
        "makespan",
        description="makespan, latency, shaped, shaped_latency, a function, or a tuple of these",
    )
    reward_scale: PositiveAmount | None = Field(
        None, description="seconds per unit of reward; None: each problem's own estimate"
    )
    discount: float = Field(1.0, gt=0, le=1, description="gamma of the shaped reward")
    invalid_penalty: Amount = Field(0.1, description="price of an illegal action")
    max_invalid_actions: PositiveInt = Field(
        100, le=10**9, description="illegal actions in a row that truncate the episode"
    )
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

    @field_validator("reward", mode="plain")
    @classmethod
    def _known(cls, reward: Any) -> Reward:
        names = get_args(RewardName)
        given = reward if isinstance(reward, list | tuple) else (reward,)
        parts = tuple(
            named_object(part, "reward") if is_name_of_object(part) else part for part in given
        )
        if not parts:
            raise ValueError("there is no reward: name one or more")
        for part in parts:
            if part not in names and not callable(part):
                raise ValueError(f"unknown reward {part!r}: {near_matches(str(part), names)}")
        found: Reward = parts if isinstance(reward, list | tuple) else parts[0]
        return found

    @field_validator("observation")
    @classmethod
    def _once(cls, groups: tuple[GroupKey, ...]) -> tuple[GroupKey, ...]:
        if len(set(groups)) < len(groups):
            raise ValueError("a group stands twice")
        return groups


class SuiteOptions(Frozen):
    """How problems are made from suites given by name."""

    cluster: Cluster | str | None = Field(
        None, description="cluster, or name of one; None: the suite's own"
    )
    seed: NonNegativeInt = Field(0, description="of the problems; episodes have seeds of their own")


def parse_options(options: Mapping[str, Any], environment: str) -> tuple[EnvOptions, SuiteOptions]:
    """Return the checked arguments of an environment.

    Raises:
        InputError: naming the option.
        TypeError: an unknown argument, as for any other call; TorchRL tries ``frameskip``.
    """
    known = {**EnvOptions.model_fields, **SuiteOptions.model_fields}
    for name in options:
        if name not in known:
            raise TypeError(
                f"{environment}.__init__() got an unexpected keyword argument {name!r}. "
                f"Remedy: {near_matches(name, known)}"
            )
    of_suite = {name: options[name] for name in options if name in SuiteOptions.model_fields}
    others = {name: options[name] for name in options if name not in of_suite}
    return (
        parse(others, EnvOptions, source="environment options"),
        parse(of_suite, SuiteOptions, source="environment options"),
    )
