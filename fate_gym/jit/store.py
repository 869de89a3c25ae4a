"""Where machine code is kept: one file for each function, named after all that it depends on.

A file is read only if its checksum holds; one that is cut or of another version of numba is the
same as none. Files appear whole or not at all, so any number of processes may share a store.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
from numba.core import config
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.serialize import dumps

if TYPE_CHECKING:
    from fate_gym.jit.function import KernelFunction

_CHECKSUM = 32
_KEPT_S = 90 * 24 * 3600.0
"""How long a version of a function is kept at least."""


def default_directory() -> Path:
    """``$FATE_GYM_CACHE``, else ``fate-gym`` in the user's cache directory."""
    base = os.environ.get("FATE_GYM_CACHE")
    if base:
        return Path(base)
    cache = os.environ.get("XDG_CACHE_HOME")
    if cache:
        return Path(cache) / "fate-gym"
    try:
        return Path.home() / ".cache" / "fate-gym"
    except RuntimeError:
        # A user without a home. Of a name in a common directory others could make a trap.
        return Path(os.devnull)


@cache
def platform_digest() -> str:
    """Python, numba, LLVM and its settings, the CPU, and this package."""
    digest = hashlib.sha256()
    digest.update(repr(sys.version_info[:3]).encode())
    digest.update(f"{numba.__version__} {llvmlite.__version__}".encode())
    digest.update(repr(cpu_target.target_context.codegen().magic_tuple()).encode())
    digest.update(repr((config.OPT, config.BOUNDSCHECK, config.DEBUGINFO_DEFAULT)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def _context() -> Any:
    """Numba's context, with its run-time library in place, as its own cache has it."""
    cpu_target.target_context.refresh()
    return cpu_target.target_context


class Store:
    """A directory of compiled functions.

    Where it cannot be written, what is compiled is kept in a directory that lasts as long as the
    process.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = default_directory() if directory is None else directory
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def lasts(self) -> str:
        """How long what is compiled is kept, for the user."""
        if self._temporary is None:
            return f"only once, they are kept in {self.directory}"
        return (
            f"for this process alone, since {default_directory()} cannot be written: set "
            "FATE_GYM_CACHE to a directory that can"
        )

    def path(self, function: KernelFunction) -> Path:
        """The file of a function."""
        return self.directory / f"{function.name}-{function.digest}.bin"

    def has(self, function: KernelFunction) -> bool:
        return self.path(function).exists()

    def read(self, function: KernelFunction) -> CompileResult | None:
        """What is kept of a function; None if nothing, or nothing that can be used."""
        try:
            data = self.path(function).read_bytes()
            if hashlib.sha256(data[_CHECKSUM:]).digest() != data[:_CHECKSUM]:
                return None
            parts: Any = pickle.loads(data[_CHECKSUM:])
            return CompileResult._rebuild(_context(), *parts)
        except (OSError, pickle.PickleError, EOFError):
            return None

    def write(self, function: KernelFunction, result: CompileResult) -> bool:
        """Keep a compiled function; False if that cannot be done."""
        data = dumps(result._reduce())
        path = self.path(function)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(hashlib.sha256(data).digest() + data)
            part.replace(path)
            self._drop_old(function)
        except OSError:
            with suppress(OSError):
                part.unlink()
            return False
        return True

    def _drop_old(self, function: KernelFunction) -> None:
        """Other versions of a function, which nobody has compiled for a while."""
        for other in self.directory.glob(f"{function.name}-*.bin"):
            if time() - other.stat().st_mtime > _KEPT_S:
                other.unlink(missing_ok=True)

    def make_writable(self) -> bool:
        """Move to a directory of the process's own if this one cannot be written.

        False if there is no room for that either: then code is in memory alone.
        """
        if self._holds():
            return True
        try:
            self._temporary = tempfile.TemporaryDirectory(prefix="fate-gym-")
        except OSError:
            return False
        self.directory = Path(self._temporary.name)
        return self._holds()

    def _holds(self) -> bool:
        """Whether the directory takes a file."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.directory) as probe:
                probe.write(b"\0" * 4096)
        except OSError:
            return False
        return True
