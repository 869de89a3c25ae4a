"""Errors for bad arguments, with remedies."""

from __future__ import annotations

from pathlib import Path

from fate_gym.errors import InputError


def bad(source: str | Path, field: str | None, fault: str, remedy: str) -> InputError:
    """Return the error for a fault in a field of ``source``."""
    return InputError(fault, source=source, field=field, remedy=remedy)
