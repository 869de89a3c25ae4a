"""Whether a placement was allowed: its time, its devices, and the queries on each.

Re-implements "Where things run" and the event times of "Time" in docs/execution-model.md.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from fate_gym.validator.state import Row, State, close
from fate_gym.validator.world import HOST, Node


def check_moment(state: State, node: Node, shards: list[Row]) -> None:
    """Check when a placement was committed."""
    missing = [s for s in state.awaited(node) if state.decider(s) not in state.done]
    if missing:
        names = ", ".join(state.world.nodes[parent].name for parent in missing)
        state.faults.stop(f"{node.name}: committed before what it awaits ran: {names}")
    now, ready = shards[0]["committed"], state.ready(node)
    if not math.isfinite(now):
        state.faults.stop(f"{node.name}: committed at {now!r}")
    if any(row["committed"] != now for row in shards):
        state.faults.append(f"{node.name}: shards of one placement committed at several times")
    if now < state.last_commit:
        state.faults.append(
            f"{node.name}: committed at {now!r}, after a commit at {state.last_commit!r}"
        )
    state.last_commit = now
    if now < ready and not close(now, ready):
        state.faults.append(f"{node.name}: committed at {now!r}, but ready only at {ready!r}")
    if node.stage.kind == "tool":
        state.faults.differ(f"{node.name}, host", "committed (= ready)", ready, now)
        return
    at = bisect_left(state.events, now)
    if not any(close(now, event) for event in state.events[max(0, at - 1) : at + 1]):
        state.faults.append(f"{node.name}: committed at {now!r}, which is no event's time")


def check_split(state: State, node: Node, shards: list[Row]) -> None:
    """Check which devices got how many queries."""
    devices, counts, slots = (
        [row[name] for row in shards] for name in ("device", "queries", "slot")
    )
    stop = state.faults.stop
    if slots != list(range(len(shards))):
        state.faults.append(f"{node.name}: slots: expected 0..{len(shards) - 1}, got {slots}")
    if min(counts) < 1 or sum(counts) != node.stage.queries:
        stop(f"{node.name}: queries: expected a sum of {node.stage.queries}, got {counts}")
    if node.stage.kind == "tool":
        if devices != [HOST]:
            stop(f"{node.name}: device: expected [{HOST}] (the host), got {devices}")
        return
    most = state.world.problem.options.max_shards
    if len(devices) > most:
        state.faults.append(f"{node.name}: {len(devices)} shards, more than max_shards = {most}")
    if len(set(devices)) != len(devices):
        stop(f"{node.name}: device: two shards on one device, {devices}")
    for device in devices:
        if not 0 <= device < len(state.world.machines):
            stop(f"{node.name}: device: unknown device number {device}")
        where = f"{node.name}, {state.device_name(device)}"
        if shards[0]["committed"] < state.up_at[device]:
            state.faults.append(f"{where}: committed while it is down")
        if not state.world.can_host(node, state.world.machines[device]):
            stop(f"{where}: the device cannot host the stage")
