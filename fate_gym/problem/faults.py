"""Finds faults in users' input, and turns pydantic's errors into the package's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from fate_gym.errors import InputError, near_matches

T = TypeVar("T", bound=Hashable)

_NAMES = {"workflows": "workflow", "stages": "stage", "devices": "device", "edges": "edge"}


def first_repeated(items: Iterable[T]) -> T | None:
    """The first item that occurs more than once."""
    return next((item for item, count in Counter(items).items() if count > 1), None)


def from_pydantic(error: ValidationError, data: Any, source: str | Path) -> InputError:
    """The first fault of a pydantic error, with ids in place of list positions."""
    first = error.errors()[0]
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
