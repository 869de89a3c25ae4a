"""A proxy of Halo: matches ready stages to idle devices, searching the known graph by epochs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled, inlined
from fate_gym.sim.cost import prefill_seconds, prefix_hit_tokens, transfer_seconds
from fate_gym.sim.layout import (
    FIXED_STAGE,
    PLACED,
    READY,
    TOOL_STAGE,
    WAITING,
    Array,
    Buffer,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)
from policies.base import Assignment, DecisionView

UNUSED = -2


class Halo:
    """Beam search over matchings of stages to devices, by what loading and running costs.

    Source: Shen et al., "Halo: Batch Query Processing and Optimization for Agentic Workflows"
    (arXiv 2509.02121).

    Taken: a worker's context is the model it holds and the prefix it has computed; the time of a
    worker in an epoch is T_w = load + inference after prefix hits; a plan, epoch after epoch over
    the graph of the admitted workflows, costs mu max T_w + (1 - mu) sum T_w; beam search keeps the
    4 best partial plans; when workers are left over, the heavy stages (at least 0.6 of the
    heaviest) are split evenly over them.

    Inferred: mu; the search looks ``epochs`` epochs and ``window`` stages ahead, and its first
    epoch fills the devices that are idle now; what is not placed counts as if it ran on its best
    device; a split is made only if the model says that it ends earlier.

    Sees neither links between devices, arrivals, nor more than the last model on each device.

    Args:
        name: the policy's name in results.
        beam: partial plans.
        mu: weight of the slowest worker against the sum.
        epochs: that are searched.
        window: stages that are looked at.
        split: demand, as a share of the largest, from which a stage may be split.
        boosted: all resident models and the transfers of inputs count as well.
    """

    def __init__(
        self,
        *,
        name: str = "halo",
        beam: int = 4,
        mu: float = 0.5,
        epochs: int = 3,
        window: int = 128,
        split: float = 0.6,
        boosted: bool = False,
    ) -> None:
        self.name = name
        self._beam, self._mu, self._epochs, self._window = beam, float(mu), epochs, window
        self._split, self._boosted = split, boosted

    def reset(self, view: DecisionView, seed: int) -> None:
        """Make room for a copy of the state."""
        self._scratch: Buffer | None = None
        self._shards = int(view.compiled.shape[5])

    def decide(self, view: DecisionView) -> Sequence[Assignment]:
        """Match stages to the devices that are idle."""
        if not view.any_idle:
            return []
        self._scratch = view.fork(self._scratch)
        idle = view.idle()
        stages, devices, seconds = search(
            view.compiled.buffer,
            self._scratch,
            np.asarray(view.arrived, np.int64),
            idle,
            self._beam,
            self._mu,
            self._epochs,
            self._window,
            self._boosted,
        )
        placements = {
            int(stage): [int(device)] for stage, device in zip(stages, devices, strict=True)
        }
        idle[devices] = False
        demand = dict(zip(placements, seconds.tolist(), strict=True))
        self._share(view, placements, demand, np.flatnonzero(idle))
        return [
            Assignment(stage, tuple(used), even(view.request(stage).queries, len(used)))
            for stage, used in placements.items()
        ]

    def _share(
        self,
        view: DecisionView,
        placements: dict[int, list[int]],
        demand: dict[int, float],
        spare: NDArray[np.int64],
    ) -> None:
        """Split the heavy stages over the devices that are left, where that ends earlier."""
        if not placements or not spare.size or len(view.ready) > len(placements):
            return
        heaviest = max(demand.values())
        left = spare.tolist()
        for stage in sorted(placements, key=lambda stage: -demand[stage]):
            if demand[stage] < self._split * heaviest:
                break
            queries = view.request(stage).queries
            clean = view.clean_seconds(stage)
            load = np.where(view.resident(stage), 0.0, view.load_seconds(stage))
            used = placements[stage]
            for device in [d for d in left if clean[d] < np.inf]:
                if len(used) >= min(self._shards, queries):
                    break
                wider = [*used, device]
                # The first device is in the search's estimate; the others load and run their share.
                ends = [demand[stage] / len(wider)]
                ends += [load[d] + clean[d] / len(wider) for d in wider[1:]]
                now = [demand[stage] / len(used)]
                now += [load[d] + clean[d] / len(used) for d in used[1:]]
                if max(ends) < max(now):
                    used.append(device)
                    left.remove(device)


def even(queries: int, shards: int) -> tuple[int, ...] | None:
    """Queries of each of ``shards`` even shards; None for a single one."""
    if shards == 1:
        return None
    return tuple(queries // shards + (i < queries % shards) for i in range(shards))


@compiled
def search(
    problem: Buffer,
    state: Buffer,
    workflows: Array,
    idle: Array,
    beam: int,
    mu: float,
    epochs: int,
    window: int,
    boosted: bool,
) -> tuple[Array, Array, Array]:
    """The first epoch of the best plan: (n,) stages, their devices, and their seconds.

    Args:
        problem: the problem's buffer.
        state: a fork of the state.
        workflows: those that have arrived.
        idle: (D,) devices of the first epoch; later epochs have all.
        beam: partial plans that are kept.
        mu: weight of the slowest worker.
        epochs: that are searched.
        window: stages that are looked at.
        boosted: all resident models and the transfers of inputs count as well.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    number = p.devices.size
    items = _items(p, st, workflows, window)
    count = items.size
    warm, cold, transfer = _seconds(p, st, items, boosted)
    best = np.empty(count)
    for i in range(count):
        best[i] = np.inf
        for d in range(number):
            best[i] = min(best[i], warm[i, d])
    # Partial plans: what is taken (epoch + 1, 0: not yet), where and for how long in the first
    # epoch, what each worker holds, its time in this epoch, the cost of the epochs before.
    taken = np.zeros((beam, count), np.int64)
    place = np.full((beam, count), -1, np.int64)
    took = np.zeros((beam, count))
    model = np.full((beam, number), UNUSED, np.int64)
    prefix = np.full((beam, number), UNUSED, np.int64)
    time = np.zeros((beam, number))
    cost = np.zeros(beam)
    plans = 1
    for d in range(number):
        last, used = UNUSED, 0
        for m in range(p.models.size):
            if st.resident[d, m] > used:
                last, used = m, st.resident[d, m]
        model[0, d] = last
    open_items = np.zeros((beam, count), np.bool_)
    latest = np.empty(count, np.int64)
    key = np.empty(beam)
    source = np.empty(beam, np.int64)
    chosen = np.empty(beam, np.int64)
    spent = np.empty(beam)
    for epoch in range(epochs):
        time[:] = 0.0
        anything = False
        for b in range(plans):
            for i in range(count):
                open_items[b, i] = taken[b, i] == 0 and _unblocked(p, st, items, taken[b], i, epoch)
                anything = anything or open_items[b, i]
        if not anything:
            break
        left = 0
        for d in range(number):
            if epoch > 0 or idle[d]:
                left += 1
                for i in range(count):
                    if cold[i, d] < np.inf:
                        latest[i] = d
        for d in range(number):
            if epoch == 0 and not idle[d]:
                continue
            found = 0
            for b in range(plans):
                slowest = 0.0
                for other in range(number):
                    slowest = max(slowest, time[b, other])
                available, able = 0, 0
                only_here = False
                for i in range(count):
                    if not open_items[b, i]:
                        continue
                    available += 1
                    if cold[i, d] == np.inf:
                        continue
                    able += 1
                    only_here = only_here or latest[i] == d
                    s = items[i]
                    m = p.stages[s].model
                    seconds = cold[i, d]
                    if p.stages[s].prefix >= 0 and prefix[b, d] == p.stages[s].prefix:
                        seconds = warm[i, d]
                    load = 0.0
                    if m >= 0 and model[b, d] != m and not (boosted and st.resident[d, m]):
                        load = p.load_seconds[m, d]
                    seconds += max(load, transfer[i, d]) if epoch == 0 else load
                    value = cost[b] + (1.0 - mu) * (seconds - best[i])
                    value += mu * (max(slowest, seconds) - slowest)
                    found = _keep(key, source, chosen, spent, found, value, b, i, seconds)
                # A worker may stay idle if it has to, or if others are left for every stage.
                if able == 0 or (available < left and not only_here):
                    found = _keep(key, source, chosen, spent, found, cost[b], b, -1, 0.0)
            left -= 1
            taken, place, took = taken[source[:found]], place[source[:found]], took[source[:found]]
            model, prefix = model[source[:found]], prefix[source[:found]]
            time, open_items = time[source[:found]], open_items[source[:found]]
            cost = key[:found].copy()
            plans = found
            for b in range(plans):
                i = chosen[b]
                if i < 0:
                    continue
                s = items[i]
                taken[b, i] = epoch + 1
                open_items[b, i] = False
                time[b, d] = spent[b]
                if p.stages[s].model >= 0:
                    model[b, d] = p.stages[s].model
                    prefix[b, d] = p.stages[s].prefix
                if epoch == 0:
                    place[b, i] = d
                    took[b, i] = spent[b]
    winner = np.argmin(cost[:plans])
    first = np.flatnonzero(place[winner] >= 0)
    return items[first], place[winner][first], took[winner][first]


@inlined
def _keep(
    key: Array,
    source: Array,
    chosen: Array,
    spent: Array,
    found: int,
    value: float,
    b: int,
    i: int,
    seconds: float,
) -> int:
    """Insert a partial plan into the sorted list of the best; returns its length."""
    if found == key.size and value >= key[found - 1]:
        return found
    j = min(found, key.size - 1)
    while j > 0 and key[j - 1] > value:
        key[j], source[j], chosen[j], spent[j] = (
            key[j - 1],
            source[j - 1],
            chosen[j - 1],
            spent[j - 1],
        )
        j -= 1
    key[j], source[j], chosen[j], spent[j] = value, b, i, seconds
    return min(found + 1, key.size)


@inlined
def _items(p: ProblemView, st: StateView, workflows: Array, window: int) -> Array:
    """Ready stages, then waiting ones in topological order; at most ``window``. No tools."""
    items = np.empty(window, np.int64)
    count = 0
    for i in range(st.head[0].ready):
        if count < window:
            items[count] = st.ready[i]
            count += 1
    for w in workflows:
        for i in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            s = p.topological[i]
            if count < window and st.stages[s].status == WAITING and p.stages[s].kind != TOOL_STAGE:
                items[count] = s
                count += 1
    return items[:count]


@inlined
def _seconds(
    p: ProblemView, st: StateView, items: Array, boosted: bool
) -> tuple[Array, Array, Array]:
    """(n, D) inference with the prefix just computed, with what is cached now; transfers."""
    number = p.devices.size
    warm = np.empty((items.size, number))
    cold = np.empty((items.size, number))
    transfer = np.zeros((items.size, number))
    for i in range(items.size):
        s = items[i]
        for d in range(number):
            cold[i, d] = warm[i, d] = p.clean_seconds[s, d]
            if warm[i, d] == np.inf:
                continue
            if boosted and st.stages[s].status == READY and st.devices[d].drains_at < np.inf:
                transfer[i, d], _ = transfer_seconds(p, st, s, d, 1.0, st.head[0].now)
            if p.stages[s].kind == FIXED_STAGE or p.stages[s].prefix < 0:
                continue
            n = int(p.stages[s].queries)
            whole = float(p.stages[s].prefix_tokens)
            warm[i, d] = p.decode_seconds[s, d] + prefill_seconds(p, s, d, n, whole, 0.0)
            hit = prefix_hit_tokens(p, st, s, d)
            if hit > 0.0:
                cold[i, d] = p.decode_seconds[s, d] + prefill_seconds(p, s, d, n, hit, 0.0)
    return warm, cold, transfer


@inlined
def _unblocked(
    p: ProblemView, st: StateView, items: Array, taken: Array, i: int, epoch: int
) -> bool:
    """Whether a stage could run in an epoch: ready, or all parents placed or taken before it."""
    s = items[i]
    if st.stages[s].status == READY:
        return True
    if epoch == 0:
        return False
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        parent = p.edges[e].parent
        if st.stages[parent].status >= PLACED or p.stages[parent].kind == TOOL_STAGE:
            continue
        before = False
        for j in range(items.size):
            if items[j] == parent:
                before = 0 < taken[j] <= epoch
                break
        if not before:
            return False
    return True
