"""One decorator for compiled functions, with a cache that cannot go stale.

numba caches what it compiled by the time stamp of the file that holds a function, and does not
see that a function it calls, in another file, has changed. Here the cache lies in a directory
named after a digest of all sources that may hold compiled code: any edit starts a new one.
"""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F")


def compiled(function: F) -> F:
    """Compile a function with numba on its first call and keep the result on disk.

    Division by zero gives inf or NaN, as in numpy. ``.py_func`` is the plain function.
    """
    return _compile(function)


def inlined(function: F) -> F:
    """Like `compiled`, and merged into every caller: for small functions on hot paths.

    A call passes every array of the views; for a function of a few nanoseconds that costs more
    than the work.
    """
    return _compile(function, forceinline=True)


def _compile(function: F, **options: bool) -> F:
    saved = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(cache_directory())
    try:
        dispatcher: F = numba.njit(cache=True, error_model="numpy", **options)(function)
    finally:
        numba.config.CACHE_DIR = saved
    return dispatcher


def plain(function: F) -> F:
    """The uncompiled function behind a compiled one: for numpy arrays at import or set-up time."""
    undecorated: Any = function
    return undecorated.py_func  # type: ignore[no-any-return]


@cache
def cache_directory() -> Path:
    """Where compiled code lies: ``$FATE_GYM_CACHE``, else the user's cache directory."""
    base = os.environ.get("FATE_GYM_CACHE") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return root / "fate-gym" / _digest()


def _digest() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    digest.update(Path(__file__).read_bytes())
    for package in ("fate_gym.sim", "policies", "fate_gym.env"):
        spec = find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                source = path.read_bytes()
                if b"@compiled" in source or b"@inlined" in source or b"@overload" in source:
                    digest.update(source)
    return digest.hexdigest()[:16]
