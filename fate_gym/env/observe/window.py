"""The window: which ready stages are shown, and in which line each is kept."""

from __future__ import annotations

from fate_gym.env.progress import recount
from fate_gym.env.schema import EpisodeArrays, FactsArrays, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import MODEL_STAGE, ProblemArrays, StateArrays


@inlined
def open_window(ep: EpisodeArrays) -> None:
    """Set the window before the first observation; the rest of the episode must be zero."""
    ep.free_count = ep.window.size
    for i in range(ep.window.size):
        ep.window[i] = -1
        ep.free[i] = i


@kernel
def select_window(run: Run) -> None:
    """Show the ready stages that go first, and free the lines of others."""
    ep = run.episode
    slots = ep.window.size
    for i in range(slots):
        ep.before[i] = ep.window[i]
    shown = _first_ready(run)
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
def _first_ready(run: Run) -> int:
    """Fill the window in order; return how many stages it shows."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    if not _count_ready(run):
        return _rounds(p, st, f, ep)
    shown = 0
    for r in range(st.ready_count):
        shown = _insert(p, f, ep, st.ready[r], 0, shown)
    return shown


@inlined
def _count_ready(run: Run) -> bool:
    """Count ready stages by workflow and by model; return whether one workflow has all of them."""
    p, st, ep = run.problem, run.state, run.episode
    if st.ready_count == 0:
        return True
    for r in range(st.ready_count):
        ep.workflows[p.stages[st.ready[r]].workflow].ready = 0
    for m in range(ep.models.size):
        ep.models[m] = 0
    for r in range(st.ready_count):
        stage = p.stages[st.ready[r]]
        flow = ep.workflows[stage.workflow]
        flow.ready += 1
        if stage.kind == MODEL_STAGE:
            ep.models[stage.model] += 1
        if flow.recounted != st.instants + 1:
            recount(run, stage.workflow)
    return ep.workflows[p.stages[st.ready[0]].workflow].ready == st.ready_count


@kernel
def _rounds(p: ProblemArrays, st: StateArrays, f: FactsArrays, ep: EpisodeArrays) -> int:
    """Fill the window in rounds, one stage per workflow, workflows nearest their end first.

    The order of FDWS (Arabnejad, Barbosa and Suter 2014): workflows are compared by the share of
    their stages that is left, times their critical path. With ranks alone, a long workflow that has
    just arrived would fill the window.
    """
    shown, number = 0, 0
    while shown < min(ep.window.size, st.ready_count):
        _find_firsts(p, st, f, ep, shown, number)
        begin = shown
        for r in range(st.ready_count):
            s = st.ready[r]
            if ep.workflows[p.stages[s].workflow].first == s:
                shown = _insert(p, f, ep, s, begin, shown)
        number += 1
    return shown


@inlined
def _insert(
    p: ProblemArrays, f: FactsArrays, ep: EpisodeArrays, s: int, begin: int, shown: int
) -> int:
    """Insert stage ``s`` in order into the slots from ``begin`` on; return how many are shown."""
    window = ep.window
    if shown == window.size:
        if _sooner(p, f, ep, window[shown - 1], s):
            return shown
        shown -= 1
    i = shown
    while i > begin and _sooner(p, f, ep, s, window[i - 1]):
        window[i] = window[i - 1]
        i -= 1
    window[i] = s
    return shown + 1


@inlined
def _find_firsts(
    p: ProblemArrays, st: StateArrays, f: FactsArrays, ep: EpisodeArrays, shown: int, number: int
) -> None:
    """Find each workflow's best-ranked ready stage not shown yet, and the workflow's urgency.

    Urgency is what is left of the workflow after its ``number`` stages that have gone before.
    """
    for r in range(st.ready_count):
        s = st.ready[r]
        w = p.stages[s].workflow
        flow, size = ep.workflows[w], p.workflows[w].stages_to - p.workflows[w].stages_from
        flow.first = -1
        flow.urgency = (flow.unplaced - number) / size * f.stages[s].alone
    for i in range(shown):
        ep.stages[ep.window[i]].shown = -1
    for r in range(st.ready_count):
        s = st.ready[r]
        flow = ep.workflows[p.stages[s].workflow]
        if ep.stages[s].shown >= 0 and (flow.first < 0 or f.order[s] < f.order[flow.first]):
            flow.first = s


@inlined
def _sooner(p: ProblemArrays, f: FactsArrays, ep: EpisodeArrays, a: int, b: int) -> bool:
    """Return whether stage ``a`` goes before ``b``: more urgent workflow, then better rank."""
    ours = ep.workflows[p.stages[a].workflow].urgency
    theirs = ep.workflows[p.stages[b].workflow].urgency
    return ours < theirs or (ours == theirs and f.order[a] < f.order[b])
