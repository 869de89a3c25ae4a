"""Orders of the list schedules that plans begin with."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import PLACED, ProblemArrays, StateArrays
from policies.fate.plans.schema import Biases, Plan, Workspace

RANK, FCFS, REMAINING, SLACK, STRETCH = 0, 1, 2, 3, 4


@kernel
def order_stages(p: ProblemArrays, st: StateArrays, ws: Workspace, plan: Plan, order: int) -> None:
    """Fill the keys of all stages of known workflows that are not placed.

    ``RANK``: largest upward rank. ``FCFS``: workflows by arrival, ranks inside. ``REMAINING``:
    workflows by what is left of them, ranks inside. ``SLACK``: by the latest time at which the
    stage may start if its workflow is to take twice as long as it would alone. ``STRETCH``: by
    (waited + left) / alone, largest first, ranks inside.
    """
    longest = 1e-9
    for s in range(p.stages.size):
        longest = max(longest, p.stages[s].upward_rank)
    for w in range(p.workflows.size):
        workflow = p.workflows[w]
        if workflow.arrival > st.now:
            continue
        left, rank = _what_is_left(p, st, w)
        alone = ws.workflows[w].alone
        for s in range(workflow.stages_from, workflow.stages_to):
            if st.stages[s].status >= PLACED:
                continue
            own = p.stages[s].upward_rank
            inside = 0.5 * own / longest
            if order == RANK:
                key = -own
            elif order == FCFS:
                key = workflow.arrival - inside * 1e-3
            elif order == REMAINING:
                key = left - inside * 1e-3
            elif order == SLACK:
                key = workflow.arrival + 2.0 * alone - own
            else:
                waited = st.now - workflow.arrival
                key = -(waited + rank) / max(alone, 1e-9) - inside * 1e-3
            plan.stages[s].key = key


@inlined
def _what_is_left(p: ProblemArrays, st: StateArrays, w: int) -> tuple[float, float]:
    """Mean seconds and largest rank of the stages of a workflow that are not placed."""
    left, rank = 0.0, 0.0
    for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
        if st.stages[s].status < PLACED:
            left += p.stages[s].mean_seconds
            rank = max(rank, p.stages[s].upward_rank)
    return left, rank


@kernel
def clear_biases(biases: Biases, shards: int) -> None:
    """Prefer nothing; ``shards`` devices for every kind."""
    for k in range(biases.kinds.size):
        biases.kinds[k].shift = 0.0
        biases.kinds[k].spread = shards
        for d in range(biases.seconds.shape[1]):
            biases.seconds[k, d] = 0.0
    for w in range(biases.shifts.size):
        biases.shifts[w] = 0.0


@kernel
def shift_keys(
    p: ProblemArrays, st: StateArrays, ws: Workspace, biases: Biases, base: Plan, plan: Plan
) -> None:
    """Let ``plan`` have the keys of ``base`` plus the shifts, for stages that are not placed."""
    for s in range(p.stages.size):
        if st.stages[s].status < PLACED:
            key = base.stages[s].key + biases.kinds[ws.stages[s].kind].shift
            plan.stages[s].key = key + biases.shifts[p.stages[s].workflow]
