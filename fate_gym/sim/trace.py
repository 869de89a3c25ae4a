"""The record of a run: every shard, every eviction, the time of every decision."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.files import write_output
from fate_gym.kernel.schema import HOST
from fate_gym.problem import Problem
from fate_gym.sim.occupancy import lanes, occupancy
from fate_gym.sim.phases import Phases, phases
from fate_gym.sim.policy import Retention

Floats = NDArray[np.float64]

OUTAGE_ROW = np.dtype([("device", np.int64), ("down", np.float64), ("up", np.float64)])


@dataclass(frozen=True, slots=True)
class Trace:
    """A finished run. S stages, W workflows, R shards, X evictions; seconds and bytes.

    Attributes:
        problem: the problem that was run; ``policy`` and ``seed``: how it was run.
        shards: (R,) `fate_gym.kernel.schema.ShardRow` in commit order. ``first`` and ``end`` are
            actual times; load and transfer are estimates; so are prefill and decode on exclusive
            devices, but actual times on batching ones, whose shards overlap. A ``lost``
            shard ends when its device fails.
        evictions: (X,) `fate_gym.kernel.schema.EvictionRow`, in order.
        stage_ready, stage_end: (S,) of the last placement, if a stage lost a shard; of a vanished
            stage, when that was drawn.
        workflow_arrival, workflow_end: (W,).
        workflow_of: (S,) workflow of a stage.
        decision_seconds: wall-clock seconds of each call of the policy.
        counters: the policy's own counters.
        stage_vanished: (S,) stages that were skipped: their branch was not taken.
        draws: (S,) what a chooser drew; NaN elsewhere.
        outages: (O,) ``OUTAGE_ROW``, by time of failure; the last may be up after the end.
        retentions: pairs of a row count and a retention that holds from that row of ``shards`` on.
    """

    problem: Problem
    policy: str
    seed: int
    stage_ids: list[tuple[str, str]]
    device_ids: list[str]
    model_names: list[str]
    prefix_keys: list[tuple[str, str]]
    shards: NDArray[Any]
    evictions: NDArray[Any]
    stage_ready: Floats
    stage_end: Floats
    workflow_arrival: Floats
    workflow_end: Floats
    workflow_of: NDArray[np.int32]
    decision_seconds: Floats = field(default_factory=lambda: np.zeros(0))
    counters: dict[str, float] = field(default_factory=dict)
    retentions: list[tuple[int, Retention]] = field(default_factory=list)
    stage_vanished: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    draws: Floats = field(default_factory=lambda: np.zeros(0))
    outages: NDArray[Any] = field(default_factory=lambda: np.zeros(0, OUTAGE_ROW))

    @property
    def makespan(self) -> float:
        """Seconds from the first arrival to the last end."""
        return float(self.workflow_end.max() - self.workflow_arrival.min())

    @property
    def latencies(self) -> Floats:
        """(W,) seconds from each workflow's arrival to its end."""
        return self.workflow_end - self.workflow_arrival

    @property
    def planning_seconds(self) -> float:
        """Wall-clock seconds spent in the policy."""
        return float(self.decision_seconds.sum())

    def same_schedule(self, other: Trace) -> bool:
        """Return whether two runs did the same things at the same times, bit for bit."""
        return (
            np.array_equal(self.shards, other.shards)
            and np.array_equal(self.evictions, other.evictions)
            and np.array_equal(self.stage_end, other.stage_end)
        )

    def save(self, path: str | Path) -> None:
        """Write the run, with its problem, to a JSON file that `load` reads."""
        from fate_gym.sim.trace_file import to_json

        write_output(Path(path), to_json(self))

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a run that `save` wrote.

        Raises:
            InputError: the file cannot be read, is no trace, is of another version, or does not
                fit its problem.
        """
        from fate_gym.sim.trace_file import from_json

        return from_json(path)

    def to_chrome(self) -> dict[str, Any]:
        """Return the run in Chrome's trace event format, for Perfetto: one row per device.

        Shards that run at the same time on one device, and tools, are spread over several rows. A
        load and a transfer start together; the shorter one is nested in the longer, as viewers
        require. Each device also has a counter: queries in service.
        """
        host = len(self.device_ids)
        place = np.where(self.shards["device"] == HOST, host, self.shards["device"])
        start, end = (np.rint(self.shards[name] * 1e9) for name in ("start", "end"))
        lane = lanes(place, start, end)
        most = np.ones(host + 1, np.int64)
        np.maximum.at(most, place, lane + 1)
        first = most.cumsum() - most
        names = [
            {"ph": "M", "name": "thread_name", "pid": 0, "tid": int(first[number]) + i}
            | {"args": {"name": name if i == 0 else f"{name} {i + 1}"}}
            for number, name in enumerate([*self.device_ids, "host"])
            for i in range(int(most[number]))
        ]
        events: list[dict[str, Any]] = []
        spans = np.column_stack(phases(self.shards, self.shards["device"] == HOST))
        rows = (first[place] + lane).tolist()
        for shard, times, row in zip(self.shards, spans.tolist(), rows, strict=True):
            events.extend(self._slices(shard, Phases(*times), row))
        for outage in self.outages:
            # An outage may last beyond the run.
            until = min(float(outage["up"]), float(self.stage_end.max()))
            row = int(first[outage["device"]])
            events.extend(_slice("down", "down", row, outage["down"], until))
        return {"traceEvents": names + events + self._counters(), "displayTimeUnit": "ms"}

    def _counters(self) -> list[dict[str, Any]]:
        """Return the queries in service on each device, whenever their number changes."""
        events = []
        for number, device in enumerate(self.device_ids):
            times, values = occupancy(self.shards[self.shards["device"] == number])
            for time, queries in zip(times.tolist(), values.tolist(), strict=True):
                event = {"ph": "C", "pid": 0, "name": f"{device}: queries in service"}
                events.append(
                    event | {"ts": _nanoseconds(time) / 1e3, "args": {"queries": queries}}
                )
        return events

    def _slices(self, shard: Any, times: Phases, tid: int) -> list[dict[str, Any]]:
        workflow, stage = self.stage_ids[shard["stage"]]
        start, loaded, moved, begin, prefilled, end = times
        spans = [
            ("load", start, loaded),
            ("transfer", start, moved),
            ("prefill", begin, prefilled),
            ("decode", prefilled, end),
        ]
        if moved > loaded:
            spans[0], spans[1] = spans[1], spans[0]
        args = {"workflow": workflow, "stage": stage, "queries": int(shard["queries"])}
        if shard["lost"]:
            args["lost"] = True
        if shard["preempted"]:
            args["preempted"] = int(shard["preempted"])
        return [
            event | {"args": args}
            for kind, first, last in spans
            for event in _slice(kind, f"{stage} {kind}", tid, first, last)
        ]

    def write_chrome(self, path: str | Path) -> None:
        """Write `to_chrome` to a JSON file."""
        write_output(Path(path), json.dumps(self.to_chrome()))


def _nanoseconds(seconds: Any) -> int:
    return round(float(seconds) * 1e9)


def _slice(kind: str, name: str, tid: int, start: Any, end: Any) -> list[dict[str, Any]]:
    """Return a complete event, or none if it takes no time.

    Its ends are whole nanoseconds, so that neighbours meet and rounding lets none overlap.
    """
    first, last = _nanoseconds(start), _nanoseconds(end)
    if last <= first:
        return []
    times = {"ts": first / 1e3, "dur": (last - first) / 1e3}
    return [{"ph": "X", "pid": 0, "tid": tid, "cat": kind, "name": name} | times]
