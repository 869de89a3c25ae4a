"""Packed package data: compressed JSON with a format number."""

from __future__ import annotations

import json
import lzma
from typing import Any

from fate_gym.errors import InputError


def pack_json(content: Any, *, sort_keys: bool = False) -> bytes:
    """Return content packed as the package stores it."""
    text = json.dumps(content, separators=(",", ":"), sort_keys=sort_keys)
    return lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)


def unpack_json(data: bytes, known: int, *, source: str, script: str) -> Any:
    """Return the content packed by `pack_json`.

    Args:
        data: content of the file.
        known: the ``format`` that the content must have.
        source: name of the file, for messages.
        script: the script that makes it.

    Raises:
        InputError: if it has another format.
    """
    content = json.loads(lzma.decompress(data))
    if content["format"] != known:
        raise InputError(
            f"unknown format {content['format']!r}",
            source=source,
            remedy=f"make it again with {script}",
        )
    return content
