"""One decorator for compiled functions, with a cache that cannot go stale.

numba caches what it compiled by the time stamp of the file that holds a function, and does not
see that a function it calls, in another file, has changed. Here the cache of a module lies in a
directory named after a digest of all sources that its compiled code is made from: the module and
those it imports, near and far. An edit makes anew what is built on it, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from functools import cache
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
    numba.config.CACHE_DIR = str(cache_directory(_source_of(function)))
    try:
        dispatcher: F = numba.njit(cache=True, error_model="numpy", **options)(function)
    finally:
        numba.config.CACHE_DIR = saved
    return dispatcher


def plain(function: F) -> F:
    """The uncompiled function behind a compiled one: for numpy arrays at import or set-up time."""
    undecorated: Any = function
    return undecorated.py_func  # type: ignore[no-any-return]


def cache_root() -> Path:
    """Where compiled code lies: ``$FATE_GYM_CACHE``, else the user's cache directory."""
    base = os.environ.get("FATE_GYM_CACHE") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return root / "fate-gym"


def cache_directory(source: Path) -> Path:
    """The directory for the compiled code of one source file."""
    return cache_root() / source_digest(source)


@cache
def source_digest(source: Path) -> str:
    """Changes when the compiled code of a file may change.

    A file counts if compiled functions stand in it or if such a file imports it (constants are
    frozen into compiled code).
    """
    digest = hashlib.sha256(numba.__version__.encode())
    digest.update(Path(__file__).read_bytes())
    counting, seen = {source}, {source}
    queue = [source]
    for path in queue:
        compiles = _compiles(path)
        for found in _imports(path):
            if compiles or _compiles(found):
                counting.add(found)
            if found not in seen:
                seen.add(found)
                queue.append(found)
    for path in sorted(counting):
        digest.update(_text(path))
    return digest.hexdigest()[:16]


def _source_of(function: Any) -> Path:
    return Path(function.__code__.co_filename)


@cache
def _text(path: Path) -> bytes:
    return path.read_bytes()


def _compiles(path: Path) -> bool:
    text = _text(path)
    return b"@compiled" in text or b"@inlined" in text or b"@overload" in text


@cache
def _imports(path: Path) -> tuple[Path, ...]:
    """The project's files that a file imports when it is loaded, in order."""
    found: dict[Path, None] = {}
    for module, names in _IMPORT.findall(_text(path).decode()):
        for name in _WORD.findall(names):
            found.update(dict.fromkeys(_files(f"{module}.{name}")))
    return tuple(found)


def _files(name: str) -> Iterator[Path]:
    """The file of a module, or of the package or module that has the name inside it."""
    for parts in (name.split("."), name.split(".")[:-1]):
        base = _HOME.joinpath(*parts)
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                yield path
                return


_HOME = Path(__file__).resolve().parent.parent
# `from package.module import names`, at the left margin: what the style of this project has.
_IMPORT = re.compile(r"^from ((?:fate_gym|policies)[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_WORD = re.compile(r"\w+")
