"""Random draws for the searches."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined
from policies.fate.plans.schema import Workspace
from policies.random_numbers import next_random, unit_number

Weights = tuple[int, int, int, int, int, int, int]
"""Percentages with which the seven moves are drawn."""


@inlined
def uniform(ws: Workspace) -> float:
    """Draw a number in [0, 1)."""
    ws.random = next_random(ws.random)
    return unit_number(ws.random)


@inlined
def pick(ws: Workspace, count: int) -> int:
    """Draw an integer from 0 to ``count`` - 1."""
    return min(count - 1, int(uniform(ws) * count))


@inlined
def draw_move(ws: Workspace, weights: Weights) -> int:
    """Draw the number of a move."""
    drawn = uniform(ws)
    below = 0
    for move in range(len(weights) - 1):
        below += weights[move]
        if drawn < below / 100.0:
            return move
    return len(weights) - 1


@inlined
def slack(ws: Workspace, heat: float, done: float) -> float:
    """Draw the share by which a change may worsen a plan: exponential, mean ``heat`` falling to 0.

    ``done`` is the share of the search's work that is done.
    """
    if heat <= 0.0:
        return 0.0
    return heat * (1.0 - done) * -np.log(1.0 - uniform(ws))
