"""Placements: their table, and the generator of candidates.

A stage has P = D + 3 (K - 1) candidate positions. Position ``d < D`` is device ``d`` alone. Three
groups of *teams* of k = 2..K devices each follow: the k earliest finishers, the k earliest
finishers that hold the model, and the k earliest finishers of one node.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fate_gym.jit import Block, Floats, Ints, Row, column, inlined, kernel, scalar, table
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.estimate import end_estimate
from fate_gym.kernel.schema import ProblemArrays, StateArrays

EARLIEST, HOLDERS, NEIGHBOURS = 0, 1, 2
GROUPS = 3
"""Number of groups of teams."""


class Placement(Row):
    """A placement of stage ``stage`` on the first ``width`` devices of its row."""

    stage: int = column("i8", "stage number, -1: none")
    width: int = column("i8", "devices used; 0: no placement")
    end: float = column("f8", "when the stage is expected to end", "s")
    later: float = column("f8", "what it costs later", "s")
    value: float = column("f8", "what a planner makes of it: smallest is best")


class Placements(Block):
    """A table of placements: the candidates, choices or plans of one instant."""

    count: int = scalar("i8", "rows that are filled")
    rows: Any = table(Placement, "R", text="one for each placement")
    devices: Any = table("i8", "R", "K", text="device numbers")
    counts: Any = table("i8", "R", "K", text="queries of each device")
    busy: Any = table("f8", "R", "K", unit="s", text="expected, from turn to end on each device")
    ends: Any = table("f8", "D", unit="s", text="scratch: the end on each single device")
    order: Any = table("i8", "D", text="scratch: devices by end")
    compared: Any = table("f8", "N", "D", text="what the devices of each choice are compared by")


def new_placements(rows: int, shards: int, devices: int = 0, *, noting: bool = False) -> Placements:
    """Allocate room for ``rows`` placements on up to ``shards`` devices each.

    With ``noting``, also for the values by which each row's devices are compared.
    """
    return Placements.allocate(R=rows, K=shards, D=devices, N=rows if noting else 0)


def candidate_count(devices: int, shards: int) -> int:
    """Return the number of candidate positions: D + 3 (K - 1)."""
    return devices + GROUPS * (shards - 1)


@kernel
def generate(p: ProblemArrays, st: StateArrays, s: int, shards: int, out: Placements) -> None:
    """Fill the candidates of ready stage ``s``, one row per position.

    Args:
        p: the problem.
        st: the state.
        s: the stage.
        shards: most devices of a placement, K.
        out: at least P rows, with scratch for D devices. A position without a legal placement, or
            with the team of an earlier group, gets width 0.
    """
    number = p.devices.size
    queries = p.stages[s].queries
    out.count = number + GROUPS * (shards - 1)
    for i in range(out.count):
        out.rows[i].stage = s
        out.rows[i].width = 0
    for d in range(number):
        out.ends[d] = end_estimate(p, st, s, d)
        if out.ends[d] < np.inf:
            out.rows[d].width = 1
            out.devices[d, 0] = d
            out.counts[d, 0] = queries
    most = min(shards, queries)
    if most < 2:
        return
    found = sort_devices(out.ends, out.order)
    for group in range(GROUPS):
        for k in range(2, most + 1):
            at = number + group * (shards - 1) + k - 2
            if find_team(p, st, s, out.order, found, group, k, out.devices[at]) and not _known(
                out, at, k, shards - 1, group
            ):
                out.rows[at].width = k
                split_queries(p, s, out.devices[at], k, out.counts[at])


@inlined
def _known(out: Placements, at: int, k: int, groups: int, group: int) -> bool:
    """Return whether an earlier group has the same team (all are ordered by finish time)."""
    for before in range(1, group + 1):
        other = at - before * groups
        if out.rows[other].width == k and same_team(out.devices[other], out.devices[at], k):
            return True
    return False


@inlined
def same_team(a: Ints, b: Ints, k: int) -> bool:
    """Return whether two teams of ``k`` devices are the same, in the same order."""
    same = True
    for i in range(k):
        same = same and a[i] == b[i]
    return same


@inlined
def sort_devices(ends: Floats, order: Ints) -> int:
    """Order the devices by (end, number); return how many have a finite end."""
    found = 0
    for d in range(ends.size):
        end = ends[d]
        if end == np.inf:
            continue
        i = found
        while i > 0 and ends[order[i - 1]] > end:
            order[i] = order[i - 1]
            i -= 1
        order[i] = d
        found += 1
    return found


@kernel
def find_team(
    p: ProblemArrays,
    st: StateArrays,
    s: int,
    order: Ints,
    found: int,
    group: int,
    k: int,
    team: Ints,
) -> bool:
    """Put the ``k`` devices of a group's team for stage ``s`` into ``team``; False if none.

    ``order[:found]`` are the devices that can run the stage, earliest end first.
    """
    if group == NEIGHBOURS:
        return _find_neighbours(p, order, found, k, team)
    model = p.stages[s].model
    if group == HOLDERS and model < 0:
        return False
    taken = 0
    for i in range(found):
        if group == EARLIEST or st.resident[order[i], model] > 0:
            team[taken] = order[i]
            taken += 1
            if taken == k:
                return True
    return False


@inlined
def _find_neighbours(p: ProblemArrays, order: Ints, found: int, k: int, team: Ints) -> bool:
    # Stop at the first device that completes k on some node: no team of one node ends earlier.
    for last in range(k - 1, found):
        node = p.devices[order[last]].node
        taken = 0
        for i in range(last + 1):
            if p.devices[order[i]].node == node:
                taken += 1
        if taken == k:
            taken = 0
            for i in range(last + 1):
                if p.devices[order[i]].node == node:
                    team[taken] = order[i]
                    taken += 1
            return True
    return False
