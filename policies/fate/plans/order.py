"""The ready stages by their keys."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import kernel
from fate_gym.kernel.schema import StateArrays
from policies.fate.plans.schema import Plan, Workspace

FEW = 64
"""So many are sorted by insertion."""


@kernel
def order_ready(st: StateArrays, plan: Plan, ws: Workspace) -> int:
    """Put the ready stages into ``order``, by key and then as they became ready; their number."""
    count = st.ready_count
    if count > FEW:
        _sort_many(st, plan, ws)
        return count
    for n in range(count):
        s = st.ready[n]
        key = plan.stages[s].key
        i = n
        while i > 0 and plan.stages[ws.order[i - 1]].key > key:
            ws.order[i] = ws.order[i - 1]
            i -= 1
        ws.order[i] = s
    return count


@kernel
def _sort_many(st: StateArrays, plan: Plan, ws: Workspace) -> None:
    keys = np.empty(st.ready_count)
    for i in range(keys.size):
        keys[i] = plan.stages[st.ready[i]].key
    places = np.argsort(keys, kind="mergesort")
    for i in range(keys.size):
        ws.order[i] = st.ready[places[i]]
