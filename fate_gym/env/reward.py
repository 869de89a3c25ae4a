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

from fate_gym.compiled import inlined
from fate_gym.env.layout import LATENCY, SHAPED, FactsView, FrameView
from fate_gym.sim.layout import DONE, PLACED, TOOL_STAGE, ProblemView, StateView


@inlined
def survey(p: ProblemView, st: StateView, f: FactsView, fr: FrameView) -> None:
    """Bring what the frame knows of the workflows up to date, after an instant."""
    h = fr.head[0]
    h.instants = st.head[0].instants
    while h.arrived < st.head[0].next_arrival:
        w = p.arrivals[h.arrived]
        workflow = p.workflows[w]
        h.arrived += 1
        h.active += 1
        h.active_since += workflow.arrival
        h.stages += workflow.stages_to - workflow.stages_from
        fr.left[w] = workflow.stages_to - workflow.stages_from
        fr.counted[w] = h.ended_stages
        for s in range(workflow.stages_from, workflow.stages_to):
            if p.stages[s].kind != TOOL_STAGE:
                h.work += f.stages[s].best
    if p.head[0].choosers > 0 or p.head[0].failing > 0:
        # Stages vanish, and those that were lost have to be placed again.
        h.work = 0.0
        for i in range(h.arrived):
            workflow = p.workflows[p.arrivals[i]]
            for s in range(workflow.stages_from, workflow.stages_to):
                if st.stages[s].status < PLACED and p.stages[s].kind != TOOL_STAGE:
                    h.work += f.stages[s].best
    if h.active == 0:
        return
    ended = h.stages - st.head[0].known_left
    h.ended_stages = ended
    for i in range(h.arrived):
        w = p.arrivals[i]
        # As long as fewer stages have ended than were left of it, the workflow cannot have ended.
        if fr.left[w] == 0 or ended - fr.counted[w] < fr.left[w]:
            continue
        workflow = p.workflows[w]
        left, end = 0, 0.0
        for s in range(workflow.stages_from, workflow.stages_to):
            left += st.stages[s].status != DONE
            end = max(end, st.stages[s].end)
        fr.left[w], fr.counted[w] = left, ended
        if left == 0:
            h.active -= 1
            h.active_since -= workflow.arrival
            h.ended_latency += end - workflow.arrival


@inlined
def start_paying(p: ProblemView, st: StateView, f: FactsView, fr: FrameView) -> None:
    """Nothing is paid yet: the first step also pays for the time before the first decision."""
    h = fr.head[0]
    if h.reward == LATENCY:
        h.paid = 0.0
    else:
        h.paid = f.head[0].first_arrival
    h.estimate = last_end_estimate(p, st, f, fr)


@inlined
def pay(p: ProblemView, st: StateView, f: FactsView, fr: FrameView) -> float:
    """The reward of the step that led here."""
    h = fr.head[0]
    now = st.head[0].now
    if h.reward == LATENCY:
        due = (h.ended_latency + h.active * now - h.active_since) / p.workflows.size
        reward = h.paid - due
        h.paid = due
        return reward / f.head[0].unit
    reward = h.paid - now
    if h.reward == SHAPED:
        estimate = last_end_estimate(p, st, f, fr)
        reward += (h.estimate - h.paid) - h.discount * (estimate - now)
        h.estimate = estimate
    h.paid = now
    return reward / f.head[0].unit


@inlined
def last_end_estimate(p: ProblemView, st: StateView, f: FactsView, fr: FrameView) -> float:
    """C of the shaped reward, seconds; the last end itself when all is done."""
    h = fr.head[0]
    now = st.head[0].now
    if h.active == 0:
        return now
    estimate = now
    for r in range(st.head[0].ready):
        estimate = max(estimate, now + f.stages[st.ready[r]].path)
    stride = p.head[0].max_shards + 1
    for e in range(st.head[0].events):
        s = st.events[e].id // stride
        if st.stages[s].status == PLACED:
            # A shard that ends early promises less than the end of the stage: no harm.
            tail = f.stages[s].path - f.stages[s].best
            estimate = max(estimate, st.events[e].time + tail)
    work = max(0.0, h.work)
    for d in range(p.devices.size):
        # A device that is down drains at inf.
        if st.devices[d].drains_at < np.inf:
            work += max(now, st.devices[d].drains_at)
        else:
            work += now
    return max(estimate, work / p.devices.size)


__all__ = ["last_end_estimate", "pay", "start_paying", "survey"]
