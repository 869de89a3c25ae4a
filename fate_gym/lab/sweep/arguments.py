"""Hydra's command line: which of its words are options of a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

_FLAGS_WITH_VALUE = frozenset(
    ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")
)
_FLAGS_THAT_SHOW = frozenset(("--cfg", "-c", "--info", "-i"))
_FLAGS_THAT_RUN = frozenset(("-m", "--multirun", "-r", "--run", *_FLAGS_WITH_VALUE))


def separated(arguments: Sequence[str]) -> list[str]:
    """A command line with ``--flag=value`` as two words."""
    words: list[str] = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        words += [flag, value] if equals and flag in _FLAGS_WITH_VALUE else [argument]
    return words


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of a command line, and the directories that ``--config-dir`` adds."""
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
    """Whether a command line runs something, and does not only show it."""
    return all(word in _FLAGS_THAT_RUN for word in arguments if word.startswith("-"))


def wants_sweep(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for several jobs."""
    return not {"-m", "--multirun"}.isdisjoint(arguments)


@contextmanager
def command_line(arguments: Sequence[str]) -> Iterator[None]:
    """Hydra reads ``sys.argv``; with its full-error switch it raises instead of exiting."""
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
