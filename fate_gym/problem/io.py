"""Problems as JSON files, with a schema version; one clear error for a bad file."""

from __future__ import annotations

import json
from pathlib import Path

from fate_gym.errors import InputError
from fate_gym.problem.faults import from_pydantic
from fate_gym.problem.problem import Problem, problem_from

__all__ = ["dump_problem", "from_pydantic", "load_problem", "parse_problem"]


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
    return problem_from(data, source)


def dump_problem(problem: Problem, path: str | Path | None = None) -> str:
    """The problem as JSON text, without fields at their defaults; written to ``path`` if given."""
    data = problem.model_dump(mode="json", exclude_defaults=True)
    text = json.dumps({"schema_version": problem.schema_version} | data, indent=1)
    if path is not None:
        Path(path).write_text(text + "\n", encoding="utf-8")
    return text
