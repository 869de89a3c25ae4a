"""Random numbers of the searches."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined
from policies.fate.plans.schema import Workspace
from policies.random_numbers import next_random, unit_number

Weights = tuple[int, int, int, int, int, int, int]
"""How often each of seven moves is made, per cent."""


@inlined
def uniform(ws: Workspace) -> float:
    """In [0, 1)."""
    ws.random = next_random(ws.random)
    return unit_number(ws.random)


@inlined
def pick(ws: Workspace, count: int) -> int:
    """One of ``count`` numbers from 0."""
    return min(count - 1, int(uniform(ws) * count))


@inlined
def draw_move(ws: Workspace, weights: Weights) -> int:
    """The number of a move."""
    drawn = uniform(ws)
    below = 0
    for move in range(len(weights) - 1):
        below += weights[move]
        if drawn < below / 100.0:
            return move
    return len(weights) - 1


@inlined
def slack(ws: Workspace, heat: float, done: float) -> float:
    """Share by which a change may make a plan worse: exponential with mean ``heat``, 0 at the end.

    ``done`` is the share of the work that is done.
    """
    if heat <= 0.0:
        return 0.0
    return heat * (1.0 - done) * -np.log(1.0 - uniform(ws))
