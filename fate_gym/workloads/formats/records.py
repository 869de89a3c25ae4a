"""JSON Lines: one JSON object per line, each with a name for messages."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fate_gym.problem.io import parse_json

_SEVERAL = re.compile(rb"\s*\{[^\n]*\}\s*\n\s*\{")


class Record(NamedTuple):
    """One line, or a whole file with a single object, which may be parsed already."""

    item: str | None
    data: bytes
    parsed: Any = None

    def json(self) -> Any:
        """Return the parsed object. Raises `InputError` if it is not JSON."""
        if self.parsed is not None:
            return self.parsed
        return parse_json(self.data, item=self.item)


def is_json_lines(data: bytes) -> bool:
    """Return whether a file has several objects, one per line."""
    return _SEVERAL.match(data) is not None


def records_of(data: bytes) -> list[Record]:
    """Return the lines of JSON Lines that are not blank."""
    lines = enumerate(data.split(b"\n"), start=1)
    return [Record(f"line {number}", line) for number, line in lines if line.strip()]
