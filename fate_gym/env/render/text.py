"""A running episode as text."""

from __future__ import annotations

import math

from fate_gym.env.render.residency import residencies
from fate_gym.env.render.scene import Scene, horizon
from fate_gym.kernel.schema import HOST
from fate_gym.sim import Trace
from fate_gym.sim.phases import phases

_COLUMNS = 64


def as_text(scene: Scene) -> str:
    """The run so far: a line per device with its timeline, memory and models, and the window."""
    compiled = scene.compiled
    stages = compiled.arrays.stages
    trace, view = scene.trace(), scene.view()
    ended = int((trace.stage_end > 0).sum())
    until = horizon(scene.time, trace)
    counts = f"{ended} of {len(trace.stage_ids)} stages ended, {len(view.ready)} ready"
    legend = "L load, T transfer, P prefill, D decode, small letters: yet to come"
    lines = [
        f"{compiled.problem.id}: {scene.time:.2f} s, {counts}",
        f"one column is {until / _COLUMNS:.3g} s; {legend}",
    ]
    timelines = _timelines(trace, until, scene.time)
    here: dict[int, list[str]] = {}
    for one in residencies(trace, stages["model"], math.inf):
        if one.end == math.inf:
            here.setdefault(one.device, []).append(trace.model_names[one.model])
    width = max(len(name) for name in trace.device_ids)
    queues, up = view.drain_estimates() - scene.time, view.up
    for d, name in enumerate(trace.device_ids):
        models = ", ".join(here.get(d, ())) or "-"
        state = f"queue {queues[d]:7.2f} s" if up[d] else "down           "
        lines.append(f"{name:>{width}} |{timelines[d]}| {state}  {models}")
    for slot, stage in enumerate(scene.window):
        workflow, name = trace.stage_ids[stage]
        ends = view.end_estimates(stage)
        best = int(ends.argmin())
        lines.append(
            f"slot {slot}: {workflow}/{name}, rank {stages[stage]['upward_rank']:.2f} s, "
            f"earliest end {ends[best]:.2f} s on {trace.device_ids[best]}"
        )
    return "\n".join(lines) + "\n"


def _timelines(trace: Trace, until: float, now: float) -> list[str]:
    """A line of letters for each device."""
    lines = [["."] * _COLUMNS for _ in trace.device_ids]
    scale = _COLUMNS / until
    times = phases(trace.shards, trace.shards["device"] == HOST)
    for i, device in enumerate(trace.shards["device"].tolist()):
        if device == HOST:
            continue
        # A load and a transfer at the same time show as the longer of the two.
        longer = "load" if times.loaded[i] >= times.moved[i] else "transfer"
        parts = (
            (longer, times.start[i], times.begin[i]),
            ("prefill", times.begin[i], times.prefilled[i]),
            ("decode", times.prefilled[i], times.end[i]),
        )
        for phase, start, end in parts:
            for column in range(int(start * scale), min(_COLUMNS, math.ceil(end * scale))):
                middle = (column + 0.5) / scale
                if start <= middle < end:
                    lines[device][column] = phase[0] if middle > now else phase[0].upper()
    return ["".join(line) for line in lines]
