"""What placements cost, and the features that say so."""

from __future__ import annotations

from typing import NamedTuple

from fate_gym.env.features import CANDIDATE, HALF_TRANSFER, saturate
from fate_gym.env.schema import FactsArrays, FeatureRow, WholeCost
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import (
    context_hit_tokens,
    cost_of,
    prefix_hit_tokens,
    shard_cost,
)
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays


class Sums(NamedTuple):
    """The cost of a placement over its shards.

    Attributes:
        load, transfer, prefill, decode: of the slowest shard, seconds.
        occupied: device time of all, seconds.
        moved: by all, bytes.
        evicted_kv, evicted_weights: shares of the memory, worst device.
    """

    load: float
    transfer: float
    prefill: float
    decode: float
    occupied: float
    moved: float
    evicted_kv: float
    evicted_weights: float


@kernel
def update_whole(
    p: ProblemArrays, st: StateArrays, s: int, d: int, turn: float, out: WholeCost
) -> None:
    """Fill the cost of all queries of stage ``s`` on device ``d``."""
    cost = shard_cost(p, st, s, d, p.stages[s].queries, turn)
    out.load = cost.load
    out.transfer = cost.transfer
    out.prefill = cost.prefill
    out.decode = cost.decode
    out.moved = cost.moved
    out.busy = cost.busy
    out.prefix_hit, out.context_hit = 0.0, 0.0
    out.evicted_kv, out.evicted_weights = 0.0, 0.0
    if p.stages[s].kind == FIXED_STAGE:
        return
    out.prefix_hit = prefix_hit_tokens(p, st, s, d)
    out.context_hit = context_hit_tokens(p, st, s, d)
    out.evicted_kv, out.evicted_weights = evicted(p, st, s, d, p.stages[s].queries)


@inlined
def whole_end(cost: WholeCost, turn: float) -> float:
    """When the stage ends if its turn is at ``turn``."""
    parts = cost_of(turn, cost.load, cost.transfer, cost.prefill, cost.decode, cost.moved, 0.0)
    return parts.end


@kernel
def evicted(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int) -> tuple[float, float]:
    """Shares of the memory: KV and weights that have to go, at least, for a shard of ``n``."""
    stage = p.stages[s]
    model = p.models[stage.model]
    dev = st.devices[d]
    own_weights = model.weight_bytes if st.resident[d, stage.model] else 0.0
    cached = 0.0
    if stage.prefix_tokens > 0:
        cached = st.prefix_tokens[d, stage.prefix] * model.kv
    prefix = max(cached, stage.prefix_tokens * model.kv)
    pinned = model.weight_bytes + prefix + min(n, p.batch[s, d]) * context_bytes(p, s)
    others_kv = dev.kv_bytes - cached
    others_weights = dev.weight_bytes - own_weights
    memory = p.devices[d].memory
    over = pinned + others_kv + others_weights - memory
    if over <= 0.0:
        return 0.0, 0.0
    kv = min(over, others_kv)
    return kv / memory, min(over - kv, others_weights) / memory


@inlined
def write_costs(f: FactsArrays, sums: Sums, row: FeatureRow) -> None:
    """The features of a placement's cost, but for those that time changes."""
    row[CANDIDATE.legal] = 1.0
    row[CANDIDATE.load] = saturate(sums.load, f.time_scale)
    row[CANDIDATE.transfer] = saturate(sums.transfer, f.time_scale)
    row[CANDIDATE.prefill] = saturate(sums.prefill, f.time_scale)
    row[CANDIDATE.decode] = saturate(sums.decode, f.time_scale)
    row[CANDIDATE.occupied] = saturate(sums.occupied, f.time_scale)
    row[CANDIDATE.moved] = saturate(sums.moved, HALF_TRANSFER)
    row[CANDIDATE.evicted_kv] = sums.evicted_kv
    row[CANDIDATE.evicted_weights] = sums.evicted_weights


@inlined
def write_children(
    p: ProblemArrays, st: StateArrays, f: FactsArrays, s: int, d: int, row: FeatureRow
) -> None:
    """The features of what the children of stage ``s`` would find on its first device ``d``."""
    share = 0.0
    for m in range(p.models.size):
        if st.resident[d, m] or m == p.stages[s].model:
            share += f.child_models[s, m]
    row[CANDIDATE.children_fit] = f.pairs[s, d].fit
    row[CANDIDATE.children_resident] = min(1.0, share)
    row[CANDIDATE.children_saved] = saturate(f.pairs[s, d].saved, f.time_scale)
