"""Device selection: how the devices of a stage are compared, and its best placement."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import FloatMatrix, Floats, Ints, inlined, kernel
from fate_gym.kernel.cost import prefill_seconds, prefix_hit_tokens, split_queries
from fate_gym.kernel.estimate import (
    drain_estimate,
    end_estimate,
    placement_end,
    strict_end_estimate,
)
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.prefixes import left_by
from fate_gym.kernel.schema import FIXED_STAGE, TOOL_STAGE, ProblemArrays, StateArrays
from fate_gym.kernel.transfer import over_link, transfer_seconds
from policies.list_scheduling.rules import STATE, STRICT, Rules


@inlined
def end_on(p: ProblemArrays, st: StateArrays, s: int, d: int, rule: int) -> float:
    """Estimate the finish of stage ``s`` on device ``d`` by the rule, seconds; inf: cannot run."""
    if rule == STRICT:
        return strict_end_estimate(p, st, s, d)
    return end_estimate(p, st, s, d)


@kernel
def device_ends(p: ProblemArrays, st: StateArrays, s: int, rule: int, ends: Floats) -> None:
    """Fill ``ends`` (D,) with the finish of stage ``s`` on each device, by the rule."""
    for d in range(ends.size):
        ends[d] = end_on(p, st, s, d, rule)


@kernel
def compared_ends(p: ProblemArrays, st: StateArrays, s: int, rules: Rules, ends: Floats) -> None:
    """Fill ``ends`` (D,) with the values by which the rules compare devices for stage ``s``."""
    device_ends(p, st, s, rules.rule, ends)
    if rules.ahead and p.stages[s].children_from < p.stages[s].children_to:
        look_ahead(p, st, s, rules.rule, ends)
    if rules.penalty.size > 0:
        for d in range(ends.size):
            ends[d] += rules.penalty[s, d]


@kernel
def best_placement(
    p: ProblemArrays, st: StateArrays, s: int, shards: int, out: Placements, row: int
) -> None:
    """Write the placement of stage ``s`` with the earliest finish to a row of ``out``.

    On entry ``out.ends`` (D,) holds the value of each single device; it is overwritten. Placements
    on 2 to ``shards`` devices use those that finish earliest. The row's value is the finish.
    """
    ends, devices, counts = out.ends, out.devices[row], out.counts[row]
    queries = p.stages[s].queries
    devices[0] = np.argmin(ends)
    best, width = ends[devices[0]], 1
    for k in range(2, min(shards, queries) + 1):
        ends[devices[k - 2]] = np.inf
        devices[k - 1] = np.argmin(ends)
        if ends[devices[k - 1]] == np.inf:
            break
        split_queries(p, s, devices, k, counts)
        end = placement_end(p, st, s, devices, counts, k)
        if end < best:
            best, width = end, k
    split_queries(p, s, devices, width, counts)
    out.rows[row].stage = s
    out.rows[row].width = width
    out.rows[row].value = best


# --- looking ahead -----------------------------------------------------------------------------


class Children(NamedTuple):
    """The C children of a stage by upward rank, and their costs on each device.

    Attributes:
        edges: (C,) numbers of the edges to them.
        others: (C, D) seconds of the transfers from other parents that are already placed.
        alone: (C, D) seconds of load and execution in the current state; inf: cannot run there.
        behind: (C, D) the same, directly after the stage on its device.
    """

    edges: Ints
    others: FloatMatrix
    alone: FloatMatrix
    behind: FloatMatrix


@kernel
def look_ahead(p: ProblemArrays, st: StateArrays, s: int, rule: int, ends: Floats) -> None:
    """Replace each finish of ``s`` by the latest tentative finish of its children after it.

    The children choose by upward rank, each the device where it ends first. Of their other
    parents, only those placed so far are considered. Source: Bittencourt, Sakellariou & Madeira,
    PDP 2010, pp. 27-34.
    """
    children = _children(p, st, s, rule)
    drains, free = np.empty(ends.size), np.empty(ends.size)
    for d in range(ends.size):
        drains[d] = drain_estimate(p, st, d)
    for d in range(ends.size):
        if ends[d] == np.inf:
            continue
        for q in range(ends.size):
            free[q] = drains[q]
        free[d] = latest = ends[d]
        for i in range(children.edges.size):
            edge = p.edges[children.edges[i]]
            if p.stages[edge.child].kind == TOOL_STAGE:
                latest = max(latest, ends[d] + p.stages[edge.child].tool_seconds)
                continue
            best, where = np.inf, -1
            for q in range(ends.size):
                end = _child_end(p, st, children, i, d, q, ends[d], free[q])
                if end < best:
                    best, where = end, q
            if where >= 0:  # some host is up
                free[where] = best
                latest = max(latest, best)
        ends[d] = latest


@inlined
def _child_end(
    p: ProblemArrays,
    st: StateArrays,
    children: Children,
    i: int,
    d: int,
    q: int,
    end: float,
    free: float,
) -> float:
    """The finish of child ``i`` on ``q``, free at ``free``; its parent ends on ``d`` at ``end``."""
    edge = p.edges[children.edges[i]]
    seconds = children.behind[i, q] if q == d else children.alone[i, q]
    if seconds == np.inf:
        return np.inf
    others = children.others[i, q]
    transfer = 0.0
    if edge.bytes > 0.0 and q != d:
        transfer = over_link(p, d, q, edge.bytes)
    if p.eager:
        return max(free, end + transfer, st.now + others) + seconds
    return max(free, end) + max(transfer, others) + seconds


@kernel
def _children(p: ProblemArrays, st: StateArrays, s: int, rule: int) -> Children:
    edges = _edges_by_rank(p, s)
    others = np.empty((edges.size, p.devices.size))
    alone, behind = np.empty(others.shape), np.empty(others.shape)
    for i in range(edges.size):
        edge = p.edges[edges[i]]
        c = edge.child
        for q in range(p.devices.size):
            alone[i, q] = behind[i, q] = p.clean_seconds[c, q]
            if p.stages[c].kind == TOOL_STAGE or alone[i, q] == np.inf:
                continue
            when = drain_estimate(p, st, q) if p.contention else st.now
            others[i, q], _ = transfer_seconds(p, st, c, q, 1.0, when)
            if rule == STATE and p.stages[c].kind != FIXED_STAGE:
                alone[i, q], behind[i, q] = _child_seconds(p, st, s, c, q, edge.inherited_tokens)
    return Children(edges, others, alone, behind)


@inlined
def _edges_by_rank(p: ProblemArrays, s: int) -> Ints:
    """Return the edges (C,) to the children of stage ``s``, largest upward rank first."""
    first = p.stages[s].children_from
    edges = np.empty(p.stages[s].children_to - first, np.int64)
    for n in range(edges.size):
        edge = p.out_edges[first + n]
        rank = p.stages[p.edges[edge].child].upward_rank
        i = n
        while i > 0 and p.stages[p.edges[edges[i - 1]].child].upward_rank < rank:
            edges[i] = edges[i - 1]
            i -= 1
        edges[i] = edge
    return edges


@inlined
def _child_seconds(
    p: ProblemArrays, st: StateArrays, s: int, c: int, q: int, inherited: int
) -> tuple[float, float]:
    """Seconds to load, prefill and decode child ``c`` on ``q``: now, and directly after ``s``."""
    stage = p.stages[c]
    load = 0.0 if st.resident[q, stage.model] else p.load_seconds[stage.model, q]
    decode = p.decode_seconds[c, q]
    hit = prefix_hit_tokens(p, st, c, q)
    now = load + decode + prefill_seconds(p, c, q, stage.queries, hit, 0.0)
    if p.stages[s].model != stage.model:
        return now, now
    hit = max(hit, float(left_by(p, s, c)))
    return now, decode + prefill_seconds(p, c, q, stage.queries, hit, float(inherited))
