"""A lock that allows one sweep at a time in a directory."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fate_gym.errors import InputError, printable

LOCK = ".sweep.lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Lock a sweep's directory; the lock is released when the process ends, however it ends.

    Two sweeps at once would run jobs twice and count each other's jobs.

    Raises:
        InputError: another sweep is running there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOCK).open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = printable(file.read(200).strip())
            raise InputError(
                f"another sweep is running in this directory ({holder})",
                source=directory,
                remedy="wait for it to end, or give this one a name of its own with name=NAME",
            ) from None
        except OSError:
            pass  # some network file systems have no locks: go on without one
        else:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
