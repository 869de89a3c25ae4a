"""The observed candidate placements of the stages in the window.

They are those of `fate_gym.kernel.placements.generate`, bit for bit; a test compares the two. Most
costs stay the same from one step to the next: on an exclusive device they depend on what it holds
when its queue has drained, which changes only when something is placed on it. The same is true of a
batching device within one instant. Costs are cached line by line and recomputed for devices that
changed.
"""

from __future__ import annotations

import numpy as np

from fate_gym.env.features import CANDIDATE, CANDIDATE_WIDTH, saturate
from fate_gym.env.observe.costs import (
    cost_alone,
    end_alone,
    write_placement,
)
from fate_gym.env.observe.teams import update_teams, withdraw
from fate_gym.env.schema import EpisodeArrays, FactsArrays, FeatureRows, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.placements import Placements


@kernel
def update_candidates(run: Run, slot: int) -> None:
    """Update placements, costs and features of the stage in slot ``slot``."""
    p, st, f, ep, c = run.problem, run.state, run.facts, run.episode, run.placements
    s = ep.window[slot]
    new = ep.lines[slot] < 0
    if new:
        _take_line(f, ep, c, slot)
    line = ep.lines[slot]
    base = line * f.positions
    ends, rows, features, devices, costs = c.ends, c.rows, ep.features, ep.devices, ep.costs
    now, scale = st.now, f.time_scale
    prefixed, batching = p.stages[s].prefix >= 0, p.batching != 0
    best = np.inf
    for d in range(ends.size):
        ends[d] = np.inf
        if p.clean_seconds[s, d] == np.inf:
            continue
        dev = devices[d]
        if dev.turn == np.inf:
            withdraw(ep, c, base + d)
            continue
        if new or dev.changed:
            rows[base + d].width = 1
            c.devices[base + d, 0] = d
            c.counts[base + d, 0] = p.stages[s].queries
            cost_alone(run, s, d, costs[line, d])
            c.busy[base + d, 0] = costs[line, d].busy
            if batching:
                ep.ends[base + d, 0] = costs[line, d].end
            write_placement(run, base + d, costs[line, d])
        end = costs[line, d].end if batching else end_alone(costs[line, d], dev.turn)
        ends[d] = end
        best = min(best, end)
        if prefixed:
            dev.hits += features[base + d, CANDIDATE.prefix_hit]
    ep.best[line] = best
    for d in range(ends.size):
        if rows[base + d].width > 0:
            end = ends[d]
            later = end - best
            rows[base + d].end = end
            row = features[base + d]
            if batching:
                row[CANDIDATE.turn] = saturate(costs[line, d].begin - now, scale)
                row[CANDIDATE.admits] = costs[line, d].admits
            else:
                row[CANDIDATE.turn] = devices[d].turn_feature
                row[CANDIDATE.admits] = devices[d].admits
            row[CANDIDATE.end] = saturate(end - now, scale)
            row[CANDIDATE.later] = later / (later + scale)
            row[CANDIDATE.demand] = devices[d].demand
    update_teams(run, line, new, best)


@inlined
def _take_line(f: FactsArrays, ep: EpisodeArrays, c: Placements, slot: int) -> None:
    """Give the stage in a slot a free line, without placements."""
    s = ep.window[slot]
    ep.free_count -= 1
    line = ep.free[ep.free_count]
    ep.lines[slot] = line
    ep.stages[s].line = line + 1
    for row in range(line * f.positions, (line + 1) * f.positions):
        c.rows[row].stage = s
        c.rows[row].width = 0
        for i in range(CANDIDATE_WIDTH):
            ep.features[row, i] = 0.0


@kernel
def write_candidates(f: FactsArrays, ep: EpisodeArrays, rows: FeatureRows) -> None:
    """Fill ``rows`` (R, F) with the features of the placements, slot by slot."""
    flat, kept = rows.ravel(), ep.features.ravel()
    width = f.positions * rows.shape[1]
    for slot in range(ep.shown):
        to, source = slot * width, ep.lines[slot] * width
        target = flat[to : to + width]
        known = kept[source : source + width]
        for i in range(width):
            target[i] = known[i]
    for i in range(ep.shown * width, rows.size):
        flat[i] = 0.0
