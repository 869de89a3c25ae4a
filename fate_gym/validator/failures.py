"""Failures of devices, and what is lost with them.

Re-implements the section "Failures" of docs/execution-model.md, with the outages in the trace.
"""

from __future__ import annotations

import math
from bisect import insort

from fate_gym.validator.state import Memory, Placement, Shard, State, close
from fate_gym.validator.world import CONTEXT


def check_outages(state: State) -> None:
    """Check that outages are those that the problem gives, or alternate with repairs."""
    failures, stop = state.world.problem.options.failures, state.faults.stop
    names = [machine.name for machine in state.world.machines]
    up_again: dict[int, float] = {}
    for down, up, device in state.outages:
        if not (0 <= device < len(names) and up_again.get(device, -1.0) < down < up):
            stop(f"outages: device {device} from {down!r} to {up!r} cannot be")
        up_again[device] = up
    if state.outages != sorted(state.outages, key=lambda outage: (outage[0], outage[2])):
        stop("outages: not in the order of their failures")
    if failures is None:
        if state.outages:
            stop("outages: none was expected")
    elif failures.outages:
        last = max((float(end) for end in state.trace.stage_end), default=0.0)
        given = {(names.index(o.device), o.at, o.at + o.seconds) for o in failures.outages}
        got = {(device, down, up) for down, up, device in state.outages}
        if not got <= given or any(down < last for _, down, _ in given - got):
            stop(f"outages: expected {sorted(given)}, got {sorted(got)}")


def pass_time(state: State, now: float, *, failures_too: bool) -> None:
    """Apply what happens until ``now``: failures, and ends of placements that lost a shard.

    Args:
        state: the replay so far.
        now: the time to go to.
        failures_too: whether to include failures at ``now`` itself.
    """
    while True:
        over = min(state.losing, key=lambda placement: placement.barrier, default=None)
        barrier = over.barrier if over else math.inf
        down = state.outages[0][0] if state.outages else math.inf
        if min(barrier, down) > now or barrier == down == math.inf:
            return
        if over and barrier <= down:
            state.losing.remove(over)
            state.again[over.node.number] = barrier
            insort(state.events, barrier)
            for device in over.shards:
                state.memories[device].kv.pop((CONTEXT, over.node.number), None)
        elif failures_too or down < now:
            _fail(state, *state.outages.pop(0))
        else:
            return


def check_survivors(state: State) -> None:
    """Check the times of the shards that no failure has cut short."""
    for placement in state.done.values():
        for shard in placement.shards.values():
            if shard.row["lost"]:
                where = state.at(shard.row)
                state.faults.append(f"{where}: lost: expected 0, the device does not fail")
            _compare_times(state, shard, shard.turn, shard.end)


def _fail(state: State, down: float, up: float, device: int) -> None:
    """Take a device down: it loses its memory and the shards that have not ended."""
    state.up_at[device] = up
    state.memories[device] = Memory()
    for placement in [*state.done.values(), *state.losing]:
        shard = placement.shards.get(device)
        if shard is None or shard.lost:
            continue
        # Within rounding of the failure both are possible: the trace decides.
        ended = not shard.row["lost"] if close(shard.end, down) else shard.end <= down
        if ended:
            placement.away.add(device)
        else:
            _lose(state, placement, shard, down)


def _lose(state: State, placement: Placement, shard: Shard, down: float) -> None:
    """Note that a shard is lost: its stage has to run again."""
    shard.lost = True
    if not shard.row["lost"]:
        where = state.at(shard.row)
        state.faults.append(f"{where}: lost: expected 1, the device fails at {down!r}")
    _compare_times(state, shard, min(shard.turn, down), down)
    if placement not in state.losing:
        del state.done[placement.node.number]
        state.losing.append(placement)
    # By the trace's own ends: at the last of them the stage may be placed again.
    others = [other for other in placement.shards.values() if not other.lost]
    left = [other.end if other.row["lost"] else other.row["end"] for other in others]
    placement.barrier = max([down, *left])


def _compare_times(state: State, shard: Shard, start: float, end: float) -> None:
    state.faults.differ(state.at(shard.row), "start", start, shard.row["start"])
    state.faults.differ(state.at(shard.row), "end", end, shard.row["end"])
