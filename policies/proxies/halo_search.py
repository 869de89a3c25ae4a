"""Halo's beam search over matchings of stages to devices, epoch after epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fate_gym.jit import Block, Ints, Row, column, copy_block, inlined, kernel, scalar, table
from fate_gym.kernel.cost import prefill_seconds, prefix_hit_tokens
from fate_gym.kernel.prefixes import left_by
from fate_gym.kernel.schema import (
    FIXED_STAGE,
    PLACED,
    READY,
    TOOL_STAGE,
    WAITING,
    ProblemArrays,
    StateArrays,
)
from fate_gym.kernel.transfer import transfer_seconds

UNUSED = -2


class Move(Row):
    """A step of the search: a partial plan gives the current device a stage, or leaves it idle."""

    cost: float = column("f8", "of the plan that it leads to", "s")
    plan: int = column("i8", "the plan that it starts from, by its place in the beam")
    item: int = column("i8", "the stage, by its place in the search; -1: none")
    seconds: float = column("f8", "that the device spends", "s")


class PartialPlan(Block):
    """A partial plan of N stages on D devices."""

    cost: float = scalar("f8", "of all epochs so far", "s")

    taken: Any = table("i8", "N", text="epoch + 1 in which a stage runs, 0: not yet")
    open: Any = table("i8", "N", text="1: it could run in this epoch, and does not yet")
    place: Any = table("i8", "N", text="its device in the first epoch, or -1")
    took: Any = table("f8", "N", unit="s", text="what it takes there")
    model: Any = table("i8", "D", text="that a device holds, or UNUSED")
    last: Any = table("i8", "D", text="the stage that left its prefix there, or UNUSED")
    time: Any = table("f8", "D", unit="s", text="of its work in this epoch")


class Search(Block):
    """Tables of the search: at most N stages, D devices, B partial plans."""

    mu: float = scalar("f8", "weight of the slowest device of an epoch against the sum")
    epochs: int = scalar("i8", "that are searched")
    boosted: int = scalar("i8", "1: all resident models and transfers of inputs count as well")
    count: int = scalar("i8", "stages that are looked at")
    plans: int = scalar("i8", "in the beam")
    generation: int = scalar("i8", "row of `beams` that holds the beam")
    found: int = scalar("i8", "moves")

    stages: Any = table("i8", "N", text="stage numbers")
    warm: Any = table("f8", "N", "D", unit="s", text="inference with the prefix just computed")
    cold: Any = table("f8", "N", "D", unit="s", text="inference with what is cached now")
    transfer: Any = table("f8", "N", "D", unit="s", text="of the inputs, if boosted")
    best: Any = table("f8", "N", unit="s", text="the least of `warm`")
    latest: Any = table("i8", "N", text="last device of the epoch that can run it")
    moves: Any = table(Move, "B", text="the best so far, by cost")
    beams: Any = table("i8", 2, "B", text="addresses of partial plans: this beam and the next")


def new_search(p: ProblemArrays, beam: int, window: int) -> tuple[Search, list[PartialPlan]]:
    """Allocate searches of one problem: ``beam`` plans of ``window`` stages.

    Returns the search and both generations of plans, which must be kept alive with it.
    """
    devices = p.devices.size
    room = Search.allocate(N=window, D=devices, B=beam)
    plans = [PartialPlan.allocate(N=window, D=devices) for _ in range(2 * beam)]
    room.beams[:] = np.array([plan.address for plan in plans]).reshape(2, beam)
    return room, plans


@kernel
def search(p: ProblemArrays, st: StateArrays, workflows: Ints, workers: Ints, sr: Search) -> int:
    """Search and return the number of the best plan among those of both beams.

    ``workflows`` (W,) have arrived, ``workers`` (n,) are the devices of the first epoch.
    """
    _collect(p, st, workflows, sr)
    _price(p, st, sr)
    _begin(p, st, sr)
    for epoch in range(sr.epochs):
        if not _open_epoch(p, st, sr, epoch):
            break
        number = workers.size if epoch == 0 else p.devices.size
        for i in range(number):
            for n in range(sr.count):
                d = workers[i] if epoch == 0 else i
                if sr.cold[n, d] < np.inf:
                    sr.latest[n] = d
        for i in range(number):
            d = workers[i] if epoch == 0 else i
            sr.found = 0
            for b in range(sr.plans):
                _find_moves(p, st, sr, b, d, epoch, number - i)
            _make_moves(p, sr, d, epoch)
    winner = 0
    for b in range(sr.plans):
        if _plan(sr, b).cost < _plan(sr, winner).cost:
            winner = b
    return sr.generation * sr.moves.size + winner


@inlined
def _plan(sr: Search, b: int) -> PartialPlan:
    return PartialPlan(sr.beams[sr.generation, b])


@inlined
def _collect(p: ProblemArrays, st: StateArrays, workflows: Ints, sr: Search) -> None:
    """Collect ready stages, then waiting ones in topological order, as many as fit; no tools."""
    most = sr.stages.size
    sr.count = min(most, st.ready_count)
    for i in range(sr.count):
        sr.stages[i] = st.ready[i]
    for w in workflows:
        for i in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
            s = p.topological[i]
            waiting = st.stages[s].status == WAITING and p.stages[s].kind != TOOL_STAGE
            if waiting and sr.count < most:
                sr.stages[sr.count] = s
                sr.count += 1


@kernel
def _price(p: ProblemArrays, st: StateArrays, sr: Search) -> None:
    """Compute the seconds of each stage on each device."""
    for i in range(sr.count):
        s = sr.stages[i]
        stage = p.stages[s]
        n = stage.queries
        sr.best[i] = np.inf
        for d in range(p.devices.size):
            sr.cold[i, d] = sr.warm[i, d] = p.clean_seconds[s, d]
            sr.transfer[i, d] = 0.0
            if sr.warm[i, d] == np.inf:
                continue
            if sr.boosted and st.stages[s].status == READY and st.devices[d].drains_at < np.inf:
                sr.transfer[i, d], _ = transfer_seconds(p, st, s, d, 1.0, st.now)
            if stage.kind != FIXED_STAGE and stage.prefix >= 0:
                whole = float(stage.prefix_tokens)
                decode = p.decode_seconds[s, d]
                sr.warm[i, d] = decode + prefill_seconds(p, s, d, n, whole, 0.0)
                hit = prefix_hit_tokens(p, st, s, d)
                if hit > 0.0:
                    sr.cold[i, d] = decode + prefill_seconds(p, s, d, n, hit, 0.0)
            sr.best[i] = min(sr.best[i], sr.warm[i, d])


@inlined
def _begin(p: ProblemArrays, st: StateArrays, sr: Search) -> None:
    """Start with a beam of one empty plan, in which devices hold the model they used last."""
    sr.generation = 0
    sr.plans = 1
    plan = _plan(sr, 0)
    plan.cost = 0.0
    for i in range(sr.count):
        plan.taken[i] = 0
        plan.place[i] = -1
        plan.took[i] = 0.0
    for d in range(p.devices.size):
        last, used = UNUSED, 0
        for m in range(p.models.size):
            if st.resident[d, m] > used:
                last, used = m, st.resident[d, m]
        plan.model[d] = last
        plan.last[d] = UNUSED


@kernel
def _open_epoch(p: ProblemArrays, st: StateArrays, sr: Search, epoch: int) -> bool:
    """Begin an epoch in every plan; False: no plan has a stage that could run in it."""
    anything = False
    for b in range(sr.plans):
        plan = _plan(sr, b)
        for d in range(plan.time.size):
            plan.time[d] = 0.0
        for i in range(sr.count):
            plan.open[i] = plan.taken[i] == 0 and _unblocked(p, st, sr, plan, i, epoch)
            anything = anything or plan.open[i] == 1
    return anything


@inlined
def _unblocked(
    p: ProblemArrays, st: StateArrays, sr: Search, plan: PartialPlan, i: int, epoch: int
) -> bool:
    """Whether a stage could run in an epoch: ready, or all parents are placed or run earlier."""
    s = sr.stages[i]
    if st.stages[s].status == READY:
        return True
    if epoch == 0:
        return False
    for e in range(p.stages[s].parents_from, p.stages[s].parents_to):
        parent = p.edges[e].parent
        if st.stages[parent].status >= PLACED or p.stages[parent].kind == TOOL_STAGE:
            continue
        before = False
        for j in range(sr.count):
            if sr.stages[j] == parent:
                before = 0 < plan.taken[j] <= epoch
                break
        if not before:
            return False
    return True


@kernel
def _find_moves(
    p: ProblemArrays, st: StateArrays, sr: Search, b: int, d: int, epoch: int, left: int
) -> None:
    """List what plan ``b`` could do with device ``d``; ``left`` devices are still to be decided."""
    plan = _plan(sr, b)
    slowest = 0.0
    for other in range(plan.time.size):
        slowest = max(slowest, plan.time[other])
    available, able = 0, 0
    only_here = False
    for i in range(sr.count):
        if plan.open[i] == 0:
            continue
        available += 1
        if sr.cold[i, d] == np.inf:
            continue
        able += 1
        only_here = only_here or sr.latest[i] == d
        stage = p.stages[sr.stages[i]]
        m = stage.model
        seconds = sr.cold[i, d]
        last = plan.last[d]
        if last != UNUSED and left_by(p, last, sr.stages[i]) == stage.prefix_tokens:
            seconds = sr.warm[i, d]
        load = 0.0
        if m >= 0 and plan.model[d] != m and not (sr.boosted and st.resident[d, m]):
            load = p.load_seconds[m, d]
        seconds += max(load, sr.transfer[i, d]) if epoch == 0 else load
        cost = plan.cost + (1.0 - sr.mu) * (seconds - sr.best[i])
        cost += sr.mu * (max(slowest, seconds) - slowest)
        _keep(sr, cost, b, i, seconds)
    # A worker may stay idle if it must, or if enough other devices are left for every stage.
    if able == 0 or (available < left and not only_here):
        _keep(sr, plan.cost, b, -1, 0.0)


@kernel
def _keep(sr: Search, cost: float, plan: int, item: int, seconds: float) -> None:
    """Insert a move into the sorted list of the best."""
    most = sr.moves.size
    if sr.found == most and cost >= sr.moves[most - 1].cost:
        return
    j = min(sr.found, most - 1)
    while j > 0 and sr.moves[j - 1].cost > cost:
        sr.moves[j] = sr.moves[j - 1]
        j -= 1
    sr.moves[j].cost = cost
    sr.moves[j].plan = plan
    sr.moves[j].item = item
    sr.moves[j].seconds = seconds
    sr.found = min(sr.found + 1, most)


@kernel
def _make_moves(p: ProblemArrays, sr: Search, d: int, epoch: int) -> None:
    """Build the next beam from the plans that the best moves lead to."""
    for j in range(sr.found):
        move = sr.moves[j]
        plan = PartialPlan(sr.beams[1 - sr.generation, j])
        copy_block(plan, _plan(sr, move.plan))
        plan.cost = move.cost
        i = move.item
        if i < 0:
            continue
        stage = p.stages[sr.stages[i]]
        plan.taken[i] = epoch + 1
        plan.open[i] = 0
        plan.time[d] = move.seconds
        if stage.model >= 0:
            plan.model[d] = stage.model
            plan.last[d] = sr.stages[i] if stage.prefix >= 0 else UNUSED
        if epoch == 0:
            plan.place[i] = d
            plan.took[i] = move.seconds
    sr.plans = sr.found
    sr.generation = 1 - sr.generation
