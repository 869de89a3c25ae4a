"""The share of the devices' memory that cached prefixes take, over time.

A trace says when prefixes grow (a shard starts, or leaves what it has decoded at its end) and what
is evicted for which shard, and so what lies where: an entry counts from the start of the shard that
computes or copies it to the start of the shard for which it is evicted, or until its device fails.
Two things are not in a trace and make the result an overestimate: when a shard's own prefix entry
shrank because nothing else could go, and when growing outputs on a batching device evicted
something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fate_gym.kernel.schema import EVICT_PREFIX

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem, Trace


def prefix_memory_share(trace: Trace, compiled: CompiledProblem) -> float:
    """Return the share of all devices' usable memory that prefixes take, a mean over time.

    Usable memory is memory x utilisation. Time runs from the first arrival to the last end. NaN if
    no device has memory or no time passes.
    """
    memory = compiled.arrays.devices["memory"]
    first, last = float(trace.workflow_arrival.min()), float(trace.workflow_end.max())
    whole = float(memory[np.isfinite(memory)].sum()) * (last - first)
    if whole <= 0.0:
        return float("nan")
    area, before, held = 0.0, first, 0.0
    for time, size in prefix_bytes(trace, compiled):
        now = min(max(time, first), last)
        area += held * (now - before)
        before, held = now, size
    return (area + held * (last - before)) / whole


def prefix_bytes(trace: Trace, compiled: CompiledProblem) -> Iterator[tuple[float, float]]:
    """Yield ascending times, and the bytes that prefixes take on all devices from then on."""
    caches = _Caches(trace, compiled)
    rows = np.flatnonzero((trace.shards["device"] >= 0) & (trace.shards["lost"] == 0))
    shards, number = trace.shards, 2 * len(trace.shards)
    # What a shard leaves is there before a later one starts at the same instant.
    events = [(float(shards["start"][row]), 2 * row) for row in rows.tolist()]
    events += [(float(shards["end"][row]), 2 * row + 1) for row in rows.tolist()]
    events += [(float(outage["down"]), number + int(outage["device"])) for outage in trace.outages]
    for time, what in sorted(events):
        if what >= number:
            caches.fail(what - number)
        elif what % 2:
            caches.leave(what // 2)
        else:
            caches.start(what // 2)
        yield time, caches.bytes


class _Caches:
    """The prefixes that the devices cache.

    Attributes:
        bytes: bytes of all of them.
    """

    def __init__(self, trace: Trace, compiled: CompiledProblem) -> None:
        stages = compiled.arrays.stages[trace.shards["stage"]]
        self.bytes = 0.0
        self._paths = compiled.prefix_paths
        self._kv = compiled.arrays.models["kv"][compiled.arrays.prefixes["model"]].tolist()
        self._device = trace.shards["device"].tolist()
        self._needed = list(zip(stages["prefix"], stages["prefix_tokens"], strict=True))
        self._written = list(zip(stages["written"], stages["written_tokens"], strict=True))
        # (device, key) -> tokens behind the start of the key
        self._tokens: dict[tuple[int, int], int] = {}
        self._gone: dict[int, list[tuple[int, int]]] = {}
        for eviction in trace.evictions[trace.evictions["kind"] == EVICT_PREFIX]:
            entry = (int(eviction["device"]), int(eviction["key"]))
            self._gone.setdefault(int(eviction["shard"]), []).append(entry)

    def start(self, row: int) -> None:
        """Start a shard: its path grows, and what is evicted for it goes."""
        self._grow(self._device[row], *self._needed[row])
        for entry in self._gone.get(row, ()):
            self._drop(entry)

    def leave(self, row: int) -> None:
        """End a shard: what extends its prefix stays."""
        if self._written[row][1] > self._needed[row][1]:
            self._grow(self._device[row], *self._written[row])

    def fail(self, device: int) -> None:
        """Drop all that a device caches."""
        for entry in [entry for entry in self._tokens if entry[0] == device]:
            self._drop(entry)

    def _grow(self, device: int, key: int, tokens: int) -> None:
        for part, first, last in self._paths.to(int(key), int(tokens)):
            held = self._tokens.get((device, part), 0)
            if last - first > held:
                self._tokens[device, part] = last - first
                self.bytes += (last - first - held) * self._kv[part]

    def _drop(self, entry: tuple[int, int]) -> None:
        self.bytes -= self._tokens.pop(entry, 0) * self._kv[entry[1]]
