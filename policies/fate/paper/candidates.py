"""Parts 1 and 4 of FATE: the frontier's candidates, with their state-conditional costs.

For the ready stages with the largest upward rank (the window), the common generator lists every
candidate placement, bounded shards included; each is scored, and the best of each stage are kept.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Ints, copy_block, inlined, kernel
from fate_gym.kernel.commit import reserve
from fate_gym.kernel.estimate import undisturbed
from fate_gym.kernel.openings import is_open, starts_now
from fate_gym.kernel.placements import (
    Placements,
    candidate_count,
    generate,
    new_placements,
    sort_devices,
)
from fate_gym.kernel.schema import NO_LOG, READY, ProblemArrays, StateArrays, new_state
from policies.fate.paper.score import (
    MOST_DESCENDANTS,
    Frontier,
    Outlook,
    Weights,
    find_demand,
    find_descendants,
    score,
)

MOST_SINGLES = 32
"""Single devices scored per stage; if there are more, those on which it ends first."""
OVERDUE_S = 0.001
"""Seconds for which an overdue shard is expected to keep running."""


def new_frontier(p: ProblemArrays, start: StateArrays, rows: int) -> Frontier:
    """Allocate room for ``rows`` candidates of the ready stages in ``start``."""
    devices, shards = p.devices.size, p.max_shards
    generated = new_placements(candidate_count(devices, shards), shards, devices)
    outlook = Outlook.allocate(D=devices, M=p.models.size, H=MOST_DESCENDANTS)
    candidates = new_placements(rows, shards)
    return Frontier(p, start, new_state(p), NO_LOG, generated, candidates, outlook)


@kernel
def find_candidates(f: Frontier, weights: Weights, window: int, kept: int, shards: int) -> None:
    """Find the ``kept`` best placements of each of the ``window`` highest-ranked ready stages.

    Stages are ordered by rank, placements by value (seconds from now to the end, plus what they
    cost later); unused devices are -1. A stage whose descendants have no host that is up costs
    infinity everywhere: it gets no candidate and is left out.
    """
    p, st = f.problem, f.start
    _find_free(f)
    find_demand(p, st, f.outlook)
    copy_block(f.after, st)
    f.candidates.count = 0
    left = min(window, st.ready_count)
    for i in range(p.by_rank.size):
        if left == 0:
            break
        s = p.by_rank[i]
        if st.stages[s].status != READY:
            continue
        left -= 1
        find_descendants(p, s, weights.depth, f.outlook)
        generate(p, st, s, shards, f.generated)
        _leave_late_out(p, f.generated)
        for row in range(f.generated.count):
            if f.generated.rows[row].width > 0:
                score(f, weights, row)
            else:
                f.generated.rows[row].value = np.inf
        for _ in range(kept):
            if not _keep_best(f):
                break


@inlined
def _leave_late_out(p: ProblemArrays, given: Placements) -> None:
    """If there are many single devices, keep only those on which the stage ends first."""
    if p.devices.size <= MOST_SINGLES:
        return
    found = sort_devices(given.ends, given.order)
    for i in range(MOST_SINGLES, found):
        given.rows[given.order[i]].width = 0


@inlined
def _find_free(f: Frontier) -> None:
    for d in range(f.problem.devices.size):
        drained, others = undisturbed(f.problem, f.start, d)
        f.outlook.drains[d] = f.outlook.drains_after[d] = drained
        f.outlook.others[d] = others
        free = drained - f.start.now
        if not is_open(f.problem, f.start, d):
            # A shard that takes longer than expected still holds its device.
            free = max(free, OVERDUE_S)
        f.outlook.free[d] = free


@kernel
def find_starting(f: Frontier, chosen: Ints, starting: Ints) -> None:
    """Find which candidates start now if they are placed one after the other.

    A stage that waits for its devices keeps them from stages of lower rank.

    Args:
        f: the frontier.
        chosen: (n,) rows of the candidates, in the order in which they are placed.
        starting: (n,) filled with 1 where all shards start now, else 0.
    """
    p, after, found = f.problem, f.after, f.candidates
    for i in range(chosen.size):
        row = found.rows[chosen[i]]
        devices, counts = found.devices[chosen[i]], found.counts[chosen[i]]
        starting[i] = 1
        for k in range(row.width):
            if not starts_now(p, after, row.stage, devices[k], counts[k]):
                starting[i] = 0
        reserve(p, after, f.log, row.stage, devices, counts, row.width, 0)
    copy_block(after, f.start)


@inlined
def _keep_best(f: Frontier) -> bool:
    """Move the best of the generated placements to the candidates; False: none is left."""
    given, found = f.generated, f.candidates
    best = 0
    for row in range(1, given.count):
        if given.rows[row].value < given.rows[best].value:
            best = row
    if given.rows[best].value == np.inf:
        return False
    found.rows[found.count] = given.rows[best]
    for k in range(f.problem.max_shards):
        used = k < given.rows[best].width
        found.devices[found.count, k] = given.devices[best, k] if used else -1
        found.counts[found.count, k] = given.counts[best, k] if used else 0
        found.busy[found.count, k] = given.busy[best, k] if used else 0.0
    found.count += 1
    given.rows[best].value = np.inf
    return True
