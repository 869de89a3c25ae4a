"""One lane of play: reset and step, compiled. The simulator's engine does what is done."""

from __future__ import annotations

import numpy as np

from fate_gym.compiled import compiled, inlined
from fate_gym.env.layout import FRAME_HEAD, FactsView, FrameView, facts_view, frame_view
from fate_gym.env.observation import observe, open_window
from fate_gym.env.placements import deal
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
    """Look at a run that stands at its first decision, or at its end if there is none."""
    p = problem_view(problem)
    st = state_view(state, p)
    f = facts_view(facts, p)
    fr = frame_view(frame, p)
    open_window(fr)
    survey(p, st, f, fr)
    start_paying(p, st, f, fr)
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
    if _act(p, st, f, fr, log, action):
        _settle(p, st, f, fr, log)
    else:
        h.invalid = 1
        h.invalid_steps += 1
        h.gain = -h.penalty
    observe(problem, facts, state, frame, out)


@compiled
def after(
    problem: Buffer, facts: Buffer, state: Buffer, frame: Buffer, log: Log, out: Buffer, stage: int
) -> None:
    """What `step` does once ``stage`` has been placed, in whatever way."""
    p = problem_view(problem)
    st = state_view(state, p)
    f = facts_view(facts, p)
    fr = frame_view(frame, p)
    fr.head[0].steps += 1
    _count(f, fr, stage)
    _settle(p, st, f, fr, log)
    observe(problem, facts, state, frame, out)


@inlined
def _count(f: FactsView, fr: FrameView, s: int) -> None:
    fr.head[0].placements += 1
    fr.head[0].work -= f.stages[s].best


@inlined
def _settle(p: ProblemView, st: StateView, f: FactsView, fr: FrameView, log: Log) -> None:
    """Go on to the next decision, and pay."""
    h = fr.head[0]
    engine.to_decision(p, st, log)
    # Two instants may have the same time.
    if st.head[0].instants > h.instants:
        survey(p, st, f, fr)
    h.invalid = 0
    h.gain = pay(p, st, f, fr)
    h.ended = st.head[0].ready == 0
    h.time = st.head[0].now


@inlined
def _act(p: ProblemView, st: StateView, f: FactsView, fr: FrameView, log: Log, action: int) -> bool:
    """Place, or wait for the next event. False: the action is illegal."""
    h = fr.head[0]
    last = h.slots * h.positions
    if h.ended or action > last:
        return False
    if action == last:
        # A run that has nothing to decide ends with the first wait.
        if st.head[0].ready > 0 and not engine.advance(p.buffer, st.buffer, log):
            return False
        h.waits += 1
        return True
    k = deal(p, fr, action)
    if k == 0:
        return False
    s = fr.window[action // h.positions]
    engine.commit(p.buffer, st.buffer, log, s, fr.team, fr.deal, k)
    _count(f, fr, s)
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
    homes: Array,
    actions: Array,
    skip: Array,
    rewards: Array,
    ended: Array,
    invalid: Array,
) -> None:
    """`step` for every lane of a batch.

    Args:
        problems: buffers of the problems; that of lane i from ``homes[i] x strides[0]`` on.
        facts: likewise, from ``homes[i] x strides[1]`` on.
        states: buffers of all lanes, lane i from ``i x strides[2]`` on.
        frames: likewise, from ``i x strides[3]`` on.
        log: shared and empty.
        out: the observations of all lanes.
        strides: (4,) bytes.
        homes: (B,) places of the lanes' problems.
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
            table(problems, homes[i] * strides[0], strides[0], np.uint8),
            table(facts, homes[i] * strides[1], strides[1], np.uint8),
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


__all__ = ["after", "begin", "enter", "step", "step_lanes"]
