"""Parts 1 and 4 of FATE: the frontier's candidates, with their state-conditional costs.

The ready stages with the largest upward rank (the window) get every candidate placement of the
common generator, bounded shards included; each is scored, and the best of each stage are kept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import compiled
from fate_gym.sim.candidates import generate
from fate_gym.sim.cost import drain_estimate
from fate_gym.sim.layout import Array, Buffer, Log, problem_view, state_view
from policies.fate.scoring import (
    MOST_DESCENDANTS,
    Weights,
    descendants,
    future_demand,
    score_placement,
)
from policies.list_core import UPWARD_RANK, ready_order

OVERDUE_S = 0.001
"""Seconds that an overdue shard is expected to go on."""


class Frontier(NamedTuple):
    """Scored candidates. C candidates (at most window x kept), K shards, D devices; seconds.

    Attributes:
        stages: (F,) stage numbers by rank.
        stage: (C,) position in ``stages``.
        width: (C,) devices used.
        devices: (C, K), -1 where unused.
        counts: (C, K) queries.
        end: (C,) seconds from now to the stage's end.
        later: (C,) what the placement costs later.
        busy: (C, K) busy seconds of each device.
        free: (D,) seconds from now until each device is free.
    """

    stages: Array
    stage: Array
    width: Array
    devices: Array
    counts: Array
    end: Array
    later: Array
    busy: Array
    free: Array


@compiled
def score_frontier(
    problem: Buffer,
    state: Buffer,
    scratch: Buffer,
    log: Log,
    weights: Weights,
    window: int,
    kept: int,
    shards: int,
) -> Frontier:
    """Candidates of the ``window`` highest-ranked ready stages, the ``kept`` best of each.

    A stage whose descendants have no host that is up costs infinity everywhere: it has no
    candidate, and is left out.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    number = p.devices.size
    most = p.head[0].max_shards
    stages = ready_order(p, st, UPWARD_RANK)[:window]
    positions = number + 3 * (shards - 1)
    widths = np.zeros(positions, np.int64)
    devices = np.zeros((positions, most), np.int64)
    counts = np.zeros((positions, most), np.int64)
    busy = np.zeros((positions, most))
    end = np.zeros(positions)
    later = np.zeros(positions)
    key = np.zeros(positions)
    room = stages.size * kept
    out = Frontier(
        stages,
        np.zeros(room, np.int64),
        np.zeros(room, np.int64),
        np.full((room, most), -1, np.int64),
        np.zeros((room, most), np.int64),
        np.zeros(room),
        np.zeros(room),
        np.zeros((room, most)),
        np.zeros(number),
    )
    now = st.head[0].now
    for d in range(number):
        out.free[d] = drain_estimate(p, st, d) - now
        if st.devices[d].queue_head >= 0:
            # A shard that takes longer than expected still holds its device.
            out.free[d] = max(out.free[d], OVERDUE_S)
    scratch[:] = state
    after = state_view(scratch, p)
    need, scarce = future_demand(p, st)
    heirs = np.zeros(MOST_DESCENDANTS, np.int64)
    distance = np.zeros(MOST_DESCENDANTS, np.int64)
    found, total = 0, 0
    for i in range(stages.size):
        s = stages[i]
        before = total
        heir_count = descendants(p, s, weights.depth, heirs, distance)
        generate(p, st, s, shards, widths, devices, counts)
        for j in range(positions):
            key[j] = np.inf
            if widths[j] > 0:
                end[j], later[j] = score_placement(
                    p, st, after, log, s, devices[j], counts[j], widths[j],
                    heirs, distance, heir_count, need, scarce, weights, busy[j],
                )  # fmt: skip
                end[j] -= now
                key[j] = end[j] + later[j]
        order = np.argsort(key, kind="mergesort")
        for j in order[:kept]:
            if key[j] == np.inf:
                break
            out.stage[total] = found
            out.width[total] = widths[j]
            out.devices[total, : widths[j]] = devices[j, : widths[j]]
            out.counts[total, : widths[j]] = counts[j, : widths[j]]
            out.end[total] = end[j]
            out.later[total] = later[j]
            out.busy[total] = busy[j]
            total += 1
        if total > before:
            stages[found] = s
            found += 1
    return Frontier(
        stages[:found],
        out.stage[:total],
        out.width[:total],
        out.devices[:total],
        out.counts[:total],
        out.end[:total],
        out.later[:total],
        out.busy[:total],
        out.free,
    )
