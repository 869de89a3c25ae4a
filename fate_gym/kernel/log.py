"""Writing the rows of the log. Rows beyond its room are counted but not written."""

from __future__ import annotations

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import Cost
from fate_gym.kernel.schema import LogArrays, StateArrays


@kernel
def log_shard(st: StateArrays, log: LogArrays, s: int, k: int, d: int, cost: Cost) -> int:
    """Write the row of a shard as far as estimates determine it; return its number, or -1."""
    number = st.shard_rows
    st.shard_rows += 1
    if number >= log.shards.size:
        return -1
    row = log.shards[number]
    row.stage = s
    row.slot = k
    row.device = d
    row.waves = 1
    row.lost = 0
    row.preempted = 0
    row.source = -1
    row.committed = st.now
    row.start = cost.turn
    row.load_s = cost.load
    row.transfer_s = cost.transfer
    row.prefill_s = cost.prefill
    row.decode_s = cost.decode
    row.length = 1.0
    row.first = cost.turn + (max(cost.load, cost.transfer) + cost.prefill)
    row.prefix_hit = 0.0
    row.prefix_new = 0.0
    row.context_hit = 0.0
    row.context_new = 0.0
    row.copied = cost.copied
    row.bytes_moved = cost.moved
    return number


@inlined
def log_loss(st: StateArrays, log: LogArrays, s: int, k: int) -> None:
    """Record that the shard in slot ``k`` of stage ``s`` was lost now."""
    for i in range(min(st.shard_rows, log.shards.size) - 1, -1, -1):
        row = log.shards[i]
        if row.stage == s and row.slot == k:
            row.lost = 1
            row.start = min(row.start, st.now)
            row.end = st.now
            row.first = min(row.first, st.now)
            row.prefix_new = max(row.prefix_new, 0.0)
            return
