"""Comparison of a trace's columns with the replayed values."""

from __future__ import annotations

from fate_gym.validator.batching.waves import Job
from fate_gym.validator.state import Row, State


def compare_ended(state: State, job: Job, end: float) -> None:
    """Compare the row of a shard that has ended."""
    row, found, where, differ = job.row, job.found, state.at(job.row), state.faults.differ
    inputs = found.start + max(found.load, found.transfer)
    differ(where, "lost", 0, row["lost"])
    differ(where, "start", found.start, row["start"])
    differ(where, "first", found.first, row["first"])
    differ(where, "end", end, row["end"])
    # Durations are differences of times, so their rounding errors are those of the times.
    differ(where, "prefill_s", found.first - inputs, row["prefill_s"], end)
    differ(where, "decode_s", end - found.first, row["decode_s"], end)
    _compare_waves(state, job, end)


def compare_lost(state: State, job: Job, down: float) -> None:
    """Compare the row of a shard that was lost: what comes after the failure did not happen."""
    row, found, where, differ = job.row, job.found, state.at(job.row), state.faults.differ
    differ(where, "lost", 1, row["lost"])
    differ(where, "start", min(found.start, down), row["start"])
    differ(where, "first", min(found.first, down), row["first"])
    differ(where, "end", down, row["end"])
    _compare_waves(state, job, down)


def _compare_waves(state: State, job: Job, end: float) -> None:
    """Compare what a shard's admissions and joins found; 0 while there were none."""
    row, found, where, differ = job.row, job.found, state.at(job.row), state.faults.differ
    # Eager transfers and those that wait for the network are differences of times too.
    differ(where, "transfer_s", found.transfer, row["transfer_s"], end)
    differ(where, "load_s", found.load, row["load_s"])
    differ(where, "waves", job.waves, row["waves"])
    differ(where, "preempted", found.preempted, row["preempted"])
    differ(where, "bytes_moved", found.bytes_moved, row["bytes_moved"])
    differ(where, "copied", found.copied, row["copied"])
    whole = float(row["queries"] * job.node.inherited)
    differ(where, "context_hit", found.context_hit, row["context_hit"], whole)
    differ(where, "context_new", found.context_new, row["context_new"], whole)
    new = 0 if found.prefix is None else job.node.stage.prefix_tokens - found.prefix
    differ(where, "prefix_hit", found.prefix or 0, row["prefix_hit"])
    differ(where, "prefix_new", new, row["prefix_new"])


def compare_tool(state: State, row: Row, end: float) -> None:
    """Compare the times of a tool run; ``first`` is when its transfer ends and its work begins."""
    where, differ = state.at(row), state.faults.differ
    differ(where, "start", row["committed"], row["start"])
    differ(where, "first", row["start"] + row["transfer_s"], row["first"])
    differ(where, "end", end, row["end"])
    differ(where, "lost", 0, row["lost"])
    differ(where, "preempted", 0, row["preempted"])


def compare_evictions(state: State) -> None:
    """Compare the evictions of each device, in order."""
    rows = [
        (*(int(row[name]) for name in ("shard", "device", "kind", "key")), float(row["bytes"]))
        for row in state.trace.evictions
    ]
    for device in range(len(state.world.machines)):
        expected = [row for row in state.evicted if row[1] == device]
        got = [row for row in rows if row[1] == device]
        where = f"{state.device_name(device)}: evictions"
        if len(expected) != len(got):
            state.faults.append(f"{where}: expected {len(expected)} rows, got {len(got)}")
        for i, (want, have) in enumerate(zip(expected, got, strict=False)):
            if want[:4] != have[:4]:
                state.faults.append(
                    f"{where}: {i}: (shard, device, kind, key): expected {want[:4]}, got {have[:4]}"
                )
            state.faults.differ(f"{where}: {i}", "bytes", want[4], have[4])
    if len(rows) != sum(0 <= row[1] < len(state.world.machines) for row in rows):
        state.faults.append("evictions: unknown device")
