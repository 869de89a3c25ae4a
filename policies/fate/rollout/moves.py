"""Moves of local search: random changes of a plan, mostly to the stages that decide its end."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import split_queries
from fate_gym.kernel.schema import ProblemArrays
from policies.fate.plans.choice import hosts
from policies.fate.plans.edit import put_on
from policies.fate.plans.schema import Plan, Workspace
from policies.fate.rollout.draws import Weights, draw_move, pick, uniform

RELOCATE, FOLLOW_MODEL, SHARE, REORDER, MIGRATE, SWAP, SHIFT = range(7)
WEIGHTS: Weights = (20, 16, 16, 22, 10, 10, 6)
"""Percentages with which the moves above are drawn."""
ON_PATH = 0.75
"""Probability of changing a stage on the path that decides the end, if there is one."""
TRIES = 8
"""Tries to find a stage that matches another."""


@kernel
def change(p: ProblemArrays, plan: Plan, ws: Workspace, shards: int) -> None:
    """Make one random move; stages are shared among up to ``shards`` devices."""
    s = _some_stage(ws)
    if ws.path_length > 0 and uniform(ws) < ON_PATH:
        s = ws.path[pick(ws, ws.path_length)]
    t = _some_stage(ws)
    move = draw_move(ws, WEIGHTS)
    if move == RELOCATE:
        put_on(p, plan, s, _some_host(p, ws, s))
    elif move == FOLLOW_MODEL:
        _follow_model(p, plan, ws, s, t)
    elif move == SHARE:
        _share(p, plan, ws, s, shards)
    elif move == REORDER:
        _reorder(plan, ws, s, t)
    elif move == MIGRATE:
        _migrate(p, plan, ws, s)
    elif move == SWAP:
        a, b = plan.devices[s, 0], plan.devices[t, 0]
        if hosts(p, s, b) and hosts(p, t, a):
            put_on(p, plan, s, b)
            put_on(p, plan, t, a)
    else:
        _shift(p, plan, ws, s)


@inlined
def _some_stage(ws: Workspace) -> int:
    return ws.movable[pick(ws, ws.movable_count)]


@kernel
def _some_host(p: ProblemArrays, ws: Workspace, s: int) -> int:
    """Draw two devices that can run ``s`` and return the faster; -1: none can run it."""
    best = -1
    for _ in range(2):
        d = pick(ws, p.devices.size)
        for _ in range(p.devices.size):
            if hosts(p, s, d):
                break
            d = (d + 1) % p.devices.size
        if hosts(p, s, d) and (best < 0 or p.clean_seconds[s, d] < p.clean_seconds[s, best]):
            best = d
    return best


@inlined
def _follow_model(p: ProblemArrays, plan: Plan, ws: Workspace, s: int, t: int) -> None:
    """Move ``s`` to a device that the plan uses for the same model."""
    for _ in range(TRIES):
        if p.stages[t].model == p.stages[s].model and t != s:
            break
        t = _some_stage(ws)
    d = plan.devices[t, 0]
    if hosts(p, s, d):
        put_on(p, plan, s, d)


@inlined
def _share(p: ProblemArrays, plan: Plan, ws: Workspace, s: int, shards: int) -> None:
    """Share ``s`` among its first device and some others, or move it back to one device."""
    most = min(shards, p.stages[s].queries)
    plan.stages[s].not_before = 0.0
    if plan.stages[s].width > 1 and uniform(ws) < 0.4:
        put_on(p, plan, s, plan.devices[s, pick(ws, plan.stages[s].width)])
        return
    if most < 2:
        return
    wanted = 2 + pick(ws, most - 1)
    width = 1
    for _ in range(4 * wanted):
        if width == wanted:
            break
        d = _some_host(p, ws, s)
        new = True
        for k in range(width):
            new = new and plan.devices[s, k] != d
        if new:
            plan.devices[s, width] = d
            width += 1
    plan.stages[s].width = width
    split_queries(p, s, plan.devices[s], width, plan.counts[s])


@inlined
def _reorder(plan: Plan, ws: Workspace, s: int, t: int) -> None:
    """Move ``s`` just before some stage, on the same device if one is found."""
    for _ in range(TRIES):
        if plan.devices[t, 0] == plan.devices[s, 0] and t != s:
            break
        t = _some_stage(ws)
    plan.stages[s].key = plan.stages[t].key - 0.1 - 0.8 * uniform(ws)
    plan.stages[s].not_before = 0.0


@inlined
def _migrate(p: ProblemArrays, plan: Plan, ws: Workspace, s: int) -> None:
    """Move all stages with the model, or the prefix, of ``s`` from its device to another."""
    a, b = plan.devices[s, 0], _some_host(p, ws, s)
    whole = uniform(ws) < 0.5
    for i in range(ws.movable_count):
        u = ws.movable[i]
        if (
            plan.stages[u].width == 1
            and plan.devices[u, 0] == a
            and p.stages[u].model == p.stages[s].model
            and (whole or p.stages[u].prefix == p.stages[s].prefix)
            and hosts(p, u, b)
        ):
            put_on(p, plan, u, b)


@inlined
def _shift(p: ProblemArrays, plan: Plan, ws: Workspace, s: int) -> None:
    """Move the workflow of ``s`` earlier or later; with a single workflow, the path earlier."""
    by = (2.0 * uniform(ws) - 1.2) * ws.movable_count
    if ws.several:
        for i in range(ws.movable_count):
            u = ws.movable[i]
            if p.stages[u].workflow == p.stages[s].workflow:
                plan.stages[u].key += by
                plan.stages[u].not_before = 0.0
    else:
        for i in range(ws.path_length):
            plan.stages[ws.path[i]].key -= abs(by)
            plan.stages[ws.path[i]].not_before = 0.0
