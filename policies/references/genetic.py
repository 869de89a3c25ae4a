"""A genetic search over sequences, with annealing, crossover and a shrinking population.

It shares neither representation nor moves with the local search of `policies.fate.rollout`:
schedules are `policies.references.sequences`. A child is a copy of a parent that may take over a
span of time, a model, a device or single stages from another (building blocks; Goldberg 1989), and
is then changed. It competes with the parent it resembles most (deterministic crowding; Mahfoud
1995), by the rule of simulated annealing (Kirkpatrick et al. 1983, doi
10.1126/science.220.4598.671). The worse half of the population is dropped repeatedly, so that most
of the work goes into the best (successive halving; Jamieson & Talwalkar 2016).
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Ints, copy_block, inlined, kernel
from fate_gym.kernel.schema import ProblemArrays
from policies.random_numbers import next_random, unit_number
from policies.references.sequences import (
    Search,
    SearchTables,
    Sequence,
    keep_order,
    mark_critical,
    play,
)

EQUAL = 1e-12
"""Relative difference below which two ends count as equal."""
CROSSED = 0.15
"""Probability that a child has two parents."""
CHANGED = 0.5
"""Probability that a child of two parents is also changed."""
TWO_CHANGES = 0.3
"""Probability that a child is changed a second time."""
ON_PATH = 0.7
"""Probability that the stage changed is on the critical path."""
RUINED = 0.1
"""Probability that part of a child is rebuilt instead (see `_ruin`)."""
TRIES = 8
"""Tries to find a stage that matches another."""
LAST_WIDTH = 0.12
"""Share of the order, to either side, within which a model's stages are moved together."""


@kernel
def evolve(c: Search, most_work: int, heat: float) -> float:
    """Evolve the population, fill ``c.best`` and return its last end.

    Args:
        c: the search; its members have been filled and played.
        most_work: work of all plays together, in stages placed.
        heat: mean share by which a child may be worse than its parent, falling to 0.
    """
    tables = c.tables
    begun = tables.work
    alive = tables.members.size
    _sort(tables.members, alive)
    copy_block(c.best, Sequence(tables.members[0]))
    if tables.free_count == 0:
        return c.best.value
    tries = 0
    while tables.work - begun < most_work and tries < most_work:
        done = max(tables.work - begun, tries) / most_work
        tries += 1
        wanted = _survivors(tables.members.size, done)
        if wanted < alive:
            _sort(tables.members, alive)
            alive = wanted
        parent = Sequence(tables.members[_pick(tables, alive)])
        _breed(c, parent, alive)
        worse = 0.0
        if heat > 0.0:
            worse = heat * (1.0 - done) * -np.log(1.0 - _uniform(tables))
        bound = parent.value * (1.0 + worse + EQUAL)
        value = play(c, c.child, bound)
        better = value < parent.value * (1.0 - EQUAL) or c.child.second < parent.second
        if value > bound or not (better or worse > 0.0):
            continue
        keep_order(c.problem, c.child, tables)
        mark_critical(c, c.child)
        copy_block(parent, c.child)
        equal = value <= c.best.value and c.child.second < c.best.second
        if value < c.best.value * (1.0 - EQUAL) or equal:
            copy_block(c.best, c.child)
    return c.best.value


@inlined
def _survivors(members: int, done: float) -> int:
    """Return the population size after a share ``done`` of the work: each size gets equal work."""
    phases = 1
    while members >> phases > 0:
        phases += 1
    return max(1, members >> int(done * phases))


@kernel
def _sort(members: Ints, alive: int) -> None:
    """Sort the first ``alive`` members, best first."""
    for i in range(1, alive):
        address = members[i]
        value = Sequence(address).value
        j = i
        while j > 0 and Sequence(members[j - 1]).value > value:
            members[j] = members[j - 1]
            j -= 1
        members[j] = address


@inlined
def _breed(c: Search, parent: Sequence, alive: int) -> None:
    """Fill ``c.child`` with a changed copy of ``parent``."""
    tables = c.tables
    copy_block(c.child, parent)
    if alive > 1 and _uniform(tables) < CROSSED:
        _cross(c.problem, c.child, Sequence(tables.members[_pick(tables, alive)]), tables)
        if _uniform(tables) >= CHANGED:
            return
    if _uniform(tables) < RUINED:
        _ruin(c.problem, c.child, parent, tables)
        return
    _change(c.problem, c.child, parent, tables)
    if _uniform(tables) < TWO_CHANGES:
        _change(c.problem, c.child, parent, tables)


# --- random numbers -------------------------------------------------------------------------


@inlined
def _uniform(tables: SearchTables) -> float:
    """Draw a number in [0, 1)."""
    tables.random = next_random(tables.random)
    return unit_number(tables.random)


@inlined
def _pick(tables: SearchTables, count: int) -> int:
    return min(count - 1, int(_uniform(tables) * count))


# --- two parents ----------------------------------------------------------------------------


@kernel
def _cross(p: ProblemArrays, child: Sequence, other: Sequence, tables: SearchTables) -> None:
    """Take over from ``other`` a span of time, a model, a device or single stages."""
    kind = _uniform(tables)
    some = tables.free[_pick(tables, tables.free_count)]
    low = _uniform(tables)
    high = low + 0.5 * _uniform(tables)
    for i in range(tables.free_count):
        s = tables.free[i]
        if kind < 0.4:
            taken = low <= other.key[s] < high
        elif kind < 0.6:
            taken = p.stages[s].model == p.stages[some].model
        elif kind < 0.8:
            taken = other.devices[s, 0] == other.devices[some, 0]
        else:
            taken = _uniform(tables) < 0.3
        if taken:
            child.key[s] = other.key[s]
            child.width[s] = other.width[s]
            for k in range(other.width[s]):
                child.devices[s, k] = other.devices[s, k]


# --- a part anew ----------------------------------------------------------------------------


@kernel
def _ruin(p: ProblemArrays, child: Sequence, parent: Sequence, tables: SearchTables) -> None:
    """Make some stages choose their devices anew (ruin and recreate; Schrimpf et al. 2000).

    Either those in a span of time, of a model, of a device, or of a model within a span. One device
    may be made more or less attractive to them (``taste``). Shared stages are left alone.
    """
    kind = _uniform(tables)
    some = _some(tables)
    if parent.criticals > 0:
        some = parent.critical[_pick(tables, parent.criticals)]
    reach = 0.2 * _uniform(tables) if kind < 0.6 else 1.0
    for d in range(p.devices.size):
        tables.taste[d] = 1.0
    if _uniform(tables) < 0.7:
        d = child.devices[some, 0] if _uniform(tables) < 0.5 else _pick(tables, p.devices.size)
        tables.taste[d] = 0.4 + 1.4 * _uniform(tables)
    for i in range(tables.free_count):
        s = tables.free[i]
        same = True
        if 0.3 <= kind < 0.8:
            same = p.stages[s].model == p.stages[some].model
        elif kind >= 0.8:
            same = child.devices[s, 0] == child.devices[some, 0]
        if same and child.width[s] == 1 and abs(child.key[s] - child.key[some]) <= reach:
            child.width[s] = 0


# --- one parent -----------------------------------------------------------------------------


@kernel
def _change(p: ProblemArrays, child: Sequence, parent: Sequence, tables: SearchTables) -> None:
    """Make one random change, mostly to a stage on the parent's critical path."""
    s = _some(tables)
    if parent.criticals > 0 and _uniform(tables) < ON_PATH:
        s = parent.critical[_pick(tables, parent.criticals)]
    t = _some(tables)
    near = (_uniform(tables) - 0.5) * 2.0 / child.key.size
    kind = _uniform(tables)
    if kind < 0.25:
        _put_on(child, s, _host(p, tables, s))
        if _uniform(tables) < 0.3:
            child.key[s] = child.key[t] + near
    elif kind < 0.40:
        t = _like(p, child, tables, s, t, 1)
        if _hosts(p, s, child.devices[t, 0]):
            _put_on(child, s, child.devices[t, 0])
            if _uniform(tables) < 0.5:
                child.key[s] = child.key[t] + near
    elif kind < 0.65:
        t = _like(p, child, tables, s, t, 0)
        child.key[s] = child.key[t] + near
    elif kind < 0.75:
        _swap(p, child, s, t)
    elif kind < 0.90:
        _share(p, child, tables, s)
    else:
        _move_model(p, child, tables, s)


@inlined
def _some(tables: SearchTables) -> int:
    return tables.free[_pick(tables, tables.free_count)]


@inlined
def _hosts(p: ProblemArrays, s: int, d: int) -> bool:
    return p.clean_seconds[s, d] < np.inf


@kernel
def _host(p: ProblemArrays, tables: SearchTables, s: int) -> int:
    """Draw two devices that can run ``s`` and return the faster."""
    best = -1
    for _ in range(2):
        d = _pick(tables, p.devices.size)
        while not _hosts(p, s, d):
            d = (d + 1) % p.devices.size
        if best < 0 or p.clean_seconds[s, d] < p.clean_seconds[s, best]:
            best = d
    return best


@inlined
def _put_on(child: Sequence, s: int, d: int) -> None:
    child.width[s] = 1
    child.devices[s, 0] = d


@inlined
def _like(
    p: ProblemArrays, child: Sequence, tables: SearchTables, s: int, t: int, model: int
) -> int:
    """Find a stage with the same model (1) or on the same device (0) as ``s``; else any stage."""
    for _ in range(TRIES):
        same = p.stages[t].model == p.stages[s].model
        if model == 0:
            same = child.devices[t, 0] == child.devices[s, 0]
        if same and t != s:
            break
        t = _some(tables)
    return t


@inlined
def _swap(p: ProblemArrays, child: Sequence, s: int, t: int) -> None:
    """Swap the places of two stages in the order, and their devices if both can run there."""
    child.key[s], child.key[t] = child.key[t], child.key[s]
    a, b = child.devices[s, 0], child.devices[t, 0]
    if _hosts(p, s, b) and _hosts(p, t, a):
        _put_on(child, s, b)
        _put_on(child, t, a)


@inlined
def _share(p: ProblemArrays, child: Sequence, tables: SearchTables, s: int) -> None:
    """Add, remove or replace one device of ``s``."""
    width = child.width[s]
    most = min(p.max_shards, p.stages[s].queries)
    if width > 1 and _uniform(tables) < 0.5:
        k = _pick(tables, width)
        child.devices[s, k] = child.devices[s, width - 1]
        child.width[s] = width - 1
        return
    if most < 2:
        _put_on(child, s, _host(p, tables, s))
        return
    d = _host(p, tables, s)
    for k in range(width):
        if child.devices[s, k] == d:
            return
    if width == most:
        width -= 1
    child.devices[s, width] = d
    child.width[s] = width + 1


@inlined
def _move_model(p: ProblemArrays, child: Sequence, tables: SearchTables, s: int) -> None:
    """Move a model's stages on one device, all or those close in the order, to another device."""
    a, b = child.devices[s, 0], _host(p, tables, s)
    reach = LAST_WIDTH if _uniform(tables) < 0.5 else 1.0
    for i in range(tables.free_count):
        u = tables.free[i]
        near = abs(child.key[u] - child.key[s]) <= reach
        same = p.stages[u].model == p.stages[s].model and child.devices[u, 0] == a
        if near and same and child.width[u] == 1 and _hosts(p, u, b):
            _put_on(child, u, b)
