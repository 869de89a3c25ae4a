"""Part 2 of FATE: what a placement leaves behind for the stages that come later.

score(v, S) = immediate cost
            + horizon x sum over descendants u of decay^distance x (best cost of u after v -> S)
            + regret of the weights that v -> S evicts and that are needed again
            + price of a scarce device for a stage that could run elsewhere

after FATE (Huang et al., arXiv 2605.07238). Each of the four dimensions of state has a weight:
residency (loads of descendants, regret), locality (transfers to them), prefix reuse (what they
find cached), reachability (the price). "Best cost after" is exact in the model: the placement is
committed to a scratch state and the descendant's cheapest device is looked up there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.compiled import inlined
from fate_gym.sim.cost import (
    context_hit_tokens,
    drain_estimate,
    prefill_seconds,
    prefix_hit_tokens,
    shard_cost,
    transfer_seconds,
)
from fate_gym.sim.engine import reserve
from fate_gym.sim.layout import MODEL_STAGE, PLACED, Array, Log, ProblemView, StateView
from fate_gym.sim.scratch import restore

MOST_DESCENDANTS = 24
"""Kinds of descendants of one stage that are looked at; the nearest first."""


class Weights(NamedTuple):
    """Weights of the score; 0 switches a term off. ``depth`` is the horizon in edges."""

    residency: float
    locality: float
    prefix: float
    reachability: float
    horizon: float
    decay: float
    depth: int


@inlined
def future_demand(p: ProblemView, st: StateView) -> tuple[Array, Array]:
    """(M,) known stages still to be placed by model; (D,) share of scarce work by device, 0..1."""
    need = np.zeros(max(1, p.models.size), np.int64)
    scarce = np.zeros(p.devices.size)
    total = 0.0
    for w in range(p.workflows.size):
        for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            # Stages of workflows that have not arrived still miss their arrival.
            if st.stages[s].status >= PLACED or not _known(p, st, w):
                continue
            stage = p.stages[s]
            if stage.model < 0:
                continue
            need[stage.model] += 1
            total += stage.mean_seconds
            hosts = 0
            for d in range(p.devices.size):
                hosts += p.clean_seconds[s, d] < np.inf
            if 2 * hosts <= p.devices.size:
                for d in range(p.devices.size):
                    if p.clean_seconds[s, d] < np.inf:
                        scarce[d] += stage.mean_seconds / hosts
    if total > 0.0:
        for d in range(p.devices.size):
            scarce[d] = min(1.0, scarce[d] * p.devices.size / total)
    return need, scarce


@inlined
def _known(p: ProblemView, st: StateView, w: int) -> bool:
    return p.workflows[w].arrival <= st.head[0].now


@inlined
def descendants(p: ProblemView, s: int, depth: int, found: Array, distance: Array) -> int:
    """The nearest descendants of ``s``, one of each (model, prefix) kind and distance."""
    count = 0
    begin, end = -1, 0
    for step in range(1, depth + 1):
        if step > 1 and begin == end:
            break
        for i in range(begin, end):
            parent = s if i < 0 else found[i]
            for j in range(p.stages[parent].children_from, p.stages[parent].children_to):
                child = p.edges[p.out_edges[j]].child
                if p.stages[child].kind == MODEL_STAGE and not _alike(
                    p, found, distance, count, child, step
                ):
                    found[count] = child
                    distance[count] = step
                    count += 1
                    if count == found.size:
                        return count
        begin, end = max(end, 0), count
    return count


@inlined
def _alike(
    p: ProblemView, found: Array, distance: Array, count: int, child: int, step: int
) -> bool:
    for i in range(count):
        if found[i] == child:
            return True
        if (
            distance[i] == step
            and p.stages[found[i]].model == p.stages[child].model
            and p.stages[found[i]].prefix == p.stages[child].prefix
        ):
            return True
    return False


@inlined
def best_cost(p: ProblemView, st: StateView, u: int, when: float, weights: Weights) -> float:
    """Seconds from ``when`` to the end of ``u`` on its best device, as far as it is known."""
    best = np.inf
    for d in range(p.devices.size):
        if p.clean_seconds[u, d] == np.inf:
            continue
        stage = p.stages[u]
        load = 0.0
        if st.resident[d, stage.model] == 0:
            load = weights.residency * p.load_seconds[stage.model, d]
        transfer = 0.0
        if weights.locality > 0.0:
            turn = when
            if p.head[0].contention:
                turn = max(when, drain_estimate(p, st, d))
            seconds, _ = transfer_seconds(p, st, u, d, 1.0, turn)
            transfer = weights.locality * seconds
        run = p.clean_seconds[u, d]
        if weights.prefix > 0.0:
            prefix = prefix_hit_tokens(p, st, u, d)
            context = context_hit_tokens(p, st, u, d)
            if prefix > 0.0 or context > 0.0:
                cached = p.decode_seconds[u, d] + prefill_seconds(
                    p, u, d, int(stage.queries), prefix, context
                )
                run -= weights.prefix * (run - cached)
        wait = max(0.0, drain_estimate(p, st, d) - when)
        best = min(best, wait + max(load, transfer) + run)
    return best


@inlined
def score_placement(
    p: ProblemView,
    st: StateView,
    after: StateView,
    log: Log,
    s: int,
    devices: Array,
    counts: Array,
    width: int,
    heirs: Array,
    distance: Array,
    heir_count: int,
    need: Array,
    scarce: Array,
    weights: Weights,
    busy: Array,
) -> tuple[float, float]:
    """(end of ``s``, what the placement costs later), seconds; fills ``busy`` (K,) per device.

    ``after`` is a copy of ``st``, and is one again at the end.
    """
    now = st.head[0].now
    stage = p.stages[s]
    later = 0.0
    restricted = True
    for i in range(width):
        d = devices[i]
        turn = drain_estimate(p, st, d)
        load, transfer, prefill, decode, _ = shard_cost(p, st, s, d, counts[i], turn)
        busy[i] = max(load, transfer) + prefill + decode
    for d in range(p.devices.size):
        if scarce[d] == 0.0 and p.clean_seconds[s, d] < np.inf:
            restricted = False
    if not restricted:
        for i in range(width):
            later += weights.reachability * scarce[devices[i]] * busy[i]
    end = reserve(p.buffer, after.buffer, log, s, devices, counts, width)
    if stage.model >= 0:
        later += _consequences(
            p, st, after, devices, width, heirs, distance, heir_count, need, weights, max(now, end)
        )
    restore(p, st, after, s, devices, width)
    return end, later


@inlined
def _consequences(
    p: ProblemView,
    st: StateView,
    after: StateView,
    devices: Array,
    width: int,
    heirs: Array,
    distance: Array,
    heir_count: int,
    need: Array,
    weights: Weights,
    when: float,
) -> float:
    """Regret of evicted weights, and what the descendants cost from ``when`` on, in ``after``."""
    later = 0.0
    for i in range(width):
        d = devices[i]
        for m in range(p.models.size):
            if need[m] > 0 and st.resident[d, m] > 0 and after.resident[d, m] == 0:
                holders = 0
                for other in range(p.devices.size):
                    holders += after.resident[other, m] > 0
                later += weights.residency * p.load_seconds[m, d] / (1.0 + holders)
    if weights.horizon > 0.0:
        for i in range(heir_count):
            gain = best_cost(p, after, heirs[i], when, weights)
            later += weights.horizon * weights.decay ** distance[i] * gain
    return later
