"""Reset and step, compiled. What is done, the simulator's kernel does."""

from __future__ import annotations

from typing import Any

from fate_gym.env.observe import observe, open_window
from fate_gym.env.output import HEAD_WORDS
from fate_gym.env.reward import begin_rewards, step_reward, update_progress
from fate_gym.env.schema import (
    EpisodeArrays,
    FactsArrays,
    LaneArrays,
    ObservationArrays,
)
from fate_gym.jit import Ints, clear_block, inlined, kernel
from fate_gym.kernel.advance import advance, to_decision
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import LogArrays, ProblemArrays, StateArrays

Outcome = tuple[float, float, bool, bool]
"""Reward, simulated seconds, whether the episode has ended, whether the action was illegal."""


@kernel
def enter(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    out: Ints,
    lane: int,
) -> None:
    """Begin to observe a run that stands at its first decision, or at its end if there is none."""
    clear_block(ep)
    open_window(ep)
    update_progress(p, st, f, ep)
    begin_rewards(p, st, f, ep)
    observe(p, st, f, ep, c, observation_in(out, lane))


@kernel
def look(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    out: Ints,
    lane: int,
) -> None:
    """Observe a run that has gone on by itself, or has been restored."""
    if st.instants > ep.instants:
        update_progress(p, st, f, ep)
    observe(p, st, f, ep, c, observation_in(out, lane))


@kernel
def step(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    log: LogArrays,
    out: Ints,
    action: int,
) -> Outcome:
    """Play one action. An illegal one changes nothing and costs the penalty."""
    return _play(p, st, f, ep, c, log, observation_in(out, 0), action)


@kernel
def after(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    log: LogArrays,
    out: Ints,
    stage: int,
) -> Outcome:
    """What `step` does once ``stage`` has been placed, in whatever way."""
    ep.steps += 1
    count_placement(f, ep, stage)
    ep.invalid = 0
    reward = _settle(p, st, f, ep, log)
    observe(p, st, f, ep, c, observation_in(out, 0))
    return reward, st.now, ep.ended != 0, False


@kernel
def step_lanes(lanes: LaneArrays, log: LogArrays, out: Ints) -> int:
    """`step` for every lane that does not rest; returns how many episodes ended.

    ``log`` has no rows.
    """
    over = 0
    for i in range(lanes.lanes.size):
        lane = lanes.lanes[i]
        if lane.ended:
            lane.reward, lane.ended, lane.invalid = 0.0, False, False
            continue
        lane.reward, lane.time, lane.ended, lane.invalid = _play(
            ProblemArrays(lane.problem),
            StateArrays(lane.state),
            FactsArrays(lane.facts),
            EpisodeArrays(lane.episode),
            Placements(lane.placements),
            log,
            observation_in(out, i),
            lane.action,
        )
        over += lane.ended
    return over


@kernel
def note(f: FactsArrays, ep: EpisodeArrays, stage: int) -> None:
    """Before somebody else places ``stage``."""
    count_placement(f, ep, stage)


@inlined
def observation_in(out: Ints, lane: int) -> ObservationArrays:
    """The observation of a lane in a buffer of `fate_gym.env.output.Output`."""
    address: Any = int(out.ctypes.data) + 8 * HEAD_WORDS * lane
    return ObservationArrays(address)


@inlined
def count_placement(f: FactsArrays, ep: EpisodeArrays, s: int) -> None:
    """Stage ``s`` has been placed."""
    ep.placements += 1
    ep.work -= f.stages[s].best


@inlined
def _row_of(f: FactsArrays, ep: EpisodeArrays, action: int) -> int:
    """The row of the placement of an action below R; -1 if its slot is empty."""
    slot = action // f.positions
    if action < 0 or slot >= ep.shown:
        return -1
    return ep.lines[slot] * f.positions + action % f.positions


@kernel
def _play(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    log: LogArrays,
    out: ObservationArrays,
    action: int,
) -> Outcome:
    ep.steps += 1
    reward = -f.penalty
    if _act(p, st, f, ep, c, log, action):
        ep.invalid = 0
        reward = _settle(p, st, f, ep, log)
    else:
        ep.invalid = 1
        ep.invalid_steps += 1
    observe(p, st, f, ep, c, out)
    return reward, st.now, ep.ended != 0, ep.invalid != 0


@inlined
def _act(
    p: ProblemArrays,
    st: StateArrays,
    f: FactsArrays,
    ep: EpisodeArrays,
    c: Placements,
    log: LogArrays,
    action: int,
) -> bool:
    """Place, or wait for the next event. False: the action is illegal."""
    last = ep.window.size * f.positions
    if ep.ended or action > last:
        return False
    if action == last:
        # A run that has nothing to decide ends with the first wait.
        if st.ready_count > 0 and not advance(p, st, log):
            return False
        ep.waits += 1
        return True
    row = _row_of(f, ep, action)
    if row < 0 or c.rows[row].width == 0:
        return False
    s = c.rows[row].stage
    commit(p, st, log, s, c.devices[row], c.counts[row], c.rows[row].width, NOBODY)
    count_placement(f, ep, s)
    return True


@inlined
def _settle(
    p: ProblemArrays, st: StateArrays, f: FactsArrays, ep: EpisodeArrays, log: LogArrays
) -> float:
    """Go on to the next decision; returns the reward."""
    to_decision(p, st, log)
    # Two instants may have the same time.
    if st.instants > ep.instants:
        update_progress(p, st, f, ep)
    ep.ended = st.ready_count == 0
    return step_reward(p, st, f, ep)
