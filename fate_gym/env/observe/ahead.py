"""Compare placements as if the stages of earlier slots had been placed first."""

from __future__ import annotations

import numpy as np

from fate_gym.env.features import CANDIDATE
from fate_gym.env.schema import Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.commit import reserve
from fate_gym.kernel.estimate import shard_end
from fate_gym.kernel.fork import fork


@kernel
def plan_ahead(run: Run) -> None:
    """Write how much later than its best end each placement is, behind stages of earlier slots.

    Each of these is assumed to go to the device on which it then ends earliest, as in HEFT: what a
    free device is worth to a stage depends on which other stages want it.
    """
    if run.problem.batching:
        _plan_batches(run)
    else:
        _plan_queues(run)


@inlined
def _plan_queues(run: Run) -> None:
    """Plan on exclusive devices: a stage that goes first delays the turn of its device."""
    f, ep, c = run.facts, run.episode, run.placements
    devices, table, busy = ep.devices, c.rows, c.busy
    for d in range(devices.size):
        devices[d].planned = devices[d].turn
    for slot in range(ep.shown):
        base = ep.lines[slot] * f.positions
        best, where = np.inf, -1
        for d in range(devices.size):
            if table[base + d].width > 0:
                end = devices[d].planned + busy[base + d, 0]
                if end < best:
                    best, where = end, d
        for row in range(base, base + f.positions):
            width = table[row].width
            if width == 0:
                continue
            end = 0.0
            for i in range(width):
                end = max(end, devices[c.devices[row, i]].planned + busy[row, i])
            end += (width - 1) * run.problem.gather_s
            _write_behind(run, row, end - best)
        if where >= 0:
            devices[where].planned = best


@kernel
def _plan_batches(run: Run) -> None:
    """Plan on batching devices: place stages that go first in a fork, with its batches."""
    f, ep, c = run.facts, run.episode, run.placements
    devices, table = ep.devices, c.rows
    for d in range(devices.size):
        devices[d].taken = 0
    if ep.shown > 1:
        fork(run.problem, run.state, run.scratch)
    for slot in range(ep.shown):
        base = ep.lines[slot] * f.positions
        best, where = np.inf, -1
        for d in range(devices.size):
            if table[base + d].width > 0:
                c.ends[d] = _end_behind(run, base + d, 0)
                if c.ends[d] < best:
                    best, where = c.ends[d], d
        for row in range(base, base + f.positions):
            width = table[row].width
            if width == 1:
                _write_behind(run, row, c.ends[c.devices[row, 0]] - best)
            elif width > 1:
                end = 0.0
                for i in range(width):
                    end = max(end, _end_behind(run, row, i))
                _write_behind(run, row, end + (width - 1) * run.problem.gather_s - best)
        if where >= 0 and slot + 1 < ep.shown:
            devices[where].taken = 1
            row = base + where
            devs, counts = c.devices[row], c.counts[row]
            reserve(run.problem, run.scratch, run.unlogged, table[row].stage, devs, counts, 1, 0)


@inlined
def _write_behind(run: Run, row: int, behind: float) -> None:
    run.episode.features[row, CANDIDATE.behind] = behind / (abs(behind) + run.facts.time_scale)


@inlined
def _end_behind(run: Run, row: int, i: int) -> float:
    """Return when shard ``i`` of a placement ends behind the stages of earlier slots."""
    c = run.placements
    d = c.devices[row, i]
    if run.episode.devices[d].taken == 0:
        return run.episode.ends[row, i]
    return shard_end(run.problem, run.scratch, c.rows[row].stage, d, c.counts[row, i])
