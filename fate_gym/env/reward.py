"""Rewards, in units of ``reward_scale`` seconds; each adds up to a known return.

Time 0 is the first arrival and T the last end; the sum runs over the steps of one episode without
illegal actions.

* makespan: minus the time that has passed. Return: -T.
* latency: minus the time that workflows have spent in the system, a mean over all workflows of
  the problem. Return: minus the mean latency.
* shaped: makespan plus ``discount · Φ(s') - Φ(s)`` with Φ = -(C - now), which leaves the optimal
  policies as they are (Ng, Harada and Russell 1999). C estimates the last end: the latest of the
  ends that stages under way and ready stages force upon their workflows (their end, expected or
  best, plus the best seconds of the longest way behind it), and of the time at which all known
  work would be done if it were spread evenly. Without discounting a reward is minus the growth of
  C, as in Zhang et al. 2020 (Learning to dispatch for job shop scheduling), and the return is
  minus (T - first estimate).
"""

from __future__ import annotations

import numpy as np

from fate_gym.env.observe.load import has_work
from fate_gym.env.schema import LATENCY, MAKESPAN, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.foresight import foresee_ends
from fate_gym.kernel.estimate import undisturbed
from fate_gym.kernel.numbers import arriving, event_of
from fate_gym.kernel.schema import DONE, PLACED, TOOL_STAGE


@kernel
def update_progress(run: Run) -> None:
    """Bring what the episode knows of the workflows up to date, after an instant."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    ep.instants = st.instants
    while ep.arrived < st.arrived_count:
        w = st.arrived[ep.arrived]
        workflow = p.workflows[w]
        count = workflow.stages_to - workflow.stages_from
        ep.arrived += 1
        ep.active += 1
        ep.active_since += st.workflows[w].arrived_at
        ep.known_stages += count
        ep.workflows[w].left = count
        ep.workflows[w].counted = ep.ended_stages
        for s in range(workflow.stages_from, workflow.stages_to):
            # Some have been placed when a run is looked at for the first time.
            if st.stages[s].status < PLACED and p.stages[s].kind != TOOL_STAGE:
                ep.work += f.stages[s].best
    if p.choosers > 0 or p.failing > 0:
        # Stages vanish, and those that were lost have to be placed again.
        ep.work = _unplaced_work(run)
    if ep.active > 0:
        _count_ends(run)


@inlined
def _unplaced_work(run: Run) -> float:
    p, st = run.problem, run.state
    work = 0.0
    for i in range(run.episode.arrived):
        workflow = p.workflows[st.arrived[i]]
        for s in range(workflow.stages_from, workflow.stages_to):
            if st.stages[s].status < PLACED and p.stages[s].kind != TOOL_STAGE:
                work += run.facts.stages[s].best
    return work


@inlined
def _count_ends(run: Run) -> None:
    p, st, ep = run.problem, run.state, run.episode
    ended = ep.known_stages - st.known_left
    ep.ended_stages = ended
    for i in range(ep.arrived):
        w = st.arrived[i]
        progress = ep.workflows[w]
        # As long as fewer stages have ended than were left of it, the workflow cannot have ended.
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


@inlined
def begin_rewards(run: Run) -> None:
    """The first step is also rewarded for the time before the first decision."""
    run.episode.rewarded = run.facts.first_arrival
    run.episode.estimate = last_end_estimate(run)


@inlined
def write_rewards(run: Run) -> None:
    """The rewards of the step that led here, one for each objective."""
    f, ep, now = run.facts, run.episode, run.state.now
    for i in range(f.objectives.size):
        if f.objectives[i] == MAKESPAN:
            ep.rewards[i] = (ep.rewarded - now) / f.unit
        elif f.objectives[i] == LATENCY:
            latency = (ep.ended_latency + ep.active * now - ep.active_since) / ep.workflows.size
            ep.rewards[i] = (ep.latency - latency) / f.unit
            ep.latency = latency
        else:
            estimate = last_end_estimate(run)
            reward = ep.rewarded - now
            reward += (ep.estimate - ep.rewarded) - f.discount * (estimate - now)
            ep.rewards[i] = reward / f.unit
            ep.estimate = estimate
    ep.rewarded = now


@kernel
def last_end_estimate(run: Run) -> float:
    """C of the shaped reward, seconds; the last end itself when all is done."""
    p, st, f = run.problem, run.state, run.facts
    estimate = st.now
    if run.episode.active == 0:
        return estimate
    for r in range(st.ready_count):
        estimate = max(estimate, st.now + f.stages[st.ready[r]].path)
    if p.batching:
        estimate = max(estimate, _forced_by_batches(run))
    for e in range(st.event_count):
        if arriving(p, st.events[e].id) >= 0:
            continue
        s, _ = event_of(p, st.events[e].id)
        if st.stages[s].status == PLACED:
            # A shard that ends early promises less than the end of the stage: no harm.
            tail = f.stages[s].path - f.stages[s].best
            estimate = max(estimate, st.events[e].time + tail)
    work = max(0.0, run.episode.work)
    for d in range(p.devices.size):
        drained = st.devices[d].drains_at
        if p.batching:
            drained, _ = undisturbed(p, st, d)
        # A device that is down drains at inf.
        work += max(st.now, drained) if drained < np.inf else st.now
    return max(estimate, work / p.devices.size)


@kernel
def _forced_by_batches(run: Run) -> float:
    """The latest end that the stages on batching devices force upon their workflows."""
    p, st, f, ends = run.problem, run.state, run.facts, run.episode.forced
    for s in range(ends.size):
        ends[s] = 0.0
    for d in range(p.devices.size):
        if st.devices[d].drains_at < np.inf and has_work(p, st, d):
            foresee_ends(p, st, d, ends)
    estimate = 0.0
    for s in range(ends.size):
        if ends[s] > 0.0:
            end = ends[s] + (st.stages[s].shards - 1) * p.gather_s
            estimate = max(estimate, end + f.stages[s].path - f.stages[s].best)
    return estimate
