"""JSON Lines: one JSON object a line, each with a name for messages."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fate_gym.problem.io import parse_json

_SEVERAL = re.compile(rb"\s*\{[^\n]*\}\s*\n\s*\{")


class Record(NamedTuple):
    """One line, or a whole file of one object, which may be parsed already."""

    item: str | None
    data: bytes
    parsed: Any = None

    def json(self) -> Any:
        """What it says. Raises `InputError` if it is not JSON."""
        if self.parsed is not None:
            return self.parsed
        return parse_json(self.data, item=self.item)


def is_json_lines(data: bytes) -> bool:
    """Whether a file has several objects, each on a line."""
    return _SEVERAL.match(data) is not None


def records_of(data: bytes) -> list[Record]:
    """The lines of JSON Lines that are not blank."""
    lines = enumerate(data.split(b"\n"), start=1)
    return [Record(f"line {number}", line) for number, line in lines if line.strip()]
