"""Tuning of biased list schedules: change biases at random and keep improvements.

Every move changes the biases of one kind of stage, one device or one workflow.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import copy_block, inlined, kernel
from policies.fate.plans.edit import shift_keys
from policies.fate.plans.objective import EQUAL
from policies.fate.plans.play import value_of
from policies.fate.plans.prepare import find_movable
from policies.fate.plans.schema import Biases, Context, Style
from policies.fate.rollout.draws import Weights, draw_move, pick, slack, uniform

AVOID, LEAN, RESERVE, CLEAR_DEVICE, CLEAR_KIND, SHIFT, SPREAD = range(7)
WEIGHTS: Weights = (30, 15, 15, 10, 5, 15, 10)
"""Percentages with which the moves above are drawn."""


@kernel
def tune(c: Context, style: Style, value: float, most_work: int, heat: float) -> float:
    """Change ``c.biases`` to improve the list schedule ``c.base``.

    ``value`` is the value of ``c.best`` at the start. If the best schedule found is better, its
    outcome replaces ``c.best``. Returns the value of ``c.best``. With ``heat`` changes may
    initially worsen the schedule by about that share.
    """
    ws = c.work
    find_movable(c, c.base, 0)
    if ws.movable_count == 0:
        return value
    scale, span = _find_scale(c)
    shards = min(style.shards, c.problem.max_shards)
    start = ws.work
    copy_block(c.draft, c.base)
    shift_keys(c, c.draft)
    current = value_of(c, c.draft, style, np.inf)
    second = ws.second
    if current < value:
        value = current
        copy_block(c.best, c.played)
    copy_block(c.kept, c.biases)
    while ws.work - start < most_work:
        for _ in range(1 + int(3.0 * uniform(ws) * uniform(ws))):
            _change(c, scale, span, ws.movable[pick(ws, ws.movable_count)], shards)
        shift_keys(c, c.draft)
        worse = slack(ws, heat, (ws.work - start) / most_work)
        bound = current * (1.0 + worse + EQUAL) if current > 0.0 else current + EQUAL
        found = value_of(c, c.draft, style, bound)
        better = found < current - EQUAL * abs(current)
        if found <= bound and (better or worse > 0.0 or ws.second <= second):
            current, second = found, ws.second
            copy_block(c.kept, c.biases)
            if found < value:
                value = found
                copy_block(c.best, c.played)
        else:
            copy_block(c.biases, c.kept)
    return value


@inlined
def _find_scale(c: Context) -> tuple[float, float]:
    """Compute the mean seconds of the movable stages, and half the range of their keys."""
    low, high, scale = np.inf, -np.inf, 0.0
    for i in range(c.work.movable_count):
        s = c.work.movable[i]
        low, high = min(low, c.base.stages[s].key), max(high, c.base.stages[s].key)
        scale += c.problem.stages[s].mean_seconds
    return scale / c.work.movable_count, 0.5 * (high - low) + 1e-9


@kernel
def _change(c: Context, scale: float, span: float, s: int, shards: int) -> None:
    """Make one random move for the kind or workflow of stage ``s``.

    Biases are at most a few times ``scale``, shifts at most ``span``.
    """
    ws, biases = c.work, c.biases
    kind = ws.stages[s].kind
    d = pick(ws, c.problem.devices.size)
    move = draw_move(ws, WEIGHTS)
    if move == AVOID:
        avoided = biases.seconds[kind, d] > 0.0
        biases.seconds[kind, d] = 0.0 if avoided else scale * 4.0 * uniform(ws)
    elif move == LEAN:
        biases.seconds[kind, d] = scale * (2.0 * uniform(ws) - 1.0)
    elif move == RESERVE:
        _reserve(biases, kind, d, scale)
    elif move == CLEAR_DEVICE:
        for k in range(biases.kinds.size):
            biases.seconds[k, d] = 0.0
    elif move == CLEAR_KIND:
        for other in range(c.problem.devices.size):
            biases.seconds[kind, other] = 0.0
    elif move == SHIFT or shards < 2:
        if ws.several and uniform(ws) < 0.6:
            biases.shifts[c.problem.stages[s].workflow] += span * (2.0 * uniform(ws) - 1.0)
        else:
            biases.kinds[kind].shift += span * (2.0 * uniform(ws) - 1.0)
    else:
        biases.kinds[kind].spread = 1 + pick(ws, shards)


@inlined
def _reserve(biases: Biases, kind: int, d: int, scale: float) -> None:
    """Reserve a device for one kind: all others are biased against it."""
    for k in range(biases.kinds.size):
        if k != kind:
            biases.seconds[k, d] += scale
    biases.seconds[kind, d] = 0.0
