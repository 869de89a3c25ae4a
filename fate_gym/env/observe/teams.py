"""What is observed of the placements on several devices."""

from __future__ import annotations

from fate_gym.env.features import CANDIDATE, CANDIDATE_WIDTH, saturate
from fate_gym.env.observe.costs import Sums, evicted, write_children, write_costs
from fate_gym.env.schema import EpisodeArrays, FactsArrays
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import shard_cost, split_queries
from fate_gym.kernel.placements import GROUPS, Placements, find_team, same_team, sort_devices
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays


@inlined
def withdraw(ep: EpisodeArrays, c: Placements, row: int) -> None:
    """There is no such placement now."""
    if c.rows[row].width > 0:
        c.rows[row].width = 0
        for i in range(CANDIDATE_WIDTH):
            ep.features[row, i] = 0.0


@kernel
def update_teams(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    line: int,
    new: bool,
    best: float,
) -> None:
    """Bring the placements of a line on two and more devices up to date.

    ``c.ends`` are the ends on each single device, ``best`` is the earliest; the line is ``new`` if
    nothing is known of it.
    """
    first = line * f.positions + f.first_team
    s = c.rows[first - f.first_team].stage
    most = min(f.shards, min(p.stages[s].queries, p.max_shards))
    if most < 2:
        return
    found = sort_devices(c.ends, c.order)
    most = min(most, found)
    groups = f.shards - 1
    for k in range(2, f.shards + 1):
        for group in range(GROUPS):
            row = first + group * groups + k - 2
            good = k <= most and find_team(p, st, s, c.order, found, group, k, ep.team)
            for other in range(1, group + 1):
                good = good and not _is_team(ep, c, row - other * groups, k)
            if not good:
                withdraw(ep, c, row)
                continue
            stale = new or not _is_team(ep, c, row, k)
            if stale:
                c.rows[row].width = k
                for i in range(k):
                    c.devices[row, i] = ep.team[i]
                split_queries(p, s, c.devices[row], k, c.counts[row])
            for i in range(k):
                stale = stale or ep.devices[ep.team[i]].changed != 0
            if stale:
                _write_team(p, st, f, ep, c, row)
            _write_times(p, st, f, ep, c, row, best)


@inlined
def _is_team(ep: EpisodeArrays, c: Placements, row: int, k: int) -> bool:
    """Whether a placement is on just ``ep.team[:k]``, in that order."""
    return c.rows[row].width == k and same_team(c.devices[row], ep.team, k)


@inlined
def _write_times(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    row: int,
    best: float,
) -> None:
    """The features of a placement that time changes."""
    k = c.rows[row].width
    end, turn, demand = 0.0, 0.0, 0.0
    for i in range(k):
        dev = ep.devices[c.devices[row, i]]
        end = max(end, dev.turn + c.busy[row, i])
        turn = max(turn, dev.turn_feature)
        demand = max(demand, dev.demand)
    end += (k - 1) * p.gather_s
    c.rows[row].end = end
    later = end - best
    features = ep.features[row]
    features[CANDIDATE.turn] = turn
    features[CANDIDATE.end] = saturate(end - st.now, f.time_scale)
    features[CANDIDATE.later] = later / (abs(later) + f.time_scale)
    features[CANDIDATE.demand] = demand


@kernel
def _write_team(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    row: int,
) -> None:
    """Seconds and features of a placement, but for those that time changes."""
    line, s, k = row // f.positions, c.rows[row].stage, c.rows[row].width
    stage = p.stages[s]
    load, transfer, prefill, decode = 0.0, 0.0, 0.0, 0.0
    occupied, moved, hits, contexts = 0.0, 0.0, 0.0, 0.0
    evicted_kv, evicted_weights = 0.0, 0.0
    speed = 1.0
    resident = 0
    for i in range(k):
        d, n = c.devices[row, i], c.counts[row, i]
        cost = shard_cost(p, st, s, d, n, ep.devices[d].turn)
        c.busy[row, i] = cost.busy
        load = max(load, cost.load)
        transfer = max(transfer, cost.transfer)
        prefill = max(prefill, cost.prefill)
        decode = max(decode, cost.decode)
        occupied += cost.busy
        moved += cost.moved
        whole = ep.costs[line, d]
        hits += n * whole.prefix_hit
        contexts += n * whole.context_hit
        speed = min(speed, f.pairs[s, d].speed)
        if stage.kind == FIXED_STAGE:
            continue
        if st.resident[d, stage.model] > 0:
            resident += n
        if whole.evicted_kv > 0.0 or whole.evicted_weights > 0.0:
            kv, weights = evicted(p, st, s, d, n)
            evicted_kv = max(evicted_kv, kv)
            evicted_weights = max(evicted_weights, weights)
    queries = stage.queries
    features = ep.features[row]
    features[CANDIDATE.devices] = k / f.shards
    features[CANDIDATE.speed] = speed
    features[CANDIDATE.resident] = resident / queries
    features[CANDIDATE.prefix_hit] = hits / (queries * max(1, stage.prefix_tokens))
    features[CANDIDATE.context_hit] = contexts / (queries * max(1, stage.inherited_tokens))
    sums = Sums(load, transfer, prefill, decode, occupied, moved, evicted_kv, evicted_weights)
    write_costs(f, sums, features)
    write_children(p, st, f, s, c.devices[row, 0], features)
