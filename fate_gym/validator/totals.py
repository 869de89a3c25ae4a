"""Checks that need no replay, or follow it: numbering, evictions, order, totals.

Re-implements the numbering and the ends of stages ("Time") of docs/execution-model.md.
"""

from __future__ import annotations

import math
from typing import Any

from fate_gym.validator.state import Row, State, close
from fate_gym.validator.world import HOST


def check_numbering(state: State) -> None:
    """Compare the numbering and the lengths of the arrays."""
    world, trace, faults = state.world, state.trace, state.faults
    workflows = world.problem.workflows
    expected: dict[str, list[Any]] = {
        "stage_ids": [
            (workflow.id, stage.id) for workflow in workflows for stage in workflow.stages
        ],
        "model_names": world.models,
        "prefix_keys": list(world.prefixes),
        "device_ids": [machine.name for machine in world.machines],
        "workflow_of": [node.workflow for node in world.nodes],
    }
    for name, want in expected.items():
        got = [tuple(x) if isinstance(x, list) else x for x in getattr(trace, name)]
        if got != want:
            faults.append(f"trace: {name}: expected {want}, got {got}")
    of_stages = dict.fromkeys(
        ("stage_ready", "stage_end", "stage_vanished", "draws"), len(world.nodes)
    )
    of_workflows = dict.fromkeys(("workflow_arrival", "workflow_end", "latencies"), len(workflows))
    for name, length in (of_stages | of_workflows).items():
        found = len(getattr(trace, name))
        if found != length:
            faults.append(f"trace: {name}: expected {length} values, got {found}")


def check_evictions(state: State) -> None:
    """Compare the evictions, one by one."""
    faults, rows = state.faults, list(state.trace.evictions)
    if len(rows) != len(state.evicted):
        faults.append(f"evictions: expected {len(state.evicted)} rows, got {len(rows)}")
    for i, (expected, row) in enumerate(zip(state.evicted, rows, strict=False)):
        got = tuple(int(row[name]) for name in ("shard", "device", "kind", "key"))
        if got != expected[:4]:
            faults.append(
                f"eviction {i}: (shard, device, kind, key): expected {expected[:4]}, got {got}"
            )
        faults.differ(f"eviction {i}", "bytes", expected[4], row["bytes"])


def check_turns(state: State, rows: list[Row]) -> None:
    """Check that no device runs two shards at once, by the trace's own times."""
    busy: dict[int, float] = {}
    for row in rows:
        start, end = row["start"], row["end"]
        if not start <= end:
            state.faults.append(f"{state.at(row)}: ends at {end!r}, before it starts")
        if row["device"] == HOST:
            continue
        before = busy.get(row["device"], 0.0)
        if start < before and not close(start, before):
            state.faults.append(
                f"{state.at(row)}: starts at {start!r}, but the device is busy until {before!r}"
            )
        busy[row["device"]] = end


def check_totals(state: State) -> None:
    """Compare the times of stages and workflows, and the makespan."""
    trace, differ = state.trace, state.faults.differ
    if any(state.decider(node.number) not in state.done for node in state.world.nodes):
        return
    workflows = state.world.problem.workflows
    ends = [0.0] * len(workflows)
    for node in state.world.nodes:
        vanished = node.number in state.vanished_by
        if bool(trace.stage_vanished[node.number]) != vanished:
            state.faults.append(f"{node.name}: stage_vanished: expected {vanished}")
        end = state.done[state.decider(node.number)].end
        ready = end if vanished else state.ready(node)
        differ(node.name, "stage_ready", ready, trace.stage_ready[node.number])
        differ(node.name, "stage_end", end, trace.stage_end[node.number])
        if not vanished:
            ends[node.workflow] = max(ends[node.workflow], end)
    arrivals = [state.arrival(i) for i in range(len(workflows))]
    for i, workflow in enumerate(workflows):
        where, latency = f"workflow '{workflow.id}'", ends[i] - arrivals[i]
        differ(where, "workflow_arrival", arrivals[i], trace.workflow_arrival[i])
        differ(where, "workflow_end", ends[i], trace.workflow_end[i])
        differ(where, "latency", latency, trace.latencies[i], ends[i])
    makespan = max(ends) - min(arrivals)
    differ("trace", "makespan", makespan, trace.makespan, max(ends))
    seconds = [float(value) for value in trace.decision_seconds]
    if not all(value >= 0 and math.isfinite(value) for value in seconds):
        state.faults.append("trace: decision_seconds: negative or not finite")
    differ("trace", "planning_seconds", math.fsum(seconds), trace.planning_seconds)
