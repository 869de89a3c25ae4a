"""How much of the devices' memory cached prefixes take, over time.

A trace says when prefixes grow (a shard starts, or leaves what it has decoded at its end) and what
is evicted for which shard. From that follows what lies where: an entry is counted from the start of
the shard that computes or copies it to the start of the shard that it has to go for, or until its
device fails. Two things are not in a trace, and make the result an approximation, from above: that
the entry of a shard's own prefix shrank because nothing else could go, and when on a batching
device growing outputs pushed something out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from fate_gym.kernel.schema import EVICT_PREFIX

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem, Trace


def prefix_memory_share(trace: Trace, compiled: CompiledProblem) -> float:
    """Share of the memory of all devices (x utilisation) that prefixes take, mean over time.

    From the first arrival to the last end. NaN if no device has memory or no time passes.
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
    """Seconds, ascending, and the bytes that prefixes take from there on, all devices together."""
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
    """What the devices cache of prefixes.

    Attributes:
        bytes: of all of it.
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
        """A shard starts: its path grows, and what has to go for it goes."""
        self._grow(self._device[row], *self._needed[row])
        for entry in self._gone.get(row, ()):
            self._drop(entry)

    def leave(self, row: int) -> None:
        """A shard ends, and leaves what extends its prefix."""
        if self._written[row][1] > self._needed[row][1]:
            self._grow(self._device[row], *self._written[row])

    def fail(self, device: int) -> None:
        """A device loses all."""
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
