"""Configuration options, such as ``policy=heft,fate``, that a verb parses itself."""

from __future__ import annotations

from collections.abc import Sequence

from fate_gym.errors import InputError


def policies_of(words: Sequence[str], default: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split options into the others and the names of the policies.

    Raises:
        InputError: ``policy=`` without a name.
    """
    given = [word for word in words if word.startswith("policy=")]
    others = [word for word in words if word not in given]
    if not given:
        return others, list(default)
    names = [name.strip() for name in given[-1].removeprefix("policy=").split(",")]
    if not all(names):
        raise InputError(f"no policy in {given[-1]!r}", remedy="write policy=NAME,NAME")
    return others, list(dict.fromkeys(names))
