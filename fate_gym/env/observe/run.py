"""The observed features of the run as a whole."""

from __future__ import annotations

import numpy as np

from fate_gym.env.features import (
    GLOBAL,
    HALF_DEGREE,
    HALF_SIGMA,
    HALF_STAGES,
    HALF_WORKFLOWS,
    LONG,
    saturate,
)
from fate_gym.env.observe.devices import seconds_until_free
from fate_gym.env.observe.load import has_work
from fate_gym.env.schema import FeatureRow, Run
from fate_gym.jit import kernel


@kernel
def write_globals(run: Run, row: FeatureRow) -> None:
    """Fill ``row`` (F,)."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    number, scale, long = p.devices.size, f.time_scale, LONG * f.time_scale
    busy, up, total, longest = 0, 0, 0.0, 0.0
    for d in range(number):
        queue = seconds_until_free(p, st.now, ep.devices[d].turn)
        up += ep.devices[d].turn < np.inf
        busy += has_work(p, st, d)
        total += queue
        longest = max(longest, queue)
    path = 0.0
    for i in range(st.ready_count):
        path = max(path, p.stages[st.ready[i]].upward_rank)
    row[GLOBAL.now] = saturate(st.now - f.first_arrival, long)
    row[GLOBAL.can_wait] = ep.can_wait
    row[GLOBAL.shown] = ep.shown / ep.window.size
    row[GLOBAL.hidden] = saturate(st.ready_count - ep.shown, HALF_DEGREE)
    row[GLOBAL.workflows] = saturate(ep.active, HALF_WORKFLOWS)
    row[GLOBAL.stages_left] = saturate(st.known_left, HALF_STAGES)
    row[GLOBAL.done] = 1.0 - st.known_left / max(1, ep.known_stages)
    row[GLOBAL.busy] = busy / number
    row[GLOBAL.mean_queue] = saturate(total / number, scale)
    row[GLOBAL.longest_queue] = saturate(longest, scale)
    row[GLOBAL.path_left] = saturate(path, long)
    row[GLOBAL.work_left] = saturate(max(0.0, ep.work) / number, long)
    row[GLOBAL.uncertainty] = saturate(p.uncertainty, HALF_SIGMA)
    row[GLOBAL.eager] = p.eager
    row[GLOBAL.length_uncertainty] = saturate(p.length_uncertainty, HALF_SIGMA)
    row[GLOBAL.failing] = p.failing
    row[GLOBAL.up] = up / number
    row[GLOBAL.batching] = p.batching
