"""The order in which ready stages choose their devices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import FloatMatrix, Floats, Ints, inlined, kernel
from fate_gym.kernel.schema import PLACED, READY, ProblemArrays, StateArrays
from policies.list_scheduling.devices import device_ends, end_on
from policies.list_scheduling.rules import (
    FDWS,
    MAX_MIN,
    MIN_MIN,
    PRIORITY,
    RANK_HYBD,
    SUFFERAGE,
    UPWARD_RANK,
    Rules,
)


class Line(NamedTuple):
    """The ready stages of an instant and the order in which they choose.

    Attributes:
        stages: (n,) stage numbers in order; with a key, this order only breaks ties.
        key: (n,) the largest chooses next, NaN: has chosen; empty: ``stages`` is the order.
        ends: (n, D) finish on each device, seconds; empty: keys do not change after a choice.
    """

    stages: Ints
    key: Floats
    ends: FloatMatrix


@kernel
def line_up(p: ProblemArrays, st: StateArrays, rules: Rules) -> Line:
    """Line up the ready stages; none has chosen yet."""
    stages = ready_order(p, st, rules.order)
    key = np.empty(stages.size if rules.order >= PRIORITY else 0)
    ends = np.empty((stages.size if rules.order >= MIN_MIN else 0, p.devices.size))
    for i in range(key.size):
        if ends.size == 0:
            key[i] = rules.priority[stages[i]]
        else:
            device_ends(p, st, stages[i], rules.rule, ends[i])
            key[i] = _key(rules, stages[i], ends[i])
    return Line(stages, key, ends)


@inlined
def next_in(line: Line, turn: int) -> int:
    """Return the position in the line of the stage whose turn it is; mark it as having chosen."""
    if line.key.size == 0:
        return turn
    best = -1
    for i in range(line.key.size):
        if not np.isnan(line.key[i]) and (best < 0 or line.key[i] > line.key[best]):
            best = i
    line.key[best] = np.nan
    return best


@kernel
def renew(
    p: ProblemArrays, st: StateArrays, rules: Rules, line: Line, devices: Ints, width: int
) -> None:
    """Re-estimate the finish on ``devices[:width]`` of all stages that have not chosen yet."""
    for i in range(line.ends.shape[0]):
        if not np.isnan(line.key[i]):
            for k in range(width):
                d = devices[k]
                line.ends[i, d] = end_on(p, st, line.stages[i], d, rules.rule)
            line.key[i] = _key(rules, line.stages[i], line.ends[i])


@inlined
def _key(rules: Rules, s: int, ends: Floats) -> float:
    """Key of a stage in orders that change with each choice; largest next. ``ends`` is (D,)."""
    first = second = np.inf
    for d in range(ends.size):
        if ends[d] < first:
            first, second = ends[d], first
        elif ends[d] < second:
            second = ends[d]
    if rules.order == MIN_MIN:
        return -first
    if rules.order == MAX_MIN:
        return first
    if rules.order == SUFFERAGE:
        # A stage that only one device can run suffers most; among those, the first in line.
        return second - first if second < np.inf else np.inf
    return rules.priority[s] - first


@kernel
def ready_order(p: ProblemArrays, st: StateArrays, order: int) -> Ints:
    """Return the ready stages (n,) in the given order, or by time ready if a key decides."""
    if order == UPWARD_RANK:
        return _by_rank(p, st)
    if order == RANK_HYBD:
        return _rank_hybd(p, _by_rank(p, st))
    if order == FDWS:
        return _fdws(p, st, _by_rank(p, st))
    stages = np.empty(st.ready_count, np.int64)
    for i in range(stages.size):
        stages[i] = st.ready[i]
    return stages


@kernel
def _by_rank(p: ProblemArrays, st: StateArrays) -> Ints:
    """Return the ready stages in the order of ``by_rank``: largest rank first, then by number."""
    stages = np.empty(st.ready_count, np.int64)
    if stages.size * stages.size < p.by_rank.size:
        for n in range(stages.size):
            s = st.ready[n]
            i = n
            while i > 0 and _ranks_before(p, s, stages[i - 1]):
                stages[i] = stages[i - 1]
                i -= 1
            stages[i] = s
        return stages
    found = 0
    for i in range(p.by_rank.size):
        if found == stages.size:
            break
        if st.stages[p.by_rank[i]].status == READY:
            stages[found] = p.by_rank[i]
            found += 1
    return stages


@inlined
def _ranks_before(p: ProblemArrays, s: int, other: int) -> bool:
    rank, than = p.stages[s].upward_rank, p.stages[other].upward_rank
    return rank > than or (rank == than and s < other)


@inlined
def _rank_hybd(p: ProblemArrays, by_rank: Ints) -> Ints:
    """Smallest rank first while several workflows have ready stages, then largest first."""
    n = by_rank.size
    single = n  # by_rank[:single] belong to one workflow
    for i in range(n):
        if p.stages[by_rank[i]].workflow != p.stages[by_rank[0]].workflow:
            single = i
            break
    stages = np.empty(n, np.int64)
    for i in range(n):
        stages[i] = by_rank[n - 1 - i] if i < n - single else by_rank[i - (n - single)]
    return stages


@kernel
def _fdws(p: ProblemArrays, st: StateArrays, by_rank: Ints) -> Ints:
    """Order in rounds: each workflow's best-ranked ready stage, workflows nearest their end first.

    Workflows are compared by 1/(share of stages left) x 1/(critical path). ``by_rank`` is
    overwritten.
    """
    left, path = np.zeros(p.workflows.size), np.zeros(p.workflows.size)
    for i in range(by_rank.size):
        w = p.stages[by_rank[i]].workflow
        if left[w] == 0.0:
            for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
                left[w] += st.stages[s].status < PLACED
                path[w] = max(path[w], p.stages[s].upward_rank)
    stages, key = np.empty(by_rank.size, np.int64), np.empty(by_rank.size)
    round_of = np.zeros(p.workflows.size, np.int64)  # last round that the workflow took part in
    done, number = 0, 0
    while done < by_rank.size:
        number += 1
        begin = done
        for i in range(by_rank.size):
            if by_rank[i] < 0:
                continue  # taken
            w = p.stages[by_rank[i]].workflow
            if round_of[w] == number:
                continue
            round_of[w] = number
            urgency = left[w] / (p.workflows[w].stages_to - p.workflows[w].stages_from) * path[w]
            left[w] -= 1.0
            j = done
            while j > begin and key[j - 1] > urgency:
                stages[j], key[j] = stages[j - 1], key[j - 1]
                j -= 1
            stages[j], key[j] = by_rank[i], urgency
            by_rank[i] = -1
            done += 1
    return stages
