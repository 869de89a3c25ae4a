"""Errors of the lab, and their one-line form."""

from __future__ import annotations

import errno
from pathlib import Path

from fate_gym.errors import FateGymError, InputError, printable

_FULL = (errno.ENOSPC, errno.EDQUOT)


class JobFailedError(FateGymError):
    """A job failed; the file ``FAILED`` in its directory has the reason.

    Args:
        message: what happened, and the path of the marker.
        sweep: directory of the job's sweep.
    """

    def __init__(self, message: str, sweep: Path) -> None:
        super().__init__(message, sweep)
        self.sweep = sweep

    def __str__(self) -> str:
        return str(self.args[0])


def unwritable(
    place: Path | str,
    error: OSError,
    remedy: str = "choose another place with paths.runs=DIRECTORY",
) -> InputError:
    """Make the error for a path that cannot be written."""
    if error.errno in _FULL:
        fault, remedy = "the disk is full", "make room, and run the same command again"
    else:
        fault = f"cannot write here ({error.strerror or error})"
    return InputError(fault, source=error.filename or place, remedy=remedy)


def not_chosen(group: str) -> InputError:
    """Make the error for a required configuration group that is not chosen."""
    return InputError(f"no {group} chosen", remedy=f"add {group}=NAME (--help lists the choices)")


def first_line(error: Exception) -> str:
    """Format an error in one line, with its type unless its message is written for users."""
    line, *_ = str(error).strip().splitlines() or [""]
    return printable(line if isinstance(error, FateGymError) else f"{type(error).__name__}: {line}")
