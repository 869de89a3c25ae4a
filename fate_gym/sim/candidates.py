"""Candidate placements of a stage: one generator for every policy and for the environment.

Position ``d < D`` is device ``d`` alone. Then follow, for k = 2..K each, the k earliest
finishers, the k holders of the model that finish first, and the k of one node that finish first.
A position without a legal or new placement has width 0.
"""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled
from fate_gym.sim.cost import end_estimate, split_queries
from fate_gym.sim.layout import Array, ProblemView, StateView


def candidate_count(devices: int, shards: int) -> int:
    """Positions of the generator: D + 3 (K - 1)."""
    return devices + 3 * (shards - 1)


@compiled
def generate(
    p: ProblemView, st: StateView, s: int, shards: int, widths: Array, devices: Array, counts: Array
) -> None:
    """Fill the candidates of ready stage ``s``.

    Args:
        p: the problem.
        st: the state.
        s: the stage.
        shards: most devices of a placement.
        widths: (P,) devices used, 0: no candidate.
        devices: (P, K).
        counts: (P, K) queries of each device.
    """
    number = p.devices.size
    widths[:] = 0
    ends = np.empty(number)
    for d in range(number):
        ends[d] = end_estimate(p, st, s, d)
        if ends[d] < np.inf:
            widths[d] = 1
            devices[d, 0] = d
            counts[d, 0] = p.stages[s].queries
    most = min(shards, p.stages[s].queries)
    if most < 2:
        return
    order = np.argsort(ends, kind="mergesort")
    model = p.stages[s].model
    for k in range(2, most + 1):
        first = number + (k - 2)
        _take(p, s, order, ends, np.ones(number, np.bool_), k, first, widths, devices, counts)
        if model >= 0:
            holders = st.resident[:, model] > 0
            _take(p, s, order, ends, holders, k, first + shards - 1, widths, devices, counts)
        node = _best_node(p, order, ends, k)
        if node >= 0:
            inside = _inside(p, node)
            last = first + 2 * (shards - 1)
            _take(p, s, order, ends, inside, k, last, widths, devices, counts)


@compiled
def _take(
    p: ProblemView,
    s: int,
    order: Array,
    ends: Array,
    allowed: Array,
    k: int,
    position: int,
    widths: Array,
    devices: Array,
    counts: Array,
) -> None:
    found = 0
    for i in range(order.size):
        d = order[i]
        if ends[d] < np.inf and allowed[d]:
            devices[position, found] = d
            found += 1
            if found == k:
                break
    if found < k or _known(devices, widths, position, k, p.devices.size):
        return
    widths[position] = k
    split_queries(p, s, devices[position], k, counts[position])


@compiled
def _known(devices: Array, widths: Array, position: int, k: int, first: int) -> bool:
    """Whether an earlier candidate uses the same devices (all lists are in order of finish)."""
    for i in range(first, position):
        if widths[i] == k:
            same = True
            for j in range(k):
                same = same and devices[i, j] == devices[position, j]
            if same:
                return True
    return False


@compiled
def _best_node(p: ProblemView, order: Array, ends: Array, k: int) -> int:
    """The node whose k-th finisher is earliest, -1 if no node has k."""
    found = np.zeros(p.head[0].nodes, np.int64)
    for i in range(order.size):
        d = order[i]
        if ends[d] == np.inf:
            return -1
        node = p.devices[d].node
        found[node] += 1
        if found[node] == k:
            return node
    return -1


@compiled
def _inside(p: ProblemView, node: int) -> Array:
    inside = np.zeros(p.devices.size, np.bool_)
    for d in range(p.devices.size):
        inside[d] = p.devices[d].node == node
    return inside
