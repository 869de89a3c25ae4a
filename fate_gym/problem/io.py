"""Problems as JSON files, with a schema version; one clear error for a bad file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fate_gym.errors import InputError
from fate_gym.problem.problem import Problem, check


def load_problem(path: str | Path) -> Problem:
    """Read and check a problem file.

    Raises:
        InputError: naming the file, the stage and the field at fault.
    """
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the file ({error.strerror})", source=path, remedy="check the path"
        ) from None
    return parse_problem(text, source=path)


def parse_problem(text: str | bytes, *, source: str | Path = "<problem>") -> Problem:
    """Parse and check a problem from JSON text. Raises `InputError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not valid JSON ({error})", source=source, remedy="check that the file is complete"
        ) from None
    try:
        problem = Problem.model_validate(data)
        check(problem)
    except ValidationError as error:
        raise from_pydantic(error, data, source) from None
    except InputError as error:
        raise error.at(source) from None
    return problem


def dump_problem(problem: Problem, path: str | Path | None = None) -> str:
    """The problem as JSON text (fields at their defaults left out); written to ``path`` if given."""
    data = problem.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps({"schema_version": problem.schema_version} | data, indent=1)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text


_NAMES = {"workflows": "workflow", "stages": "stage", "devices": "device", "edges": "edge"}


def from_pydantic(error: ValidationError, data: Any, source: str | Path) -> InputError:
    """The first fault of a pydantic error, with ids in place of list positions."""
    first = error.errors()[0]
    items, field = _locate(data, first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    value = first.get("input")
    if field and isinstance(value, str | int | float | bool | None):
        message += f" (got {str(value)[:80]!r})" if isinstance(value, str) else f" (got {value})"
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
