"""What is observed of the candidate placements of the stages in the window.

They are those of `fate_gym.kernel.placements.generate`, bit for bit; a test compares the two. From
one step to the next most costs stay what they are: those of a stage on a device depend on what the
device holds when its queue has drained, which changes when something is placed on it. They are
kept line by line, and worked out anew for the devices that changed.
"""

from __future__ import annotations

import numpy as np

from fate_gym.env.features import CANDIDATE, CANDIDATE_WIDTH, saturate
from fate_gym.env.observe.costs import (
    Sums,
    update_whole,
    whole_end,
    write_children,
    write_costs,
)
from fate_gym.env.observe.teams import update_teams, withdraw
from fate_gym.env.schema import EpisodeArrays, FactsArrays, FeatureRows
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import MODEL_STAGE, ProblemArrays, StateArrays


@kernel
def update_candidates(
    p: ProblemArrays, st: StateArrays, f: FactsArrays, ep: EpisodeArrays, c: Placements, slot: int
) -> None:
    """Bring placements, costs and features of the stage in a slot up to date."""
    s = ep.window[slot]
    new = ep.lines[slot] < 0
    if new:
        _take_line(f, ep, c, slot)
    line = ep.lines[slot]
    base = line * f.positions
    ends, table, features, devices, costs = c.ends, c.rows, ep.features, ep.devices, ep.costs
    now, scale = st.now, f.time_scale
    prefixed = p.stages[s].prefix >= 0
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
            update_whole(p, st, s, d, dev.turn, costs[line, d])
            _write_single(p, st, f, ep, c, line, d)
        end = whole_end(costs[line, d], dev.turn)
        ends[d] = end
        best = min(best, end)
        if prefixed:
            dev.hits += features[base + d, CANDIDATE.prefix_hit]
    for d in range(ends.size):
        if table[base + d].width > 0:
            end = ends[d]
            later = end - best
            table[base + d].end = end
            row = features[base + d]
            row[CANDIDATE.turn] = devices[d].turn_feature
            row[CANDIDATE.end] = saturate(end - now, scale)
            row[CANDIDATE.later] = later / (later + scale)
            row[CANDIDATE.demand] = devices[d].demand
    update_teams(p, st, f, ep, c, line, new, best)


@inlined
def _take_line(f: FactsArrays, ep: EpisodeArrays, c: Placements, slot: int) -> None:
    """Give the stage in a slot a line without placements."""
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


@inlined
def _write_single(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    line: int,
    d: int,
) -> None:
    """The placement on device ``d``, with the features that time does not change."""
    at = line * f.positions + d
    s = c.rows[at].stage
    stage = p.stages[s]
    cost = ep.costs[line, d]
    c.rows[at].width = 1
    c.devices[at, 0] = d
    c.counts[at, 0] = stage.queries
    c.busy[at, 0] = cost.busy
    row = ep.features[at]
    held = stage.kind == MODEL_STAGE and st.resident[d, stage.model] > 0
    row[CANDIDATE.devices] = 1.0 / f.shards
    row[CANDIDATE.speed] = f.pairs[s, d].speed
    row[CANDIDATE.resident] = 1.0 if held else 0.0
    row[CANDIDATE.prefix_hit] = cost.prefix_hit / max(1, stage.prefix_tokens)
    row[CANDIDATE.context_hit] = cost.context_hit / max(1, stage.inherited_tokens)
    sums = Sums(
        cost.load,
        cost.transfer,
        cost.prefill,
        cost.decode,
        cost.busy,
        cost.moved,
        cost.evicted_kv,
        cost.evicted_weights,
    )
    write_costs(f, sums, row)
    write_children(p, st, f, s, d, row)


@kernel
def plan_ahead(p: ProblemArrays, f: FactsArrays, ep: EpisodeArrays, c: Placements) -> None:
    """How much later than its best end each placement is, behind the stages of larger rank.

    Each of these is taken to go to the device on which it ends earliest then, as HEFT would have
    it: what an idle device is worth to a stage depends on who else wants it.
    """
    devices, table, busy, features = ep.devices, c.rows, c.busy, ep.features
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
            end += (width - 1) * p.gather_s
            behind = end - best
            features[row, CANDIDATE.behind] = behind / (abs(behind) + f.time_scale)
        if where >= 0:
            devices[where].planned = best


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
