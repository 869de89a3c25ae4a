"""What is measured: matrix products, attention, whole passes, loads and copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np

from fate_gym.lab.decoder.shape import DecoderShape

Kind: TypeAlias = Literal[
    "gemm", "prefill", "decode", "pass", "load", "disk", "to_host", "copy", "peer"
]

TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
BATCHES = (1, 4, 16)
CONTEXTS = (128, 512, 1024, 2048)
LEAST_ROUNDS = 3


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        kind: ``gemm``: matrix products of a layer; ``prefill``, ``decode``: its attention;
            ``pass``: a whole decoder; ``load``: weights from pinned memory; ``disk``: the same from
            a file; ``to_host``, ``copy``, ``peer``: copies to the host, within the device, to
            another one.
        model: name of the shape, empty for loads and copies.
        queries: queries in the batch.
        tokens: tokens of each query in this pass.
        context: tokens of each query before this pass.
        bytes: size of loads and copies.
        split: ``train``: constants are fitted on it; ``test``: held out.
    """

    kind: Kind
    model: str = ""
    queries: int = 1
    tokens: int = 1
    context: int = 0
    bytes: int = 0
    split: str = "train"

    @property
    def pairs(self) -> float:
        """Pairs of tokens that causal attention computes (half a square for the new tokens)."""
        return self.queries * self.tokens * (self.context + self.tokens / 2)


@dataclass(frozen=True)
class Measured:
    """A task with its seconds, median and range: per layer, but whole for passes and copies."""

    task: Task
    seconds: float
    low: float
    high: float
    rounds: int


class Measurer(Protocol):
    """Anything that can measure tasks."""

    def seconds(self, task: Task) -> float:
        """Seconds of a task."""
        ...


def plan(
    shapes: Mapping[str, DecoderShape],
    sizes: Sequence[int],
    *,
    most_tokens: int = TOKENS[-1],
    peers: bool = False,
) -> list[Task]:
    """List the tasks, grouped by model.

    Args:
        shapes: by name. Constants are fitted on the first; the passes of others are held out.
        sizes: bytes of loads and copies.
        most_tokens: longest prompt or context.
        peers: whether there is another device to copy to.
    """
    tasks: list[Task] = []
    for number, name in enumerate(shapes):
        split = "train" if number == 0 else "test"
        tokens = [count for count in TOKENS if count <= most_tokens]
        prompts = [count for count in tokens if count >= 32]
        decodes = [(n, c) for n in BATCHES for c in CONTEXTS if c <= most_tokens]
        tasks += [Task("gemm", name, tokens=count, split=split) for count in tokens]
        tasks += [Task("prefill", name, tokens=count, split=split) for count in prompts]
        tasks += [Task("decode", name, n, 1, c, split=split) for n, c in decodes]
        tasks += [Task("pass", name, tokens=count, split=split) for count in prompts]
        tasks += [Task("pass", name, n, 1, c, split=split) for n, c in decodes]
        # Prompts that continue a cached prefix: what makes schedules good.
        tasks += [
            Task("pass", name, n, tokens=64, context=c, split="test")
            for n, c in decodes
            if n * 64 <= most_tokens and c + 64 <= most_tokens
        ]
    kinds: tuple[Kind, ...] = ("load", "to_host", "copy", *(("peer",) if peers else ()))
    tasks += [Task(kind, bytes=size) for kind in kinds for size in sizes]
    tasks.append(Task("disk", bytes=max(sizes)))
    return tasks


def measure(
    tasks: Sequence[Task],
    measurer: Measurer,
    *,
    seconds: float,
    clock: Callable[[], float],
    say: Callable[[str], None],
) -> list[Measured]:
    """Measure all tasks in rounds until the time is up, for at least three rounds.

    Rounds rather than repeats of one task: a disturbance of a minute then spoils one round of each
    task instead of all repeats of one, and medians are not affected.
    """
    found: list[list[float]] = [[] for _ in tasks]
    start = clock()
    rounds = 0
    while rounds < LEAST_ROUNDS or (clock() - start) * (rounds + 1) / rounds <= seconds:
        for values, task in zip(found, tasks, strict=True):
            values.append(measurer.seconds(task))
        rounds += 1
        say(f"round {rounds}: {len(tasks)} measurements, {clock() - start:.0f} s")
    return [
        Measured(task, float(np.median(values)), min(values), max(values), rounds)
        for task, values in zip(tasks, found, strict=True)
    ]
