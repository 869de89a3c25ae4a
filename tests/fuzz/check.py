"""The verdict on a mutant: it is accepted, or refused with one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fate_gym.errors import InputError
from tests.fuzz.bounds import bounded


def taken(read: Callable[[], Any]) -> Any:
    """Return the result of reading a mutant; None if it was refused with one clear error."""
    with bounded():
        try:
            return read()
        except InputError as error:
            refused = error
    text = str(refused)
    assert refused.remedy, text
    assert len(text) < 2_000, text[:500]
    assert text.isprintable(), ascii(text)
    return None
