"""The observed features of the stages in the window."""

from __future__ import annotations

import numpy as np

from fate_gym.env.features import CANDIDATE, HALF_DEGREE, LONG, STAGE, saturate
from fate_gym.env.schema import FeatureRows, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import DONE, MODEL_STAGE, VANISHED, ProblemArrays, StateArrays


@kernel
def write_stages(run: Run, rows: FeatureRows) -> None:
    """Fill ``rows`` (B, F)."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    for slot in range(ep.shown):
        s = ep.window[slot]
        stage = p.stages[s]
        base = ep.lines[slot] * f.positions
        resident = 0
        cached = 0.0
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] < np.inf:
                cached = max(cached, ep.features[base + d, CANDIDATE.prefix_hit])
                resident += stage.kind == MODEL_STAGE and st.resident[d, stage.model] > 0
        for c in range(rows.shape[1]):
            rows[slot, c] = f.stage_rows[s, c]
        waited = st.now - st.stages[s].ready_at
        age = st.now - st.workflows[stage.workflow].arrived_at
        rows[slot, STAGE.ready_for] = saturate(waited, f.time_scale)
        rows[slot, STAGE.age] = saturate(age, LONG * f.time_scale)
        rows[slot, STAGE.resident] = resident / f.stages[s].eligible
        rows[slot, STAGE.prefix_cached] = cached
        rows[slot, STAGE.best_end] = saturate(ep.best[ep.lines[slot]] - st.now, f.time_scale)
        rows[slot, STAGE.children_live] = _children_live(p, st, s)
        flow, size = ep.workflows[stage.workflow], p.workflows[stage.workflow]
        rows[slot, STAGE.slot] = (slot + 1) / rows.shape[0]
        rows[slot, STAGE.unplaced] = flow.unplaced / (size.stages_to - size.stages_from)
        rows[slot, STAGE.siblings] = saturate(flow.ready - 1, HALF_DEGREE)
        if stage.kind == MODEL_STAGE:
            rows[slot, STAGE.rivals] = saturate(ep.models[stage.model] - 1, HALF_DEGREE)
    for slot in range(ep.shown, rows.shape[0]):
        for c in range(rows.shape[1]):
            rows[slot, c] = 0.0


@inlined
def _children_live(p: ProblemArrays, st: StateArrays, s: int) -> float:
    stage = p.stages[s]
    children = stage.children_to - stage.children_from
    if children == 0 or p.choosers == 0:
        return 1.0 if children > 0 else 0.0
    living = 0.0
    for i in range(stage.children_from, stage.children_to):
        living += life(p, st, p.edges[p.out_edges[i]].child)
    return living / children


@kernel
def life(p: ProblemArrays, st: StateArrays, s: int) -> float:
    """Return the probability that stage ``s`` lives, given what has been drawn."""
    life = 1.0
    while life > 0.0:
        if st.stages[s].note == VANISHED:
            return 0.0
        chooser = p.stages[s].chooser
        if chooser < 0 or st.stages[chooser].status == DONE:
            # Its chooser has drawn, and the stage has not vanished: it lives.
            break
        life *= min(1.0, p.stages[s].lives_to) - p.stages[s].lives_from
        s = chooser
    return life
