"""The core of list scheduling: decide one instant, play a whole run."""

from __future__ import annotations

import numpy as np

from fate_gym.jit import Ints, inlined, kernel
from fate_gym.kernel.advance import advance, to_decision
from fate_gym.kernel.commit import NOBODY, commit, reserve, set_drain
from fate_gym.kernel.estimate import strict_end_estimate
from fate_gym.kernel.fork import fork
from fate_gym.kernel.openings import is_open, starts_now
from fate_gym.kernel.placements import Placements
from fate_gym.kernel.schema import LogArrays, ProblemArrays, StateArrays
from fate_gym.kernel.undo import copy_counters, copy_device, copy_shards
from policies.list_scheduling.devices import best_placement, compared_ends
from policies.list_scheduling.orders import line_up, next_in, renew
from policies.list_scheduling.rules import MIN_MIN, STATE, STRICT, Rules


@kernel
def decide_instant(
    p: ProblemArrays, st: StateArrays, log: LogArrays, rules: Rules, choices: Placements
) -> int:
    """Place the ready stages in a state and record the choices, one row per stage.

    With lazy or strict rules, pass a scratch state: it does not end up as commits would leave it.

    Returns the number of choices that count: all placed stages, or with ``lazy`` those that start
    at once (stages planned for later still keep others from taking their device).
    """
    return _decide(p, st, log, rules, choices, st, 0)


@kernel
def plan_instant(
    p: ProblemArrays,
    st: StateArrays,
    no_log: LogArrays,
    rules: Rules,
    choices: Placements,
    scratch: StateArrays,
) -> int:
    """Record what lazy or strict rules choose, as `decide_instant`, but leave the state as it is.

    ``scratch`` is overwritten. Much faster than a copy of a large state for every event.
    """
    copy_counters(p, st, scratch)
    count = _decide(p, st, no_log, rules, choices, scratch, 1)
    copy_counters(p, scratch, st)
    return count


@kernel
def _decide(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    rules: Rules,
    choices: Placements,
    before: StateArrays,
    undo: int,
) -> int:
    """Decide an instant; with ``undo`` return to the state it began with, noted in ``before``."""
    choices.count = 0
    open_devices = 0
    for d in range(p.devices.size):
        open_devices += is_open(p, st, d)
    if rules.lazy and open_devices == 0:
        return 0
    line = line_up(p, st, rules)
    noted = np.zeros(p.devices.size if undo else 0, np.int64)
    chosen = np.empty(line.stages.size, np.int64)
    turns = 0
    while turns < line.stages.size and not (rules.lazy and open_devices == 0):
        i, row = next_in(line, turns), choices.count
        s, devices = line.stages[i], choices.devices[row]
        if rules.order < MIN_MIN:
            compared_ends(p, st, s, rules, choices.ends)
        else:
            for d in range(p.devices.size):
                choices.ends[d] = line.ends[i, d]
        if choices.compared.shape[0] > 0:
            for d in range(p.devices.size):
                choices.compared[row, d] = choices.ends[d]
        best_placement(p, st, s, rules.shards, choices, row)
        width = choices.rows[row].width
        starting = 0
        for k in range(width):
            # Not from the estimate: a shard that takes longer than expected still holds its device.
            starting += starts_now(p, st, s, devices[k], choices.counts[row, k])
            open_devices -= is_open(p, st, devices[k])
        if undo:
            _note(p, st, before, s, devices, width, noted)
        _occupy(p, st, log, rules, choices, row, undo)
        for k in range(width):
            open_devices += is_open(p, st, devices[k])
        renew(p, st, rules, line, devices, width)
        chosen[turns] = s
        turns += 1
        if starting == width or not rules.lazy:
            choices.count += 1
    if undo:
        _undo(p, before, st, chosen[:turns], noted)
    return choices.count


@inlined
def _note(
    p: ProblemArrays,
    st: StateArrays,
    before: StateArrays,
    s: int,
    devices: Ints,
    width: int,
    noted: Ints,
) -> None:
    """Note what a placement is about to change, unless an earlier one has changed it already."""
    copy_shards(p, st, before, s, width)
    for k in range(width):
        d = devices[k]
        if noted[d] == 0:
            noted[d] = 1
            copy_device(p, st, before, d)


@inlined
def _undo(
    p: ProblemArrays, before: StateArrays, st: StateArrays, chosen: Ints, noted: Ints
) -> None:
    """Undo the placements of ``chosen`` stages in ``st``."""
    for i in range(chosen.size):
        copy_shards(p, before, st, chosen[i], st.stages[chosen[i]].shards)
    for d in range(noted.size):
        if noted[d] > 0:
            copy_device(p, before, st, d)


@inlined
def _occupy(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    rules: Rules,
    choices: Placements,
    row: int,
    undo: int,
) -> None:
    """Place a choice in the state in which the instant is planned."""
    s, width = choices.rows[row].stage, choices.rows[row].width
    devices, counts = choices.devices[row], choices.counts[row]
    # A rule that is blind to residency and caches must not see their effect on the queue either.
    blind = rules.rule == STRICT and width == 1
    end = strict_end_estimate(p, st, s, devices[0]) if blind and not p.batching else 0.0
    if rules.lazy or undo or (blind and p.batching):
        reserve(p, st, log, s, devices, counts, width, int(blind))
    else:
        commit(p, st, log, s, devices, counts, width, NOBODY)
    if blind and not p.batching:
        set_drain(st, devices[0], end)


@kernel
def play(
    p: ProblemArrays,
    st: StateArrays,
    log: LogArrays,
    rules: Rules,
    choices: Placements,
    scratch: StateArrays,
    no_log: LogArrays,
    until: float,
) -> float:
    """Play a state to the end of the known work, or until a time; return the last end, seconds.

    The same as `Simulator.run` with a `policies.list_scheduling.policy.ListScheduler` of these
    rules. ``scratch`` is a second state of the problem, ``no_log`` a log without rows. A play
    stops at the first decision at or after ``until``, seconds.
    """
    while to_decision(p, st, log) and st.now < until:
        if not rules.lazy and rules.rule == STATE and not st.noisy:
            decide_instant(p, st, log, rules, choices)
            continue
        # Decide by expected times, then commit; a lazy scheduler waits for an event.
        if st.noisy or p.failing:
            fork(p, st, scratch)
            count = decide_instant(p, scratch, no_log, rules, choices)
        else:
            count = plan_instant(p, st, no_log, rules, choices, scratch)
        for i in range(count):
            devices, counts = choices.devices[i], choices.counts[i]
            commit(
                p, st, log, choices.rows[i].stage, devices, counts, choices.rows[i].width, NOBODY
            )
        if rules.lazy:
            advance(p, st, log)
    return st.last_end
