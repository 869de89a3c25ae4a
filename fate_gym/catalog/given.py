"""Base class of everything that people write in files and options."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

_DEPTH = 4
"""Depth of the lists and mappings of numbers that fields accept, with some reserve."""


class Given(BaseModel):
    """Immutable, strict about unknown fields, and about booleans where numbers belong.

    Pydantic accepts true as 1, which would hide a slip such as ``queries: true``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_no_booleans(cls, data: Any) -> Any:
        # Not field validators: discriminator fields of unions do not allow any.
        if isinstance(data, Mapping):
            for name in _numeric(cls).intersection(data):
                if _holds_boolean(data[name], _DEPTH):
                    raise _not_a_number(cls, name, data[name])
        return data


def _not_a_number(model: type[BaseModel], name: str, value: Any) -> ValidationError:
    kind = PydanticCustomError("boolean_as_number", "true and false are not numbers")
    details: InitErrorDetails = {"type": kind, "loc": (name,), "input": value}
    return ValidationError.from_exception_data(model.__name__, [details])


@cache
def _numeric(model: type[BaseModel]) -> frozenset[str]:
    """Return the fields that hold numbers and no booleans."""
    kinds = {name: _kinds(field.annotation) for name, field in model.model_fields.items()}
    return frozenset(name for name, of in kinds.items() if of & {int, float} and bool not in of)


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation is made of."""
    own = {annotation} if isinstance(annotation, type) else set()
    return own.union(*map(_kinds, get_args(annotation)))


def _holds_boolean(value: Any, depth: int) -> bool:
    if isinstance(value, int | float | str):
        return isinstance(value, bool)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return False
    return depth > 0 and any(_holds_boolean(entry, depth - 1) for entry in value)
