"""Part 2 of FATE: the score of a placement, including what it costs later stages.

score(v, S) = immediate cost
            + delay of others in the same batches (batching devices)
            + horizon x sum over descendants u of decay^distance x (best cost of u after v -> S)
            + regret of the weights that v -> S evicts and that are needed again
            + price of a scarce device for a stage that could run elsewhere

after FATE (Huang et al., arXiv 2605.07238). Each of the four dimensions of state has a weight:
residency (loads of descendants, regret), locality (transfers to them), prefix reuse (what they
find cached), reachability (the price). "Best cost after" is exact in the model: the placement is
committed to a scratch state, in which the descendant's cheapest device is found.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fate_gym.jit import Block, inlined, kernel, scalar, table
from fate_gym.kernel.batching.paths import leave_path
from fate_gym.kernel.commit import reserve
from fate_gym.kernel.cost import context_hit_tokens, prefill_seconds, prefix_hit_tokens
from fate_gym.kernel.estimate import cost_beside, drain_estimate
from fate_gym.kernel.memory import compute_path
from fate_gym.kernel.openings import starts_now
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.prefixes import has_prefix
from fate_gym.kernel.schema import (
    MODEL_STAGE,
    PLACED,
    LogArrays,
    ProblemArrays,
    StateArrays,
)
from fate_gym.kernel.transfer import transfer_seconds
from fate_gym.kernel.undo import take_back
from policies.fate.kinds import interchangeable

MOST_DESCENDANTS = 24
"""Most kinds of descendants considered per stage; the nearest first."""


class Weights(NamedTuple):
    """Weights of the score; 0 switches a term off. ``depth`` is the horizon in edges."""

    residency: float
    locality: float
    prefix: float
    reachability: float
    horizon: float
    decay: float
    depth: int


class Outlook(Block):
    """Quantities that scores look up, and scratch. D devices, M models, H descendants."""

    descendant_count: int = scalar("i8", "of the stage at hand")
    free: Any = table("f8", "D", unit="s", text="from now until the device is free")
    drains: Any = table("f8", "D", unit="s", text="when its queue is expected to drain")
    others: Any = table("f8", "D", unit="s", text="batching: sum of the ends of its shards")
    drains_after: Any = table(
        "f8", "D", unit="s", text="when it drains behind the placement at hand"
    )
    need: Any = table("i8", "M", text="known stages still to be placed, by model")
    scarce: Any = table("f8", "D", text="share of work that few devices can do, 0..1")
    descendants: Any = table("i8", "H", text="of the stage at hand, nearest first")
    distances: Any = table("i8", "H", text="edges to them")


class Frontier(NamedTuple):
    """The arrays on which candidates are scored.

    Attributes:
        problem: as the planner sees it.
        start: current state of the run.
        after: scratch; a copy of ``start`` between calls.
        log: a log without rows.
        generated: all placements of the current stage.
        candidates: the best placements of each stage.
        outlook: demand, device times and descendants.
    """

    problem: ProblemArrays
    start: StateArrays
    after: StateArrays
    log: LogArrays
    generated: Placements
    candidates: Placements
    outlook: Outlook


@kernel
def find_demand(p: ProblemArrays, st: StateArrays, outlook: Outlook) -> None:
    """Fill how many stages need each model, and how scarce each device is."""
    need, scarce = outlook.need, outlook.scarce
    for m in range(need.size):
        need[m] = 0
    for d in range(scarce.size):
        scarce[d] = 0.0
    total = 0.0
    for s in range(p.stages.size):
        stage = p.stages[s]
        # The planner does not know of workflows that have not arrived.
        known = st.workflows[stage.workflow].arrived_at <= st.now
        if st.stages[s].status >= PLACED or not known or stage.model < 0:
            continue
        need[stage.model] += 1
        total += stage.mean_seconds
        hosts = 0
        for d in range(scarce.size):
            hosts += p.clean_seconds[s, d] < np.inf
        if 2 * hosts <= scarce.size:
            for d in range(scarce.size):
                if p.clean_seconds[s, d] < np.inf:
                    scarce[d] += stage.mean_seconds / hosts
    if total > 0.0:
        for d in range(scarce.size):
            scarce[d] = min(1.0, scarce[d] * scarce.size / total)


@kernel
def find_descendants(p: ProblemArrays, s: int, depth: int, outlook: Outlook) -> None:
    """Fill the nearest descendants of ``s`` that run a model, one of each kind and distance."""
    outlook.descendant_count = 0
    begin, end = -1, 0
    for step in range(1, depth + 1):
        for i in range(begin, end):
            parent = s if i < 0 else outlook.descendants[i]
            for j in range(p.stages[parent].children_from, p.stages[parent].children_to):
                child = p.edges[p.out_edges[j]].child
                if p.stages[child].kind == MODEL_STAGE and not _known(p, outlook, child, step):
                    outlook.descendants[outlook.descendant_count] = child
                    outlook.distances[outlook.descendant_count] = step
                    outlook.descendant_count += 1
                    if outlook.descendant_count == MOST_DESCENDANTS:
                        return
        begin, end = max(end, 0), outlook.descendant_count


@inlined
def _known(p: ProblemArrays, outlook: Outlook, child: int, step: int) -> bool:
    for i in range(outlook.descendant_count):
        found = outlook.descendants[i]
        if found == child:
            return True
        if outlook.distances[i] == step and interchangeable(p, found, child):
            return True
    return False


@kernel
def score(f: Frontier, weights: Weights, row: int) -> None:
    """Fill in a generated placement's end, later cost, value and busy seconds."""
    p, st, after, given = f.problem, f.start, f.after, f.generated
    placement, devices, counts = given.rows[row], given.devices[row], given.counts[row]
    s, width = placement.stage, placement.width
    later = 0.0
    for i in range(width):
        d = devices[i]
        cost = cost_beside(p, st, s, d, counts[i], f.outlook.drains[d], f.outlook.others[d])
        given.busy[row, i] = cost.busy
        later += cost.delay
    if not _is_restricted(p, f.outlook, s):
        for i in range(width):
            scarce = f.outlook.scarce[devices[i]]
            later += weights.reachability * scarce * given.busy[row, i]
    end = reserve(p, after, f.log, s, devices, counts, width, 0)
    if p.stages[s].model >= 0:
        for i in range(width):
            f.outlook.drains_after[devices[i]] = drain_estimate(p, after, devices[i])
            if p.batching:
                _leave_behind(p, after, s, i)
        later += _consequences(f, weights, row, max(st.now, end))
        for i in range(width):
            f.outlook.drains_after[devices[i]] = f.outlook.drains[devices[i]]
    take_back(p, st, after, s, devices, width)
    placement.end = end
    placement.later = later
    placement.value = (end - st.now) + later


@inlined
def _leave_behind(p: ProblemArrays, st: StateArrays, s: int, k: int) -> None:
    """Add to the state what the shard in slot ``k`` will leave cached for descendants.

    Only for batching devices: an exclusive device's state is that of the shard's end at once.
    """
    slot, stage = st.slots[s, k], p.stages[s]
    if has_prefix(p, stage):
        # By then the cached prefix covers what the stage needs, or more.
        compute_path(p, st, slot.device, stage.prefix, stage.prefix_tokens)
    leave_path(p, st, s, slot.device)
    if stage.keeps_context and p.models[stage.model].kv > 0.0:
        slot.kept = slot.queries


@inlined
def _is_restricted(p: ProblemArrays, outlook: Outlook, s: int) -> bool:
    """Whether stage ``s`` can only run on scarce devices."""
    for d in range(p.devices.size):
        if outlook.scarce[d] == 0.0 and p.clean_seconds[s, d] < np.inf:
            return False
    return True


@inlined
def _consequences(f: Frontier, weights: Weights, row: int, when: float) -> float:
    """Regret of evicted weights plus the descendants' costs from ``when`` on, in ``f.after``."""
    p, st, after, outlook = f.problem, f.start, f.after, f.outlook
    later = 0.0
    for i in range(f.generated.rows[row].width):
        d = f.generated.devices[row, i]
        for m in range(p.models.size):
            if outlook.need[m] > 0 and st.resident[d, m] > 0 and after.resident[d, m] == 0:
                holders = 0
                for other in range(p.devices.size):
                    holders += after.resident[other, m] > 0
                later += weights.residency * p.load_seconds[m, d] / (1.0 + holders)
    if weights.horizon > 0.0:
        for i in range(outlook.descendant_count):
            cost = _best_cost(f, outlook.descendants[i], when, weights)
            later += weights.horizon * weights.decay ** outlook.distances[i] * cost
    return later


@inlined
def _best_cost(f: Frontier, u: int, when: float, weights: Weights) -> float:
    """Seconds from ``when`` to the end of ``u`` on its best device in ``f.after``.

    An estimate: on a batching device ``u`` joins what runs there now, if it can.
    """
    p, st = f.problem, f.after
    best = np.inf
    stage = p.stages[u]
    for d in range(p.devices.size):
        if p.clean_seconds[u, d] == np.inf:
            continue
        drain = f.outlook.drains_after[d]
        if p.batching and drain < np.inf and starts_now(p, st, u, d, stage.queries):
            drain = when
        load = 0.0
        if st.resident[d, stage.model] == 0:
            load = weights.residency * p.load_seconds[stage.model, d]
        transfer = 0.0
        if weights.locality > 0.0:
            turn = max(when, drain) if p.contention else when
            transfer, _ = transfer_seconds(p, st, u, d, 1.0, turn)
            transfer *= weights.locality
        run = p.clean_seconds[u, d]
        if weights.prefix > 0.0:
            prefix = prefix_hit_tokens(p, st, u, d)
            context = context_hit_tokens(p, st, u, d)
            if prefix > 0.0 or context > 0.0:
                prefill = prefill_seconds(p, u, d, stage.queries, prefix, context)
                run -= weights.prefix * (run - (p.decode_seconds[u, d] + prefill))
        best = min(best, max(0.0, drain - when) + max(load, transfer) + run)
    return best
