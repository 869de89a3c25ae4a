"""A running episode as text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env.actions import legal_actions
from fate_gym.env.render.residency import residencies
from fate_gym.env.render.scene import Scene, horizon, shards_until
from fate_gym.kernel.schema import HOST
from fate_gym.sim import Trace
from fate_gym.sim.occupancy import in_service
from fate_gym.sim.phases import phases

_COLUMNS = 64
_ORDER = ".ltpd"


def as_text(scene: Scene) -> str:
    """Return the run so far as text: one line per device, and the window.

    A device's line has its timeline, state and models. Each slot of the window has the numbers of
    its legal actions.
    """
    compiled = scene.compiled
    stages = compiled.arrays.stages
    trace, view = scene.trace(), scene.view()
    ended = int((trace.stage_end > 0).sum())
    shards = shards_until(trace, scene.time)
    until = horizon(scene.time, shards)
    counts = f"{ended} of {len(trace.stage_ids)} stages ended, {len(view.ready)} ready"
    legend = "L load, T transfer, P prefill, D decode, small letters: yet to come"
    lines = [
        f"{compiled.problem.id}: {scene.time:.2f} s, {counts}",
        f"one column is {until / _COLUMNS:.3g} s; {legend}",
    ]
    timelines = _timelines(shards, len(trace.device_ids), until, scene.time)
    served = _in_service(trace, scene.time)
    here: dict[int, list[str]] = {}
    for one in residencies(trace, stages["model"], math.inf):
        if one.end == math.inf:
            here.setdefault(one.device, []).append(trace.model_names[one.model])
    width = max(len(name) for name in trace.device_ids)
    queues, up = view.drain_estimates() - scene.time, view.up
    for d, name in enumerate(trace.device_ids):
        models = ", ".join(here.get(d, ())) or "-"
        state = f"queue {queues[d]:7.2f} s" if up[d] else "down           "
        if compiled.problem.cluster.execution == "batching":
            state += f"  {served[d]:3d} in service"
        lines.append(f"{name:>{width}} |{timelines[d]}| {state}  {models}")
    legal, positions = legal_actions(scene.arrays), scene.arrays.facts.positions
    for slot, stage in enumerate(scene.window):
        workflow, name = trace.stage_ids[stage]
        ends, first = view.end_estimates(stage), slot * positions
        best = int(ends.argmin())
        numbers = _ranges(first + np.flatnonzero(legal[first : first + positions]))
        lines.append(
            f"slot {slot}: {workflow}/{name}, rank {stages[stage]['upward_rank']:.2f} s, "
            f"earliest end {ends[best]:.2f} s on {trace.device_ids[best]} (action {first + best}); "
            f"actions {numbers}"
        )
    lines.append(f"wait: action {legal.size - 1}{'' if legal[-1] else ', illegal now'}")
    return "\n".join(lines) + "\n"


def _ranges(numbers: NDArray[np.int64]) -> str:
    """Return numbers as ranges, such as ``0-3, 6``."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(f"{r[0]}-{r[-1]}" if len(r) > 1 else f"{r[0]}" for r in runs if len(r))


def _in_service(trace: Trace, now: float) -> NDArray[np.int64]:
    """Return (D,) the queries that run on each device now."""
    shards = trace.shards[trace.shards["device"] != HOST]
    running = shards[(shards["start"] <= now) & (now < shards["end"])]
    counts = np.zeros(len(trace.device_ids), np.int64)
    np.add.at(counts, running["device"], in_service(running))
    return counts


def _timelines(shards: NDArray[Any], devices: int, until: float, now: float) -> list[str]:
    """Return a line of letters per device; of shards that run together the last phase shows."""
    lines = [["."] * _COLUMNS for _ in range(devices)]
    scale = _COLUMNS / until
    times = phases(shards, shards["device"] == HOST)
    for i, device in enumerate(shards["device"].tolist()):
        if device == HOST:
            continue
        # Of a load and a transfer at the same time, the longer one shows.
        longer = "load" if times.loaded[i] >= times.moved[i] else "transfer"
        parts = (
            (longer, times.start[i], times.begin[i]),
            ("prefill", times.begin[i], times.prefilled[i]),
            ("decode", times.prefilled[i], times.end[i]),
        )
        for phase, start, end in parts:
            for column in range(int(start * scale), min(_COLUMNS, math.ceil(end * scale))):
                middle = (column + 0.5) / scale
                before = lines[device][column].lower()
                if start <= middle < end and _ORDER.index(before) < _ORDER.index(phase[0]):
                    lines[device][column] = phase[0] if middle > now else phase[0].upper()
    return ["".join(line) for line in lines]
