"""Mutants of valid input: each has a few changes like those of damaged files and human errors."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 3, 17, 1e-9, 5e-324, 1e18, 1e100, 1e308, -1e308,
    math.nan, math.inf, -math.inf, 2**31 - 1, 2**31, 2**53, 2**63, -(2**63) - 1, 10**30, 10**400,
    "", "x", "0", "-5", "1e3", "nan", "\ud800", "\x00", "é", "../x", "/x", "<!--<script>", "$",
    "x" * 100_000, [], {}, [1], [[0]], {"": 0}, {"x": [None]},
)  # fmt: skip
"""Values that readers trip over."""

BITS = (
    b"", b"\x00", b"\t", b"\xff\xfe", b"\xe9", b"{", b"[", b'"', b":", b",", b"- ", b"? ", b"&a ",
    b"*a", b"!!int ", b"!!python/name:os.system ", b"<<: ", b"|", b">", b"%", b"#", b"\n", b"  ",
    b"nan", b"1e999", b"-1", b"9" * 400, b"true", b"null", b"\\ud800", b"[" * 3000, b"{a: " * 300,
)  # fmt: skip
"""Bytes that may be inserted into a text."""


def mutated_value(draw: random.Random, document: Any) -> Any:
    """Return a copy of JSON or YAML content with up to three changes."""
    whole = [copy.deepcopy(document)]
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(whole))
        holder, key = draw.choice(places)
        value = holder[key]
        match draw.randrange(7):
            case 0 | 1:
                holder[key] = copy.deepcopy(draw.choice(STRANGE))
            case 2:
                holder[key] = _near(draw, value)
            case 3 if holder is not whole:
                del holder[key]
            case 4 if isinstance(holder, list) and holder is not whole:
                holder.append(copy.deepcopy(value))
            case 5:
                other, name = draw.choice(places)
                holder[key] = copy.deepcopy(other[name])
            case _ if isinstance(value, dict):
                names = [*value, "x", *(name for at, name in places if isinstance(name, str))]
                value[draw.choice(names)] = copy.deepcopy(draw.choice(STRANGE))
    return whole[0]


def mutated_bytes(draw: random.Random, content: bytes) -> bytes:
    """Return the bytes with up to three cuts, insertions, flips or moved lines."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        start = draw.randint(0, len(content))
        end = min(len(content), start + draw.choice((0, 1, 1, 4, 40, 400)))
        match draw.randrange(6):
            case 0:
                content = content[:start] + draw.choice(BITS) + content[end:]
            case 1:
                content = content[:start] + draw.randbytes(end - start) + content[end:]
            case 2:
                content = content[:end] + content[start:]
            case 3:
                content = content[:start]
            case 4:
                lines = content.splitlines(keepends=True)
                if lines:
                    lines.insert(draw.randint(0, len(lines)), draw.choice(lines))
                content = b"".join(lines)
            case _:
                content = content[:start] + content[end:]
    return content


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the place of everything in a value: its container and the key there."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _near(draw: random.Random, value: Any) -> Any:
    """Return a value similar to another."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        change: Callable[[Any], Any] = draw.choice(
            (lambda n: n + 1, lambda n: n - 1, lambda n: -n, lambda n: 2 * n, float, str, bool)
        )
        return change(value) if abs(value) < 1e15 else 0
    if isinstance(value, str):
        return draw.choice((value + "x", value[:-1], value.upper(), [value], value * 2))
    if isinstance(value, list):
        return draw.choice(
            (value[::-1], value * 2, value[:1], {str(i): v for i, v in enumerate(value)})
        )
    return draw.choice(([value], dict(reversed(value.items())), list(value)))
