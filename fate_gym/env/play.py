"""Reset and step, compiled, on top of the simulator's kernel."""

from __future__ import annotations

from typing import Any

from fate_gym.env.observe import observe, open_window
from fate_gym.env.output import HEAD_WORDS
from fate_gym.env.progress import begin_progress, count_placement, update_progress
from fate_gym.env.reward import begin_rewards, write_rewards
from fate_gym.env.schema import (
    EpisodeArrays,
    FactsArrays,
    LaneArrays,
    ObservationArrays,
    Run,
)
from fate_gym.jit import Ints, clear_block, inlined, kernel
from fate_gym.kernel.advance import advance, to_decision
from fate_gym.kernel.commit import NOBODY, commit
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import LogArrays, ProblemArrays, StateArrays

Outcome = tuple[float, float, bool, bool, bool, int, int, int]
"""The first reward, simulated seconds, terminated, truncated, whether the action was illegal.

Then the numbers of actions in the episode that placed, that waited and that were illegal.
"""


@kernel
def enter(run: Run, out: Ints, lane: int) -> None:
    """Begin to observe a run that is at its first decision, or at its end if it has none."""
    clear_block(run.episode)
    open_window(run.episode)
    begin_progress(run)
    update_progress(run)
    begin_rewards(run)
    observe(run, observation_in(out, lane))


@kernel
def look(run: Run, out: Ints, lane: int) -> None:
    """Observe a run that has gone on without the environment, or has been restored."""
    if run.state.instants > run.episode.instants:
        update_progress(run)
    observe(run, observation_in(out, lane))


@kernel
def step(run: Run, log: LogArrays, out: Ints, action: int) -> Outcome:
    """Play one action. An illegal one costs the penalty and changes nothing in the cluster."""
    _play(run, log, observation_in(out, 0), action)
    return _outcome(run)


@kernel
def after(run: Run, log: LogArrays, out: Ints, stage: int) -> Outcome:
    """Finish a step in which ``stage`` has been placed by other means than an action."""
    run.episode.steps += 1
    count_placement(run, stage)
    _settle(run, log)
    observe(run, observation_in(out, 0))
    return _outcome(run)


@kernel
def step_lanes(lanes: LaneArrays, log: LogArrays, out: Ints) -> int:
    """Make a `step` in every lane that does not rest; return how many episodes ended.

    ``log`` must have no rows.
    """
    over = 0
    for i in range(lanes.lanes.size):
        if lanes.terminated[i] or lanes.truncated[i]:
            lanes.terminated[i], lanes.truncated[i], lanes.invalid[i] = False, False, False
            for j in range(lanes.rewards.shape[1]):
                lanes.rewards[i, j] = 0.0
            continue
        lane = lanes.lanes[i]
        run = Run(
            ProblemArrays(lane.problem),
            StateArrays(lane.state),
            FactsArrays(lane.facts),
            EpisodeArrays(lane.episode),
            Placements(lane.placements),
            StateArrays(lane.scratch),
            LogArrays(lane.unlogged),
        )
        _play(run, log, observation_in(out, i), lanes.action[i])
        ep = run.episode
        late = lanes.most_steps > 0 and ep.steps >= lanes.most_steps
        for j in range(ep.rewards.size):
            lanes.rewards[i, j] = ep.rewards[j]
        lanes.time[i] = run.state.now
        lanes.terminated[i] = ep.ended != 0
        lanes.truncated[i] = ep.truncated != 0 or late
        lanes.invalid[i] = ep.invalid != 0
        lanes.placements[i], lanes.waits[i] = ep.placements, ep.waits
        lanes.invalid_steps[i] = ep.invalid_steps
        over += lanes.terminated[i] or lanes.truncated[i]
    return over


@inlined
def observation_in(out: Ints, lane: int) -> ObservationArrays:
    """Return the observation of a lane in a buffer of `fate_gym.env.output.Output`."""
    address: Any = int(out.ctypes.data) + 8 * HEAD_WORDS * lane
    return ObservationArrays(address)


@kernel
def _play(run: Run, log: LogArrays, out: ObservationArrays, action: int) -> None:
    ep = run.episode
    ep.steps += 1
    if _act(run, log, action):
        _settle(run, log)
    else:
        ep.invalid = 1
        ep.invalid_steps += 1
        ep.invalid_streak += 1
        ep.truncated = ep.invalid_streak >= run.facts.most_invalid
        for i in range(ep.rewards.size):
            ep.rewards[i] = -run.facts.penalty
    observe(run, out)


@inlined
def _outcome(run: Run) -> Outcome:
    ep = run.episode
    return (
        ep.rewards[0],
        run.state.now,
        ep.ended != 0,
        ep.truncated != 0,
        ep.invalid != 0,
        ep.placements,
        ep.waits,
        ep.invalid_steps,
    )


@inlined
def _act(run: Run, log: LogArrays, action: int) -> bool:
    """Place a stage or wait for the next event; return False if the action is illegal."""
    p, st, ep, c = run.problem, run.state, run.episode, run.placements
    last = c.rows.size
    if ep.ended or ep.truncated or action < 0 or action > last:
        return False
    if action == last:
        # A run that has nothing to decide ends with the first wait.
        if st.ready_count > 0 and not advance(p, st, log):
            return False
        ep.waits += 1
        return True
    positions = run.facts.positions
    slot, position = action // positions, action % positions
    if slot >= ep.shown:
        return False
    row = ep.lines[slot] * positions + position
    if c.rows[row].width == 0:
        return False
    s = c.rows[row].stage
    commit(p, st, log, s, c.devices[row], c.counts[row], c.rows[row].width, NOBODY)
    count_placement(run, s)
    return True


@inlined
def _settle(run: Run, log: LogArrays) -> None:
    """Go on to the next decision after a legal action, and compute its rewards."""
    st, ep = run.state, run.episode
    ep.invalid, ep.invalid_streak = 0, 0
    to_decision(run.problem, st, log)
    # Two instants may have the same time.
    if st.instants > ep.instants:
        update_progress(run)
    ep.ended = st.ready_count == 0
    write_rewards(run)
