"""What a plan is worth: the objective at the end of a play, or of plays of drawn futures."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import copy_block, inlined, kernel
from fate_gym.kernel.advance import next_event_time
from fate_gym.kernel.schema import StateArrays
from policies.fate.plans.play import play
from policies.fate.plans.schema import Context, Plan, Style


@kernel
def value_of(c: Context, plan: Plan, style: Style, bound: float) -> float:
    """The objective of a plan, inf if it is more than ``bound``.

    The plan is played as expected, and ``c.played`` is what the play made of it. With drawn
    futures it is played in these, and their mean counts. There stages without devices choose in
    each future anew, by what is known in it then: what is valued is the list schedule as a policy,
    behind the placements that the plan fixes (rollout; Bertsekas & Castanon 1999, doi
    10.1023/A:1009634810396), and ``c.played`` is the plan itself.
    """
    count = c.work.futures.size
    if count == 0:
        copy_block(c.state, c.start)
        return play(c, plan, style, bound)
    waits = _starts_nothing(c.start, plan)
    total = 0.0
    for i in range(count):
        copy_block(c.state, StateArrays(c.work.futures[i]))
        time = next_event_time(c.problem, c.state)
        c.work.wait_until = time if waits and time < np.inf else 0.0
        value = play(c, plan, style, bound * count - total)
        if value == np.inf:
            return value
        total += value
    copy_block(c.played, plan)
    return total / count


@inlined
def _starts_nothing(st: StateArrays, plan: Plan) -> bool:
    """Whether no ready stage starts before the next event."""
    starting = 0
    for i in range(st.ready_count):
        starting += plan.stages[st.ready[i]].not_before <= st.now
    return starting == 0
