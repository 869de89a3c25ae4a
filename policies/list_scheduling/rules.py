"""The parameters that distinguish one list scheduler from another."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fate_gym.jit import FloatMatrix, Floats

FCFS, UPWARD_RANK, FDWS, RANK_HYBD, PRIORITY = range(5)
MIN_MIN, MAX_MIN, SUFFERAGE, DYNAMIC_LEVEL = range(5, 9)
STRICT, STATE = 0, 1
NO_PRIORITY: Floats = np.zeros(0)
NO_PENALTY: FloatMatrix = np.zeros((0, 0))


class Rules(NamedTuple):
    """The parameters of a list scheduler.

    Attributes:
        order: which stage chooses next. A list, made once per instant:
            ``FCFS`` (time ready), ``UPWARD_RANK`` (largest first), ``FDWS`` (rounds of each
            workflow's best, by remaining share and critical path), ``RANK_HYBD`` (smallest upward
            rank; largest once one workflow is left), ``PRIORITY`` (largest of the table).
            Or renewed after each choice, from every stage's earliest finish: ``MIN_MIN``
            (smallest), ``MAX_MIN`` (largest), ``SUFFERAGE`` (largest gap to the second-best
            device), ``DYNAMIC_LEVEL`` (largest priority minus finish).
        rule: ``STRICT`` minimises the classical earliest finish (queue, transfer, clean cost),
            ``STATE`` the estimated finish in the state (residency and caches included).
        lazy: 1 commits only what starts at once and plans the rest anew at the next event;
            0 commits every ready stage to a queue.
        shards: most devices that may share one stage; 1 with a penalty or looking ahead.
        ahead: 1 minimises the finish of the stage's children instead (lists only).
        priority: (S,) for ``PRIORITY`` and ``DYNAMIC_LEVEL``; empty otherwise.
        penalty: (S, D) seconds on top of the finish when devices are compared (lists only);
            empty: none.
    """

    order: int
    rule: int
    lazy: int
    shards: int
    ahead: int = 0
    priority: Floats = NO_PRIORITY
    penalty: FloatMatrix = NO_PENALTY
