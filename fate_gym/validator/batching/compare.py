"""The columns of a trace against what came out."""

from __future__ import annotations

from fate_gym.validator.batching.waves import Job
from fate_gym.validator.state import Row, State


def compare_ended(state: State, job: Job, end: float) -> None:
    """Compare the row of a shard that has ended."""
    row, found, where = job.row, job.found, state.at(job.row)
    differ, stage = state.faults.differ, job.node.stage
    inputs = found.start + max(found.load, found.transfer)
    # Durations are differences of moments, and round like these.
    differ(where, "start", found.start, row["start"])
    differ(where, "load_s", found.load, row["load_s"], end)
    differ(where, "transfer_s", found.transfer, row["transfer_s"], end)
    differ(where, "first", found.first, row["first"])
    differ(where, "prefill_s", found.first - inputs, row["prefill_s"], end)
    differ(where, "decode_s", end - found.first, row["decode_s"], end)
    differ(where, "end", end, row["end"])
    differ(where, "waves", job.waves, row["waves"])
    differ(where, "lost", 0, row["lost"])
    differ(where, "preempted", found.preempted, row["preempted"])
    differ(where, "bytes_moved", found.bytes_moved, row["bytes_moved"])
    differ(where, "copied", found.copied, row["copied"])
    known = found.prefix or 0
    is_model = job.node.model is not None
    whole = float(row["queries"] * job.node.inherited)
    differ(where, "prefix_hit", known, row["prefix_hit"])
    differ(where, "prefix_new", stage.prefix_tokens - known if is_model else 0, row["prefix_new"])
    differ(where, "context_hit", found.context_hit, row["context_hit"], whole)
    differ(where, "context_new", found.context_new, row["context_new"], whole)


def compare_lost(state: State, job: Job, down: float) -> None:
    """Compare the row of a shard that was lost."""
    row, where = job.row, state.at(job.row)
    state.faults.differ(where, "lost", 1, row["lost"])
    state.faults.differ(where, "start", min(job.found.start, down), row["start"])
    state.faults.differ(where, "end", down, row["end"])


def compare_tool(state: State, row: Row, end: float) -> None:
    """Compare the moments of a tool run."""
    where, differ = state.at(row), state.faults.differ
    differ(where, "start", row["committed"], row["start"])
    differ(where, "end", end, row["end"])
    differ(where, "lost", 0, row["lost"])


def compare_evictions(state: State) -> None:
    """Compare the evictions of each device, in their order."""
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
