"""Errors that users see: each says where the fault is, what it is, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

MOST_CHARACTERS = 2_000
"""Most characters of a line."""
_MOST_IN_ERROR = 400
"""Most characters of each part of an error: a fault may quote a whole file."""


def printable(text: object, most: int = MOST_CHARACTERS) -> str:
    """Return any text in a form that a terminal can show in one line.

    Characters that move the cursor, change colours or the direction of writing, and line ends, are
    escaped as in Python; the middle of a text longer than ``most`` is left out.
    """
    shown = str(text)
    if len(shown) > most:
        half = most // 2
        shown = f"{shown[:half]} … ({len(shown) - 2 * half:,} characters) … {shown[-half:]}"
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown
    )


class FateGymError(Exception):
    """Base class of the errors that this package raises on purpose."""


class InputError(FateGymError, ValueError):
    """Bad input, found before anything runs.

    Args:
        fault: what is wrong, in one sentence without a closing full stop.
        source: the file (or suite, or ``"<problem>"``) with the fault.
        item: the object in it, e.g. ``"workflow 'w1', stage 'merge'"``.
        field: the field of that object.
        remedy: what the user can do.
    """

    def __init__(
        self,
        fault: str,
        *,
        source: str | Path | None = None,
        item: str | None = None,
        field: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.fault = fault
        self.source = str(source) if source is not None else None
        self.item = item
        self.field = field
        self.remedy = remedy
        super().__init__(fault)

    def __str__(self) -> str:
        parts = (self.source, self.item, f"field '{self.field}'" if self.field else None)
        where = ": ".join(printable(part, _MOST_IN_ERROR) for part in parts if part)
        fault = printable(self.fault, _MOST_IN_ERROR)
        text = f"{where}: {fault}" if where else fault
        if not self.remedy:
            return f"{text}."
        stop = "" if self.remedy.endswith("?") else "."
        return f"{text}. Remedy: {printable(self.remedy, _MOST_IN_ERROR)}{stop}"

    def at(self, source: str | Path) -> InputError:
        """Return the same error with its source filled in (unless it has one already)."""
        return InputError(
            self.fault,
            source=self.source or source,
            item=self.item,
            field=self.field,
            remedy=self.remedy,
        )

    def __reduce__(self) -> tuple[object, ...]:
        # Pickling does not support keyword-only arguments, and worker processes pickle exceptions.
        return _rebuild, (self.fault, self.source, self.item, self.field, self.remedy)


def _rebuild(
    fault: str, source: str | None, item: str | None, field: str | None, remedy: str | None
) -> InputError:
    return InputError(fault, source=source, item=item, field=field, remedy=remedy)


class InputWarning(UserWarning):
    """Input that is accepted in a changed form; the message says what, where and how."""


class IllegalActionError(FateGymError, ValueError):
    """A policy asked for something that the state does not allow."""


def check_known(what: str, name: str, known: Collection[str], **where: Any) -> None:
    """Raise an `InputError` with near matches if a name is not among the known ones.

    Args:
        what: the beginning of the message, e.g. ``"unknown model"``; the name follows.
        name: the name that was given.
        known: the names that are allowed.
        where: ``source``, ``item`` and ``field`` of the error.
    """
    if name not in known:
        raise InputError(f"{what} {name!r}", remedy=near_matches(name, known), **where)


def near_matches(word: str, known: Iterable[str], *, most: int = 3) -> str:
    """Return a remedy for a misspelt name: the nearest known names, or all of them if few."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=most, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(name) for name in close) + "?"
    if len(names) <= 12:
        return "choose one of " + ", ".join(names)
    return f"choose one of the {len(names)} known names, e.g. " + ", ".join(names[:6])
