"""Compiles what is missing in the store, on all cores, before it is first needed.

The first call of a kernel whose code is not there compiles every kernel of the modules that are
imported by then: that is what the program at hand may call, and no more. One line on stderr says
so. One process compiles, others that want the same wait for it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from time import perf_counter
from typing import IO, TYPE_CHECKING

from fate_gym.jit.store import Store

if TYPE_CHECKING:
    from fate_gym.jit.function import KernelFunction

REGISTRY: list[KernelFunction] = []
"""Every kernel of the modules that are imported."""
STORE = Store()

_FEW = 3
"""So many are compiled in passing: it takes less time than starting processes."""
_SECONDS_EACH = 0.25
"""Of one core, for the estimate that the user sees."""


def prepare(function: KernelFunction) -> None:
    """See to it that a function and all that it calls are in the store."""
    if len(missing(_closure(function))) > _FEW:
        build(REGISTRY)


def build(functions: list[KernelFunction], least: int = _FEW + 1) -> int:
    """Compile what is missing of some functions, if it is at least so many; returns how many."""
    if not STORE.make_writable():
        return 0  # what this process calls, it compiles itself
    with _locked():
        # Whoever had the lock before may have done it.
        wanted = missing(functions)
        if len(wanted) < least:
            return 0
        if wanted:
            workers = max(1, min(_cores(), len(wanted) // _FEW))
            with _announced(len(wanted), workers):
                _compile(wanted, workers)
    return len(wanted)


def missing(functions: list[KernelFunction]) -> list[KernelFunction]:
    """Those that are not in the store, as far as another process can import them."""
    return [one for one in functions if _importable(one) and _lacks(one)]


def _lacks(function: KernelFunction) -> bool:
    try:
        return not STORE.has(function)
    except TypeError:
        return False  # it cannot be compiled: whoever calls it will see why, and nobody else


def _importable(function: KernelFunction) -> bool:
    return function.__module__ != "__main__" and "<locals>" not in function.name


def _closure(function: KernelFunction) -> list[KernelFunction]:
    found = {id(function): function}
    todo = [function]
    for one in todo:
        for other in one.requires:
            if id(other) not in found:
                found[id(other)] = other
                todo.append(other)
    return [one for one in todo if not one.inline]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@contextmanager
def _locked() -> Iterator[None]:
    with ExitStack() as opened:
        # Without it, on a disk that is full or another user's, work may be done twice.
        with suppress(OSError):
            file = opened.enter_context((STORE.directory / "lock").open("a"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _announced(count: int, workers: int) -> Iterator[None]:
    start = perf_counter()
    seconds = max(1, round(count * _SECONDS_EACH / workers))
    what = f"fate-gym: compiling {count} functions for this CPU, about {seconds} s"
    print(f"{what}; {STORE.lasts} ...", end="", file=sys.stderr, flush=True)
    yield
    print(f" done in {perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def _compile(functions: list[KernelFunction], workers: int) -> None:
    # Long ones first: nobody is left with one of them at the end.
    order = sorted(functions, key=lambda one: len(one.function.__code__.co_code), reverse=True)
    queue = iter([one.name for one in order])
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda _: _serve(queue), range(workers)))


def _serve(queue: Iterator[str]) -> None:
    """Feed one worker process; what it cannot compile, the caller will, and see the error."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "fate_gym.jit.worker", str(STORE.directory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for name in queue:
            if not _ask(name, process.stdin, process.stdout):
                return
        process.stdin.close()


def _ask(name: str, to: IO[str], answers: IO[str]) -> bool:
    try:
        to.write(f"{name}\n")
        to.flush()
    except BrokenPipeError:
        return False
    return bool(answers.readline())
