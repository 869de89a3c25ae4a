"""Read the fields of a user's file; errors name what is rejected."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fate_gym.catalog.limits import MOST_CHARACTERS, MOST_TOKENS
from fate_gym.errors import InputError
from fate_gym.problem.faults import first_repeated

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 60
"""YAML aliases can make a value that is too large to be printed in full."""


@dataclass(frozen=True)
class Fields:
    """An object of the file; errors name it by ``item`` and ``path``."""

    values: Mapping[Any, Any]
    item: str | None
    path: str = ""

    @classmethod
    def of(cls, value: Any, item: str | None, path: str) -> Fields:
        if isinstance(value, dict):
            return cls(value, item, path)
        raise wrong(value, item, path, "an object")

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def object(self, key: str, default: Any = None) -> Fields:
        return self.of(self.values.get(key, default), self.item, self.at(key))

    def entries(self, key: str, default: Any = None) -> list[Any]:
        value = self.values.get(key, default)
        if isinstance(value, list):
            return value
        raise wrong(value, self.item, self.at(key), "a list")

    def objects(self, key: str, default: Any = None) -> Iterator[Fields]:
        return (self.of(value, self.item, self.at(key)) for value in self.entries(key, default))

    def text(self, key: str, other: str | None = None) -> str:
        return checked_text(self.values.get(key, self.values.get(other)), self.item, self.at(key))

    def names(self, key: str) -> list[str]:
        names = [checked_text(name, self.item, self.at(key)) for name in self.entries(key, [])]
        twice = first_repeated(names)
        if twice is not None:
            raise InputError(
                f"{twice!r} is listed twice",
                item=self.item,
                field=self.at(key),
                remedy="keep one of the two",
            )
        return names

    def number(self, key: str, most: float) -> float:
        """Return a number from 0 to ``most``; null counts as 0."""
        value = self.values.get(key, 0)
        return 0.0 if value is None else checked_number(value, self.item, self.at(key), most)

    def tokens(self, key: str) -> int | None:
        """Return a whole number of tokens, or None if the field is missing or null."""
        value = self.values.get(key)
        return None if value is None else checked_tokens(value, self.item, self.at(key))


def checked_text(value: Any, item: str | None, field: str) -> str:
    """Return a text that can be a name. Raises `InputError`."""
    if not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS:
        raise wrong(value, item, field, f"a text of 1 to {MOST_CHARACTERS} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(ascii(value), item, field, "valid Unicode") from None
    return value


def checked_number(value: Any, item: str | None, field: str, most: float) -> float:
    """Return a number from 0 to ``most``. Raises `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(value, item, field, "a number")
    if not 0 <= value <= most:
        raise wrong(value, item, field, f"a number from 0 to {most:g}")
    return float(value)


def number_from_text(text: str, item: str | None, field: str, most: float) -> float:
    """Return the number in a text, from 0 to ``most``. Raises `InputError`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise wrong(text, item, field, f"a number from 0 to {most:g}")
    return value


def checked_tokens(value: Any, item: str | None, field: str) -> int:
    """Return a whole number of tokens. Raises `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_TOKENS:
        raise wrong(value, item, field, f"a whole number from 0 to {MOST_TOKENS:g}")
    return value


def wrong(value: Any, item: str | None, field: str, wanted: str) -> InputError:
    """Return the error for a value that is missing or is not what is ``wanted``."""
    if value is None:
        return InputError("is missing", item=item, field=field, remedy=f"give {wanted}")
    return InputError(f"is not {wanted} (got {short(value)})", item=item, field=field,
                      remedy="correct the value")  # fmt: skip


def short(value: Any) -> str:
    """Return a value for a message: printable, and short whatever the value is."""
    try:
        text = _BRIEF.repr(value).encode("ascii", "backslashreplace").decode()
    except (ValueError, RecursionError):  # thousands of digits or brackets
        return "a huge value"
    return text if len(text) <= 60 else text[:57] + "..."
