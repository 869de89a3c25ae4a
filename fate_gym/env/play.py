"""One lane of play: reset and step, compiled. The simulator's engine does what is done."""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.env.layout import FRAME_HEAD, FactsView, FrameView, facts_view, frame_view
from fate_gym.env.observation import observe
from fate_gym.env.reward import pay, start_paying, survey
from fate_gym.sim import engine
from fate_gym.sim.layout import (
    Array,
    Buffer,
    Log,
    ProblemView,
    StateView,
    problem_view,
    state_view,
)
from fate_gym.sim.tables import table


@compiled
def begin(
    problem: Buffer, facts: Buffer, state: Buffer, frame: Buffer, log: Log, out: Buffer, seed: int
) -> None:
    """Start an episode: time 0, advanced to the first decision.

    State and frame must be zero but for the options in the frame's head.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    engine.reset(p, st, seed)
    engine.to_decision(p, st, log)
    enter(problem, facts, state, frame, out)


@compiled
def enter(problem: Buffer, facts: Buffer, state: Buffer, frame: Buffer, out: Buffer) -> None:
    """Look at a run that stands at its first decision."""
    p = problem_view(problem)
    st = state_view(state, p)
    f = facts_view(facts, p)
    fr = frame_view(frame, p)
    survey(p, st, f, fr)
    start_paying(p, st, f, fr)
    fr.head[0].ended = st.head[0].ready == 0
    fr.head[0].time = st.head[0].now
    observe(problem, facts, state, frame, out)


@compiled
def step(
    problem: Buffer,
    facts: Buffer,
    state: Buffer,
    frame: Buffer,
    log: Log,
    out: Buffer,
    action: int,
) -> None:
    """Play one action; what came of it stands in the frame's head and in ``out``.

    An illegal action changes nothing and costs the penalty.
    """
    p = problem_view(problem)
    st = state_view(state, p)
    fr = frame_view(frame, p)
    h = fr.head[0]
    h.steps += 1
    f = facts_view(facts, p)
    before = st.head[0].now
    if _act(p, st, f, fr, log, action):
        if st.head[0].now > before:
            survey(p, st, f, fr)
        h.invalid = 0
        h.gain = pay(p, st, f, fr)
        h.ended = st.head[0].ready == 0
        h.time = st.head[0].now
    else:
        h.invalid = 1
        h.invalid_steps += 1
        h.gain = -h.penalty
    observe(problem, facts, state, frame, out)


@inlined
def _act(p: ProblemView, st: StateView, f: FactsView, fr: FrameView, log: Log, action: int) -> bool:
    """Place, or wait; then go on to the next decision. False: the action is illegal."""
    h = fr.head[0]
    last = h.slots * h.positions
    if h.ended or action < 0 or action > last:
        return False
    if action == last:
        if not engine.advance(p.buffer, st.buffer, log):
            return False
        h.waits += 1
    else:
        k = fr.widths[action]
        if k == 0:
            return False
        s = fr.window[action // h.positions]
        members, counts = fr.members[action], fr.counts[action]
        engine.commit(p.buffer, st.buffer, log, s, members, counts, k)
        h.placements += 1
        h.work -= f.stages[s].best
    engine.to_decision(p, st, log)
    return True


@compiled
def step_lanes(
    problems: Buffer,
    facts: Buffer,
    states: Buffer,
    frames: Buffer,
    log: Log,
    out: Buffer,
    strides: Array,
    actions: Array,
    skip: Array,
    rewards: Array,
    ended: Array,
    invalid: Array,
) -> None:
    """`step` for every lane of a batch.

    Args:
        problems: buffers of all lanes, lane i from ``i x strides[0]`` on.
        facts: likewise, from ``i x strides[1]`` on.
        states: likewise, from ``i x strides[2]`` on.
        frames: likewise, from ``i x strides[3]`` on.
        log: shared and empty.
        out: the observations of all lanes.
        strides: (4,) bytes.
        actions: (B,).
        skip: (B,) lanes that stay as they are.
        rewards: (B,) written for the lanes that play.
        ended: likewise.
        invalid: likewise.
    """
    for i in range(actions.size):
        if skip[i]:
            continue
        frame = table(frames, i * strides[3], strides[3], np.uint8)
        step(
            table(problems, i * strides[0], strides[0], np.uint8),
            table(facts, i * strides[1], strides[1], np.uint8),
            table(states, i * strides[2], strides[2], np.uint8),
            frame,
            log,
            out,
            actions[i],
        )
        head = table(frame, 0, 1, FRAME_HEAD)[0]
        rewards[i] = head.gain
        ended[i] = head.ended
        invalid[i] = head.invalid


__all__ = ["begin", "enter", "step", "step_lanes"]
