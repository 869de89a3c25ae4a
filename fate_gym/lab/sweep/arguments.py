"""Parses Hydra's command line: flags, and options of a job."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fate_gym.errors import InputError, near_matches

DRY_RUN = "--dry-run"

_FLAGS_WITH_VALUE = frozenset(
    ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")
)
_FLAGS_THAT_SHOW = frozenset(("--cfg", "-c"))
_INFO = ("--info", "-i")
_SHOWN_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_FLAGS_ALONE = frozenset(
    ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m")
)
_KNOWN_FLAGS = frozenset((*_FLAGS_WITH_VALUE, *_FLAGS_THAT_SHOW, *_FLAGS_ALONE, *_INFO, DRY_RUN))
_FLAGS_THAT_RUN = frozenset(("-m", "--multirun", "-r", "--run", *_FLAGS_WITH_VALUE))


def ordered(arguments: Sequence[str]) -> list[str]:
    """Put the flags of a command line first, as Hydra wants, and split ``--flag=value``.

    Raises:
        InputError: an unknown flag, or one without its value.
    """
    flags: list[str] = []
    options: list[str] = []
    rest = deque(arguments)
    while rest:
        argument = rest.popleft()
        if not argument.startswith("-"):
            options.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        if flag not in _KNOWN_FLAGS:
            remedy = near_matches(flag, [one for one in _KNOWN_FLAGS if one.startswith("--")])
            raise InputError(f"unknown flag {flag!r}", remedy=remedy)
        if flag in _FLAGS_WITH_VALUE | _FLAGS_THAT_SHOW:
            value = value if equals else rest.popleft() if rest else ""
            if not value or value.startswith("-"):
                raise InputError(f"the flag {flag} needs a value", remedy=f"write {flag} VALUE")
            flags += [flag, value]
        elif flag in _INFO and rest and rest[0] in _SHOWN_INFO:
            flags.append(f"--info={rest.popleft()}")
        else:
            flags.append(argument)
    return flags + options


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the overrides of a command line, and the directories that ``--config-dir`` adds."""
    overrides, extra = [], []
    rest = iter(arguments)
    for argument in rest:
        if argument in _FLAGS_WITH_VALUE | _FLAGS_THAT_SHOW:
            value = next(rest, "")
            if argument in ("--config-dir", "-cd"):
                extra.append(value)
        elif not argument.startswith("-"):
            overrides.append(argument)
    return overrides, extra


def runs_jobs(arguments: Sequence[str]) -> bool:
    """Whether a command line runs jobs rather than only showing something."""
    return all(word in _FLAGS_THAT_RUN for word in arguments if word.startswith("-"))


def wants_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for several jobs."""
    return not {"-m", "--multirun"}.isdisjoint(arguments)


@contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Set ``sys.argv`` for Hydra, and its full-error switch: it then raises rather than exits."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
