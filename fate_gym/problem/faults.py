"""Find faults in users' input, and turn pydantic's errors into the package's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from fate_gym.errors import InputError, near_matches

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T", bound=Hashable)

_NAMES = {"workflows": "workflow", "stages": "stage", "devices": "device", "edges": "edge"}


def first_repeated(items: Iterable[T]) -> T | None:
    """Return the first item that occurs more than once, None if there is none."""
    return next((item for item, count in Counter(items).items() if count > 1), None)


def from_pydantic(
    error: ValidationError,
    data: Any,
    source: str | Path,
    model: type[BaseModel] | None = None,
) -> InputError:
    """Return the first fault of a pydantic error, with ids in place of list positions.

    Args:
        error: the error that pydantic raised.
        data: the data that was read.
        source: where it was read from.
        model: the model that the data was validated against; if given, unknown fields are
            answered with near matches.
    """
    first = _first(error)
    items, field = _locate(data, first["loc"])
    value = first.get("input")
    if first["type"] == "literal_error" and field and isinstance(value, str):
        choices = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return InputError(
            f"unknown {field.split('.')[-1]} {value[:80]!r}",
            source=source,
            item=items,
            field=field,
            remedy=near_matches(value, choices),
        )
    if first["type"] == "extra_forbidden" and model is not None:
        *above, name = first["loc"]
        known = fields_at(model, above)
        if known:
            return InputError(
                f"unknown field {str(name)[:80]!r}",
                source=source,
                item=items,
                field=field,
                remedy=near_matches(str(name), known),
            )
    message = first["msg"].removeprefix("Value error, ")
    if field and isinstance(value, str | int | float | bool | None):
        message += (
            f" (got {str(value)[:80]!r})" if isinstance(value, str) else f" (got {str(value)[:80]})"
        )
    remedy = {
        "extra_forbidden": "remove the field, or correct its name",
        "missing": "add the field",
    }.get(first["type"], "correct the value")
    return InputError(message, source=source, item=items, field=field, remedy=remedy)


def _first(error: ValidationError) -> ErrorDetails:
    """Return the first fault, but a misspelt field rather than the missing field it stands for."""
    faults = error.errors()
    if faults[0]["type"] != "missing":
        return faults[0]
    *above, name = faults[0]["loc"]
    for fault in faults:
        *beside, other = fault["loc"]
        alike = get_close_matches(str(other), [str(name)])
        if fault["type"] == "extra_forbidden" and beside == above and alike:
            return fault
    return faults[0]


def fields_at(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    """Return the field names of the model nested at ``loc``; an empty list if there is none."""
    inner: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        fields = getattr(_model_in(inner), "model_fields", {})
        if part not in fields:
            return []
        inner = fields[part].annotation
    return list(getattr(_model_in(inner), "model_fields", {}))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the only model in an annotation like ``tuple[Stage, ...]`` or ``Options | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = {inner for arg in get_args(annotation) if (inner := _model_in(arg)) is not None}
    return found.pop() if len(found) == 1 else None


def _locate(data: Any, loc: Sequence[str | int]) -> tuple[str | None, str | None]:
    items: list[str] = []
    field: list[str] = []
    name = ""
    for part in loc:
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) and part < len(data) else None
            label = data.get("id") if isinstance(data, dict) else None
            if name in _NAMES:
                field.clear()
                items.append(f"{_NAMES[name]} {label!r}" if label else f"{_NAMES[name]} #{part}")
            else:
                field.append(str(part))
        else:
            name = part
            field.append(part)
            data = data.get(part) if isinstance(data, dict) else None
    return ", ".join(items) or None, ".".join(field) or None
