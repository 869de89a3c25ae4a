"""The groups of what a policy may see. Every accessor of `DecisionView` declares what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

GROUPS = {
    "queues": "where a stage would start now, and how many shards are under way on each device",
    "drains": "when each device's queue is expected to be empty",
    "residency": "which models are loaded where",
    "prefixes": "which prefixes are cached where",
    "contexts": "which contexts of finished stages are cached where",
    "memory": "how much memory of each device is taken",
    "costs": "profiles: seconds of a stage and of loading a model on each device, output lengths",
    "places": "where the outputs of finished stages lie",
    "links": "how fast the links are",
    "estimates": "the expected finish of a stage on each device, from all of the above",
    "dag": "the stages of arrived workflows that are not ready yet",
    "progress": "when workflows arrived, stages ended, and how long they took",
}
"""Always visible: the ready stages with their requests, the session and turn of each arrived
workflow, the time, and which devices can host a stage.

Never visible: workflows that have not arrived, and actual durations before they are over.
"""

ALL = "all"
"""Stands for every group."""

IMPLIED = {
    "drains": ("queues",),
    "estimates": (
        "drains",
        "queues",
        "residency",
        "prefixes",
        "contexts",
        "memory",
        "costs",
        "places",
        "links",
    ),
}
"""Groups that each group reveals as well."""

IN_BATCHES = {"drains": ("costs", "places", "links")}
"""Groups that each group also reveals on batching devices.

A device's drain time results from playing it forward. It also reveals the residency, prefixes and
contexts that the shards under way will find.
"""

ARRAYS = "arrays"
"""Marks accessors that give out whole arrays; what their users read is tested differently."""


def reads(*groups: str) -> Callable[[F], F]:
    """Mark an accessor with the groups that it reads."""

    def mark(accessor: F) -> F:
        accessor.reads = groups  # type: ignore[attr-defined]
        return accessor

    return mark


def expand(groups: Iterable[str], *, batching: bool = False) -> frozenset[str]:
    """Return the groups together with those that they imply."""
    seen = set(groups)
    if ALL in seen:
        return frozenset(GROUPS)
    for group in groups:
        seen.update(IMPLIED.get(group, ()))
        if batching:
            seen.update(IN_BATCHES.get(group, ()))
    return frozenset(seen)
