"""Files: written whole or not at all, and how much is read at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

MOST_BYTES = 1 << 30
"""Of a file that is read whole; a job's largest are some MB."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of ``path`` unless writing it raises.

    Whatever happens, to the process or to the machine, ``path`` is the old file or the new one. A
    temporary file that a killed process left behind is removed by the next that writes ``path``.
    """
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        _remove_leftovers(path)
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        # Where even this fails, the error to hear of is the first one.
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
        pass  # somebody else's
    return True


def flush(path: Path) -> None:
    """Have the disk hold a file, or the names in a directory, before anything else is done.

    Without it a machine that loses power may keep a name and lose the content.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # Some file systems cannot do it for directories. For files a failure is a lost write.
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def flush_all(directory: Path) -> None:
    """`flush` what was written below a directory by others."""
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.is_file():
            flush(path)
    flush(directory)


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_output(path: Path, text: str) -> None:
    """`write_text` where a user says; what is no file, such as ``/dev/stdout``, is written itself.

    In directories of its own the project replaces what it finds: a pipe there would block for ever.
    """
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8")
    else:
        write_text(path, text)
