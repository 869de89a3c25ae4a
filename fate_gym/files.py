"""Atomic writing of files, and a limit on what is read at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

MOST_BYTES = 1 << 30
"""Maximum size of a file that is read as a whole; a job's largest files have some MB."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` unless writing it raises.

    Even if the process or the machine fails, ``path`` is either the old file or the new one. The
    next write of ``path`` removes a temporary file that a killed process left behind.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        _remove_leftovers(path)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        # If even this fails, the error to report is the first one.
        with suppress(OSError):
            temporary.unlink()


def _remove_leftovers(path: Path) -> None:
    for left in path.parent.glob(f".*.tmp.{escape(path.name)}"):
        process = left.name[1:].split(".", 1)[0]
        if process.isdecimal() and not _is_running(int(process)):
            left.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # it belongs to another user
    return True


def flush(path: Path) -> None:
    """Flush a file, or the names in a directory, to disk before returning.

    Otherwise a machine that loses power may keep a name and lose the content.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some file systems cannot do this for directories. For a file, a failure is a lost write.
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def flush_all(directory: Path) -> None:
    """Flush all files below a directory to disk, and the directory itself."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_file():
            flush(path)
    flush(directory)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_output(path: Path, text: str) -> None:
    """Write a text to a user-given path; a non-file such as ``/dev/stdout`` is written directly.

    Not for the project's own directories, where writing to a pipe would block forever: there use
    `write_text`, which replaces whatever it finds.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        write_text(path, text)
