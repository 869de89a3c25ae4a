"""The observed placements on several devices."""

from __future__ import annotations

from fate_gym.env.features import CANDIDATE, CANDIDATE_WIDTH, saturate
from fate_gym.env.observe.costs import cost_of_team, write_placement
from fate_gym.env.schema import EpisodeArrays, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.placements import GROUPS, Placements, find_team, same_team, sort_devices


@inlined
def withdraw(ep: EpisodeArrays, c: Placements, row: int) -> None:
    """Remove a placement that does not exist now."""
    if c.rows[row].width > 0:
        c.rows[row].width = 0
        for i in range(CANDIDATE_WIDTH):
            ep.features[row, i] = 0.0


@kernel
def update_teams(run: Run, line: int, new: bool, best: float) -> None:
    """Update the placements of a line on two or more devices.

    The scratch ``ends`` has the end on each single device, and ``best`` is the earliest of them.
    ``new``: the line has just been taken.
    """
    p, st, f, ep, c = run.problem, run.state, run.facts, run.episode, run.placements
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
                cost_of_team(run, row, ep.team_cost[0])
                write_placement(run, row, ep.team_cost[0])
            _write_times(run, row, best, stale)


@inlined
def _is_team(ep: EpisodeArrays, c: Placements, row: int, k: int) -> bool:
    """Return whether a placement is on exactly ``ep.team[:k]``, in that order."""
    return c.rows[row].width == k and same_team(c.devices[row], ep.team, k)


@inlined
def _write_times(run: Run, row: int, best: float, stale: bool) -> None:
    """Write the features of a placement that change with time; ``stale``: its cost is new."""
    f, ep, c = run.facts, run.episode, run.placements
    k = c.rows[row].width
    end, turn, demand, free = 0.0, 0.0, 0.0, True
    features = ep.features[row]
    if run.problem.batching:
        for i in range(k):
            end = max(end, ep.ends[row, i])
            demand = max(demand, ep.devices[c.devices[row, i]].demand)
        if stale:
            turn = saturate(ep.team_cost[0].begin - run.state.now, f.time_scale)
            free = ep.team_cost[0].admits != 0
        else:
            # Still valid: they are of this instant, as otherwise all devices would have changed.
            turn, free = features[CANDIDATE.turn], features[CANDIDATE.admits] != 0.0
    else:
        for i in range(k):
            dev = ep.devices[c.devices[row, i]]
            end = max(end, dev.turn + c.busy[row, i])
            turn = max(turn, dev.turn_feature)
            demand = max(demand, dev.demand)
            free = free and dev.admits != 0
    end += (k - 1) * run.problem.gather_s
    later = end - best
    c.rows[row].end = end
    features[CANDIDATE.turn] = turn
    features[CANDIDATE.admits] = free
    features[CANDIDATE.end] = saturate(end - run.state.now, f.time_scale)
    features[CANDIDATE.later] = later / (abs(later) + f.time_scale)
    features[CANDIDATE.demand] = demand
