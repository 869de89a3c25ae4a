"""The window: which ready stages are shown, and in which line each is kept."""

from __future__ import annotations

from fate_gym.env.schema import EpisodeArrays, FactsArrays
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import ProblemArrays, StateArrays


@inlined
def open_window(ep: EpisodeArrays) -> None:
    """The window before the first observation; all else in the episode is zero."""
    ep.free_count = ep.window.size
    for i in range(ep.window.size):
        ep.window[i] = -1
        ep.free[i] = i


@kernel
def select_window(p: ProblemArrays, st: StateArrays, f: FactsArrays, ep: EpisodeArrays) -> None:
    """Show the ready stages that are most urgent, and free the lines of others."""
    slots = ep.window.size
    for i in range(slots):
        ep.before[i] = ep.window[i]
    shown = _first_ready(p, st, f, ep)
    for i in range(shown, slots):
        ep.window[i] = -1
    ep.shown = shown
    ep.observations += 1
    for i in range(shown):
        ep.stages[ep.window[i]].shown = ep.observations
    for i in range(slots):
        s = ep.before[i]
        if s >= 0 and ep.stages[s].shown != ep.observations and ep.stages[s].line > 0:
            ep.free[ep.free_count] = ep.stages[s].line - 1
            ep.free_count += 1
            ep.stages[s].line = 0
    for i in range(shown):
        # -1: `update_candidates` takes a free line.
        ep.lines[i] = ep.stages[ep.window[i]].line - 1


@inlined
def _first_ready(p: ProblemArrays, st: StateArrays, f: FactsArrays, ep: EpisodeArrays) -> int:
    """Fill the window in order; returns how many stages it shows."""
    window = ep.window
    shown = 0
    for r in range(st.ready_count):
        s = st.ready[r]
        if shown == window.size:
            if _precedes(p, st, f, window[shown - 1], s):
                continue
            shown -= 1
        i = shown
        while i > 0 and _precedes(p, st, f, s, window[i - 1]):
            window[i] = window[i - 1]
            i -= 1
        window[i] = s
        shown += 1
    return shown


@inlined
def _precedes(p: ProblemArrays, st: StateArrays, f: FactsArrays, a: int, b: int) -> bool:
    """Whether stage ``a`` is more urgent than ``b``: by `_latest_start`, then by upward rank."""
    ours, theirs = _latest_start(p, st, f, a), _latest_start(p, st, f, b)
    return ours < theirs or (ours == theirs and f.order[a] < f.order[b])


@inlined
def _latest_start(p: ProblemArrays, st: StateArrays, f: FactsArrays, s: int) -> float:
    """When a stage has to start if its workflow is to take no more than twice as long as alone.

    Inside a workflow that is the order of upward ranks. Over workflows ranks alone would let a long
    one that has just arrived fill the window.
    """
    due = st.workflows[p.stages[s].workflow].arrived_at + f.stages[s].due
    return due - p.stages[s].upward_rank
