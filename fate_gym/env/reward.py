"""Rewards, in units of ``reward_scale`` seconds; each adds up to a known return.

Time 0 is the first arrival and T the last end; the sum runs over the steps of one episode without
illegal actions.

* makespan: minus the time that has passed. Return: -T.
* latency: minus the time that workflows have spent in the system, a mean over all workflows of
  the problem. Return: minus the mean latency.
* shaped: makespan plus ``discount · Φ(s') - Φ(s)`` with Φ = -(C - now), which keeps the optimal
  policies (Ng, Harada and Russell 1999). C estimates the last end: the maximum of the ends that
  running and ready stages imply for their workflows (their expected or best end, plus the best
  seconds of the longest path after them), and of the time at which all known work would be done
  if it were spread evenly. Without discounting a reward is minus the growth of C, as in Zhang et
  al. 2020 (Learning to dispatch for job shop scheduling), and the return is minus (T - first
  estimate).
* shaped_latency: the same for the mean latency. The end of each workflow under way is estimated
  like the last end, from its own stages and work; workflows that have not arrived are assumed to
  run alone, so that an arrival by itself costs nothing. Without discounting the return is minus
  (mean latency - first estimate). Its unit is the mean of the least latencies / stages x 100, so
  that one placement changes about as much in a workflow of ten stages as in a stream of thousands.
"""

from __future__ import annotations

import numpy as np

from fate_gym.env.observe.load import has_work
from fate_gym.env.schema import LATENCY, MAKESPAN, SHAPED, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.batching.foresight import foresee_ends
from fate_gym.kernel.estimate import undisturbed
from fate_gym.kernel.numbers import arriving, event_of
from fate_gym.kernel.schema import PLACED


@inlined
def begin_rewards(run: Run) -> None:
    """Initialise the rewards; the first step also covers the time before the first decision."""
    run.episode.rewarded = run.facts.first_arrival
    run.episode.estimate = last_end_estimate(run)
    run.episode.latency_estimate = latency_estimate(run)


@inlined
def write_rewards(run: Run) -> None:
    """Write the rewards of the last step, one for each objective."""
    f, ep, now = run.facts, run.episode, run.state.now
    for i in range(f.objectives.size):
        if f.objectives[i] == MAKESPAN:
            ep.rewards[i] = (ep.rewarded - now) / f.unit
        elif f.objectives[i] == LATENCY:
            latency = _latency_so_far(run)
            ep.rewards[i] = (ep.latency - latency) / f.unit
            ep.latency = latency
        elif f.objectives[i] == SHAPED:
            estimate = last_end_estimate(run)
            reward = ep.rewarded - now
            reward += (ep.estimate - ep.rewarded) - f.discount * (estimate - now)
            ep.rewards[i] = reward / f.unit
            ep.estimate = estimate
        else:
            expected, passed = latency_estimate(run), _latency_so_far(run)
            reward = ep.latency_passed - passed
            reward += ep.latency_estimate - ep.latency_passed
            reward -= f.discount * (expected - passed)
            ep.rewards[i] = reward / f.latency_unit
            ep.latency_estimate, ep.latency_passed = expected, passed
    ep.rewarded = now


@inlined
def _latency_so_far(run: Run) -> float:
    """Return the mean time that workflows have spent in the system up to now, seconds."""
    ep = run.episode
    waiting = ep.active * run.state.now - ep.active_since
    return (ep.ended_latency + waiting) / ep.workflows.size


@kernel
def latency_estimate(run: Run) -> float:
    """Return the estimated mean latency, seconds; the actual one when all is done."""
    p, st, ep = run.problem, run.state, run.episode
    total = ep.ended_latency + ep.to_come
    if ep.active > 0:
        _expect_ends(run)
        drained = _drained(run)
        for i in range(ep.arrived):
            w = st.arrived[i]
            if ep.workflows[w].left > 0:
                spread = (drained + max(0.0, ep.workflows[w].work)) / p.devices.size
                end = max(st.now, ep.expected[w], spread)
                total += end - st.workflows[w].arrived_at
    return total / ep.workflows.size


@kernel
def last_end_estimate(run: Run) -> float:
    """Return C of the shaped reward, seconds; the actual last end when all is done."""
    ep, estimate = run.episode, run.state.now
    if ep.active == 0:
        return estimate
    _expect_ends(run)
    for w in range(ep.expected.size):
        estimate = max(estimate, ep.expected[w])
    return max(estimate, (_drained(run) + max(0.0, ep.work)) / run.problem.devices.size)


@inlined
def _drained(run: Run) -> float:
    """Return the sum over devices of when they finish what is placed on them, seconds."""
    p, st = run.problem, run.state
    total = 0.0
    for d in range(p.devices.size):
        drained = st.devices[d].drains_at
        if p.batching:
            drained, _ = undisturbed(p, st, d)
        # A device that is down drains at inf.
        total += max(st.now, drained) if drained < np.inf else st.now
    return total


@kernel
def _expect_ends(run: Run) -> None:
    """Set the ends that running and ready stages imply for their workflows."""
    p, st, f, ends = run.problem, run.state, run.facts, run.episode.expected
    for w in range(ends.size):
        ends[w] = 0.0
    for r in range(st.ready_count):
        s = st.ready[r]
        w = p.stages[s].workflow
        ends[w] = max(ends[w], st.now + f.stages[s].path)
    if p.batching:
        _expect_batches(run)
    for e in range(st.event_count):
        if arriving(p, st.events[e].id) >= 0:
            continue
        s, _ = event_of(p, st.events[e].id)
        if st.stages[s].status == PLACED:
            # If a shard ends before its stage does, this only lowers the estimate: no harm.
            tail = f.stages[s].path - f.stages[s].best
            w = p.stages[s].workflow
            ends[w] = max(ends[w], st.events[e].time + tail)


@kernel
def _expect_batches(run: Run) -> None:
    """Set the ends implied by stages on batching devices."""
    p, st, f, ends = run.problem, run.state, run.facts, run.episode.forced
    for s in range(ends.size):
        ends[s] = 0.0
    for d in range(p.devices.size):
        if st.devices[d].drains_at < np.inf and has_work(p, st, d):
            foresee_ends(p, st, d, ends)
    expected = run.episode.expected
    for s in range(ends.size):
        if ends[s] > 0.0:
            w = p.stages[s].workflow
            end = ends[s] + (st.stages[s].shards - 1) * p.gather_s
            expected[w] = max(expected[w], end + f.stages[s].path - f.stages[s].best)
