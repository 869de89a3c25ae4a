"""Kinds of stages: stages with the same model and the same prefix.

Biases are kept per kind. A candidate stands for all *interchangeable* stages: those of a kind, and
if they have no model (which are all of one kind) only those that take the same seconds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import ProblemArrays


def kind_numbers(p: ProblemArrays) -> NDArray[np.int64]:
    """Return the number (S,) of each stage's kind, from 0."""
    pairs = np.stack([p.stages["model"], p.stages["prefix"]])
    numbers = np.unique(pairs, axis=1, return_inverse=True)[1]
    return numbers.reshape(-1).astype(np.int64)


@inlined
def interchangeable(p: ProblemArrays, a: int, b: int) -> bool:
    """Whether stages are of one kind and, without a model, take the same seconds everywhere."""
    if p.stages[a].model != p.stages[b].model or p.stages[a].prefix != p.stages[b].prefix:
        return False
    if p.stages[a].model < 0:
        for d in range(p.devices.size):
            if p.clean_seconds[a, d] != p.clean_seconds[b, d]:
                return False
    return True


@kernel
def find_interchangeable(p: ProblemArrays, stages: Ints, found: Placements, rows: Ints) -> None:
    """Fill ``rows`` with the first placement of an interchangeable stage; -1: there is none.

    Placements without a stage (-1) are skipped.
    """
    for i in range(stages.size):
        rows[i] = -1
        for row in range(found.count):
            s = found.rows[row].stage
            if s >= 0 and stages[i] >= 0 and interchangeable(p, s, stages[i]):
                rows[i] = row
                break
