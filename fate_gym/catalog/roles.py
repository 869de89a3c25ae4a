"""The role table: stages of LLM applications, each number with its source."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal, Self, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from fate_gym.catalog.loader import _Fact, models, read_yaml

Position = Literal["source", "middle", "merge", "sink"]
"""Position of a task type in a DAG."""

POSITIONS: tuple[Position, ...] = get_args(Position)

_Z95 = 1.6448536269514722  # 95th percentile of the standard normal distribution


class Lengths(_Fact):
    """A lognormal distribution by its median and 95th percentile, clamped to ``[min, max]``.

    With a 95th percentile above ``max``, much of the weight is at ``max``.
    """

    p50: PositiveFloat
    p95: PositiveFloat
    min: NonNegativeFloat
    max: PositiveFloat
    source: str

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return math.log(self.p95 / self.p50) / _Z95

    @model_validator(mode="after")
    def _ordered(self) -> Lengths:
        if not (self.min <= self.p50 <= self.max and self.p50 <= self.p95):
            raise ValueError("needs min <= p50 <= max and p50 <= p95")
        return self


class Span(_Fact):
    """A log-uniform distribution of whole numbers from ``low`` to ``high``."""

    low: PositiveInt
    high: PositiveInt
    source: str

    @model_validator(mode="after")
    def _ordered(self) -> Span:
        if self.low > self.high:
            raise ValueError("needs low <= high")
        return self


class Payload(_Fact):
    """What the output of a stage carries to a child; ``mb`` is megabytes (10**6) per query."""

    kind: Literal["text", "kv", "media", "artefact"]
    mb: Lengths | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _sized(self) -> Payload:
        if (self.kind in ("media", "artefact")) != (self.mb is not None):
            raise ValueError("media and artefact need mb, text and kv take none")
        if self.source is None and self.mb is None:
            raise ValueError("needs a source")
        return self


class _Part(_Fact):
    """What calls of models and of tools have in common."""

    name: str
    output: Lengths | None = Field(None, description="tokens per query; None: no text comes out")
    edge: Payload


class ModelCall(_Part):
    """What a model stage does: candidate models, batch size, lengths in tokens, output."""

    models: dict[str, PositiveFloat] = Field(min_length=1)
    queries: Span
    prefix: Span | None = None
    prompt: Lengths
    inherits: bool = Field(True, description="whether the prompt takes over parents' outputs")

    @model_validator(mode="after")
    def _known_models(self) -> Self:
        unknown = set(self.models) - set(models())
        if unknown:
            raise ValueError(f"unknown models {', '.join(sorted(unknown))}")
        return self


class ToolCall(_Part):
    """What a tool stage does: seconds on the host, and the tokens of its output."""

    seconds: Lengths


class _Placed(_Fact):
    positions: dict[Position, NonNegativeFloat]

    @model_validator(mode="after")
    def _every_position(self) -> Self:
        if set(self.positions) != set(POSITIONS):
            raise ValueError(f"positions needs exactly {', '.join(POSITIONS)}")
        return self


class Role(ModelCall, _Placed):
    """A model call of the role table, with its weights by position in the DAG."""


class Tool(ToolCall, _Placed):
    """A tool call of the role table, with its weights by position in the DAG."""


class Rules(_Fact):
    """Numbers of the role mapping that belong to no single role; units in the names."""

    context_tokens: PositiveInt
    inherited_tokens: PositiveInt
    text_bytes_per_token: PositiveFloat
    queries_per_type: PositiveInt
    wide_tasks: PositiveInt
    wide_params_b: PositiveFloat
    merge_fan_in: PositiveFloat
    scatter_fan_out: PositiveInt
    model_reuse: PositiveFloat
    session_reuse: PositiveFloat
    types_per_tool: PositiveInt
    tool_share: float = Field(ge=0, le=1)


@cache
def roles() -> dict[str, Role]:
    """Return every role by name."""
    return {name: Role(name=name, **row) for name, row in read_yaml("roles.yaml")["roles"].items()}


@cache
def tools() -> dict[str, Tool]:
    """Return every tool by name."""
    return {name: Tool(name=name, **row) for name, row in read_yaml("roles.yaml")["tools"].items()}


@cache
def role_rules() -> Rules:
    """Return the numbers of the mapping from task types to roles."""
    rows = read_yaml("roles.yaml")["rules"]
    return Rules(**{name: row["value"] for name, row in rows.items()})
