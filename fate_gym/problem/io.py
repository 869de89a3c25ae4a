"""Problems as JSON files, with a schema version; one clear error for a bad file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fate_gym.errors import InputError
from fate_gym.problem.problem import Problem, problem_from


def load_problem(path: str | Path) -> Problem:
    """Read and check a problem file.

    Raises:
        InputError: naming the file, the stage and the field at fault.
    """
    return problem_from(read_json(path), path)


def parse_problem(text: str | bytes, *, source: str | Path = "<problem>") -> Problem:
    """Parse and check a problem from JSON text. Raises `InputError`."""
    return problem_from(_parse_json(text, source), source)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises `InputError` if it cannot be read or is not JSON."""
    return _parse_json(read_bytes(path), path)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file. Raises `InputError` if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read the file ({error.strerror})", source=path, remedy="check the path"
        ) from None


def _parse_json(text: str | bytes, source: str | Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not valid JSON ({error})", source=source, remedy="check that the file is complete"
        ) from None


def dump_problem(problem: Problem, path: str | Path | None = None) -> str:
    """The problem as JSON text, without fields at their defaults; written to ``path`` if given."""
    data = problem.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps({"schema_version": problem.schema_version} | data, indent=1)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text
