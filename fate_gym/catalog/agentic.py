"""The templates of agentic applications: published shapes, each with its source."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from fate_gym.catalog.loader import _Fact, read_yaml
from fate_gym.catalog.roles import ModelCall, Span, ToolCall

Link = Literal["all", "each"]
"""``all``: every stage follows every stage; ``each``: paired in order, singly or in groups."""


class Step(_Fact):
    """Stages of one kind within a template: ``count`` chains of ``chain`` stages."""

    role: str
    count: PositiveInt | Span | str = Field(1, description="a name: as many as that earlier step")
    chain: PositiveInt = 1
    queries: PositiveInt = Field(1, description="samples of one request")
    when: str | None = Field(None, description="occurs only in runs in which this chance came up")
    after: dict[str, Link] = Field(default_factory=dict)


def _kind(row: Any) -> str:
    return "tool" if "seconds" in row else "model"


AnyCall = Annotated[
    Annotated[ModelCall, Tag("model")] | Annotated[ToolCall, Tag("tool")], Discriminator(_kind)
]


class Template(_Fact):
    """An application: its roles, and steps that refer to earlier steps by name."""

    name: str
    family: str = Field(description="variants of one application; splits go by family")
    split: Literal["train", "test"] | None = None
    published: str = Field(description="what of the shape is published, with its source")
    ours: str = Field(description="what is not")
    batch: Span
    chances: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=dict)
    skips: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict, description="share of runs without a step, where that is drawn"
    )
    roles: dict[str, AnyCall]
    steps: dict[str, Step] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        known: set[str] = set()
        for name, step in self.steps.items():
            wanted = {*step.after, *([step.count] if isinstance(step.count, str) else [])}
            if wanted - known:
                raise ValueError(f"step {name!r} refers to steps that do not come before it")
            if step.role not in self.roles:
                raise ValueError(f"step {name!r} has no role {step.role!r}")
            if step.when is not None and step.when not in self.chances:
                raise ValueError(f"step {name!r} has no chance {step.when!r}")
            known.add(name)
        if set(self.skips) - known:
            raise ValueError("skips names a step that is not there")
        return self


@cache
def agentic_templates() -> dict[str, Template]:
    """Return every template by name."""
    return {
        name: _template(name, row) for name, row in read_yaml("agentic.yaml")["templates"].items()
    }


def _template(name: str, row: dict[str, Any]) -> Template:
    # Queries are an attribute of the role table only: here the steps give them.
    single = {"low": 1, "high": 1, "source": "steps"}
    roles = {
        role: {"name": role} | call | ({} if "seconds" in call else {"queries": single})
        for role, call in row["roles"].items()
    }
    return Template.model_validate({"name": name} | row | {"roles": roles})
