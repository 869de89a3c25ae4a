"""Read and write problems as JSON files with a schema version; a bad file gives one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fate_gym.errors import InputError
from fate_gym.files import MOST_BYTES, write_output
from fate_gym.problem.faults import first_repeated
from fate_gym.problem.problem import Problem, problem_from

_PART = 1 << 20


def load_problem(path: str | Path) -> Problem:
    """Read and check a problem file.

    Raises:
        InputError: naming the file, the stage and the field at fault.
    """
    return problem_from(read_json(path), path)


def parse_problem(text: str | bytes, *, source: str | Path = "<problem>") -> Problem:
    """Parse and check a problem from JSON text. Raises `InputError`."""
    return problem_from(parse_json(text, source=source), source)


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file. Raises `InputError` if it is unreadable or not JSON."""
    return parse_json(read_bytes(path), source=path)


def read_bytes(path: str | Path) -> bytes:
    """Return the bytes of a file or pipe.

    Raises:
        InputError: it cannot be read, or is longer than `MOST_BYTES`.
    """
    try:
        with Path(path).open("rb") as file:
            # In parts: `read` allocates memory for all that it is asked to read.
            data = bytearray()
            while len(data) <= MOST_BYTES and (part := file.read(_PART)):
                data += part
    except OSError as error:
        raise InputError(
            f"cannot read the file ({error.strerror})", source=path, remedy="check the path"
        ) from None
    if len(data) > MOST_BYTES:
        raise InputError(
            f"more than {MOST_BYTES:,} bytes", source=path, remedy="split it into several files"
        )
    return bytes(data)


def parse_json(
    text: str | bytes, *, source: str | Path | None = None, item: str | None = None
) -> Any:
    """Parse JSON text: a file, or the one line of it that ``item`` names.

    Raises:
        InputError: it is not JSON, or an object has a key twice.
    """
    where: dict[str, Any] = {"source": source, "item": item}
    try:
        return json.loads(text, object_pairs_hook=_once_each)
    except _RepeatedKeyError as error:
        fault = f"the key {str(error)[:80]!a} is given twice in one object"
        raise InputError(fault, remedy="keep one of them", **where) from None
    except (ValueError, RecursionError) as error:
        remedy = "check that the file is complete" if item is None else "correct or remove the line"
        raise InputError(f"not valid JSON ({error})", remedy=remedy, **where) from None


class _RepeatedKeyError(Exception):
    """A key that an object has twice; the message is the key."""


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; without this check the last value of a repeated key would silently win."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = first_repeated(key for key, _ in pairs)
        assert twice is not None
        raise _RepeatedKeyError(twice)
    return found


def dump_problem(problem: Problem, path: str | Path | None = None) -> str:
    """Return the problem as JSON text without fields at their defaults.

    Also written to ``path`` if given.
    """
    data = problem.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps({"schema_version": problem.schema_version} | data, indent=1)
    if path is not None:
        write_output(Path(path), text + "\n")
    return text
