"""The progress of workflows: what has arrived, what has ended, and what is not placed."""

from __future__ import annotations

from fate_gym.env.schema import Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.schema import DONE, PLACED, TOOL_STAGE


@inlined
def begin_progress(run: Run) -> None:
    """Initialise the progress; the rest of the episode must be zero."""
    for w in range(run.facts.ideal.size):
        run.episode.to_come += run.facts.ideal[w]


@kernel
def update_progress(run: Run) -> None:
    """Update the progress of the workflows after an instant."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    ep.instants = st.instants
    while ep.arrived < st.arrived_count:
        w = st.arrived[ep.arrived]
        workflow = p.workflows[w]
        count = workflow.stages_to - workflow.stages_from
        ep.arrived += 1
        ep.active += 1
        ep.active_since += st.workflows[w].arrived_at
        ep.to_come -= f.ideal[w]
        ep.known_stages += count
        ep.workflows[w].left = count
        ep.workflows[w].counted = ep.ended_stages
        # Stages may have been placed before the run is first observed.
        recount(run, w)
        ep.work += ep.workflows[w].work
    if p.choosers > 0 or p.failing > 0:
        # Stages may vanish, and stages with lost shards have to be placed again.
        ep.work = 0.0
        for i in range(ep.arrived):
            recount(run, st.arrived[i])
            ep.work += ep.workflows[st.arrived[i]].work
    if ep.active > 0:
        _count_ends(run)


@kernel
def recount(run: Run, w: int) -> None:
    """Count the stages of workflow ``w`` not placed; placements are then subtracted singly."""
    p, st, f = run.problem, run.state, run.facts
    flow = run.episode.workflows[w]
    flow.recounted = st.instants + 1
    flow.unplaced, flow.work = 0, 0.0
    for s in range(p.workflows[w].stages_from, p.workflows[w].stages_to):
        if st.stages[s].status < PLACED:
            flow.unplaced += 1
            if p.stages[s].kind != TOOL_STAGE:
                flow.work += f.stages[s].best


@kernel
def count_placement(run: Run, s: int) -> None:
    """Count the placement of stage ``s``."""
    best = run.facts.stages[s].best
    flow = run.episode.workflows[run.problem.stages[s].workflow]
    flow.unplaced -= 1
    flow.work -= best
    run.episode.placements += 1
    run.episode.work -= best


@inlined
def _count_ends(run: Run) -> None:
    p, st, ep = run.problem, run.state, run.episode
    ended = ep.known_stages - st.known_left
    ep.ended_stages = ended
    for i in range(ep.arrived):
        w = st.arrived[i]
        progress = ep.workflows[w]
        # A workflow cannot have ended before as many stages have ended as it had left.
        if progress.left == 0 or ended - progress.counted < progress.left:
            continue
        workflow = p.workflows[w]
        left, end = 0, 0.0
        for s in range(workflow.stages_from, workflow.stages_to):
            left += st.stages[s].status != DONE
            end = max(end, st.stages[s].end)
        progress.left, progress.counted = left, ended
        if left == 0:
            ep.active -= 1
            ep.active_since -= st.workflows[w].arrived_at
            ep.ended_latency += end - st.workflows[w].arrived_at
