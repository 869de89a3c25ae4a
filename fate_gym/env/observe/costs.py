"""The costs of placements, and the features derived from them."""

from __future__ import annotations

from fate_gym.env.features import CANDIDATE, HALF_TRANSFER, saturate
from fate_gym.env.schema import FeatureRow, PlacementCost, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import Cost, context_hit_tokens, cost_of, prefix_hit_tokens
from fate_gym.kernel.estimate import cost_beside
from fate_gym.kernel.memory import context_bytes
from fate_gym.kernel.openings import starts_now
from fate_gym.kernel.prefixes import path_tokens
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays


@inlined
def _shard_cost(run: Run, s: int, d: int, n: int) -> Cost:
    dev = run.episode.devices[d]
    return cost_beside(run.problem, run.state, s, d, n, dev.turn, dev.others)


@kernel
def cost_alone(run: Run, s: int, d: int, out: PlacementCost) -> None:
    """Fill in the cost of all queries of stage ``s`` on device ``d``."""
    p, st = run.problem, run.state
    cost = _shard_cost(run, s, d, p.stages[s].queries)
    out.delay, out.begin, out.end, out.admits = cost.delay, cost.turn, cost.end, 0
    if p.batching:
        out.admits = starts_now(p, st, s, d, p.stages[s].queries)
    out.load = cost.load
    out.transfer = cost.transfer
    out.prefill = cost.prefill
    out.decode = cost.decode
    out.busy = cost.busy
    out.moved = cost.moved
    out.prefix_hit, out.context_hit = 0.0, 0.0
    out.evicted_kv, out.evicted_weights = 0.0, 0.0
    if p.stages[s].kind != FIXED_STAGE:
        out.prefix_hit = prefix_hit_tokens(p, st, s, d)
        out.context_hit = context_hit_tokens(p, st, s, d)
        out.evicted_kv, out.evicted_weights = evicted(p, st, s, d, p.stages[s].queries)


@kernel
def cost_of_team(run: Run, row: int, out: PlacementCost) -> None:
    """Fill in the cost of a placement on several devices, and their ``busy`` seconds."""
    p, st, c = run.problem, run.state, run.placements
    s, whole = c.rows[row].stage, run.episode.costs[row // run.facts.positions]
    load, transfer, prefill, decode = 0.0, 0.0, 0.0, 0.0
    busy, moved, prefixes, contexts = 0.0, 0.0, 0.0, 0.0
    out.evicted_kv, out.evicted_weights = 0.0, 0.0
    out.delay, out.begin, out.end, out.admits = 0.0, 0.0, 0.0, 1
    for i in range(c.rows[row].width):
        d, n = c.devices[row, i], c.counts[row, i]
        cost = _shard_cost(run, s, d, n)
        c.busy[row, i] = cost.busy
        run.episode.ends[row, i] = cost.end
        out.delay += cost.delay
        out.begin = max(out.begin, cost.turn)
        out.end = max(out.end, cost.end)
        if p.batching and not starts_now(p, st, s, d, n):
            out.admits = 0
        load = max(load, cost.load)
        transfer = max(transfer, cost.transfer)
        prefill = max(prefill, cost.prefill)
        decode = max(decode, cost.decode)
        busy += cost.busy
        moved += cost.moved
        prefixes += n * whole[d].prefix_hit
        contexts += n * whole[d].context_hit
        if whole[d].evicted_kv > 0.0 or whole[d].evicted_weights > 0.0:
            kv, weights = evicted(p, st, s, d, n)
            out.evicted_kv = max(out.evicted_kv, kv)
            out.evicted_weights = max(out.evicted_weights, weights)
    out.load, out.transfer, out.prefill, out.decode = load, transfer, prefill, decode
    out.busy, out.moved, out.prefix_hit, out.context_hit = busy, moved, prefixes, contexts


@inlined
def end_alone(cost: PlacementCost, turn: float) -> float:
    """Return when a stage ends on one device if its turn is at ``turn``."""
    parts = cost_of(turn, cost.load, cost.transfer, cost.prefill, cost.decode, cost.moved, 0.0)
    return parts.end


@kernel
def evicted(p: ProblemArrays, st: StateArrays, s: int, d: int, n: int) -> tuple[float, float]:
    """Return the least KV and weights to evict for a shard of ``n`` queries, as shares of memory.

    On a batching device, what runs keeps its KV. Where another model is served, the shard waits
    until nothing runs.
    """
    stage = p.stages[s]
    model = p.models[stage.model]
    dev = st.devices[d]
    own_weights = model.weight_bytes if st.resident[d, stage.model] else 0.0
    path = path_tokens(p, st, s, d)
    cached, prefix = path.held * model.kv, path.kept * model.kv
    pinned = model.weight_bytes + prefix + min(n, p.batch[s, d]) * context_bytes(p, s)
    others_kv = dev.kv_bytes - cached
    if p.batching and st.batches[d].sequences > 0:
        batch = st.batches[d]
        others_kv -= batch.reserved
        if batch.serving == stage.model:
            held = batch.pinned - path.pinned * model.kv
            others_kv -= held
            pinned += batch.reserved + held
        others_kv = max(0.0, others_kv)
    others_weights = dev.weight_bytes - own_weights
    memory = p.devices[d].memory
    over = pinned + others_kv + others_weights - memory
    if over <= 0.0:
        return 0.0, 0.0
    kv = min(over, others_kv)
    return kv / memory, min(over - kv, others_weights) / memory


@kernel
def write_placement(run: Run, row: int, cost: PlacementCost) -> None:
    """Write the features of a placement, except those that change with time."""
    f, c = run.facts, run.placements
    s, width, scale = c.rows[row].stage, c.rows[row].width, f.time_scale
    stage, out = run.problem.stages[s], run.episode.features[row]
    speed, held = 1.0, 0
    for i in range(width):
        d = c.devices[row, i]
        speed = min(speed, f.pairs[s, d].speed)
        if stage.model >= 0 and run.state.resident[d, stage.model] > 0:
            held += c.counts[row, i]
    queries = 1 if width == 1 else stage.queries  # over which the hits are summed
    out[CANDIDATE.legal] = 1.0
    out[CANDIDATE.devices] = width / f.shards
    out[CANDIDATE.load] = saturate(cost.load, scale)
    out[CANDIDATE.transfer] = saturate(cost.transfer, scale)
    out[CANDIDATE.prefill] = saturate(cost.prefill, scale)
    out[CANDIDATE.decode] = saturate(cost.decode, scale)
    out[CANDIDATE.occupied] = saturate(cost.busy, scale)
    out[CANDIDATE.speed] = speed
    out[CANDIDATE.resident] = held / stage.queries
    out[CANDIDATE.prefix_hit] = cost.prefix_hit / (queries * max(1, stage.prefix_tokens))
    out[CANDIDATE.context_hit] = cost.context_hit / (queries * max(1, stage.inherited_tokens))
    out[CANDIDATE.moved] = saturate(cost.moved, HALF_TRANSFER)
    out[CANDIDATE.evicted_kv] = cost.evicted_kv
    out[CANDIDATE.evicted_weights] = cost.evicted_weights
    out[CANDIDATE.delay] = saturate(cost.delay, scale)
    _write_children(run, s, c.devices[row, 0], out)


@inlined
def _write_children(run: Run, s: int, d: int, out: FeatureRow) -> None:
    """Write what the children of stage ``s`` would find on its first device ``d``."""
    p, st, f = run.problem, run.state, run.facts
    share = 0.0
    for m in range(p.models.size):
        if st.resident[d, m] or m == p.stages[s].model:
            share += f.child_models[s, m]
    out[CANDIDATE.children_fit] = f.pairs[s, d].fit
    out[CANDIDATE.children_resident] = min(1.0, share)
    out[CANDIDATE.children_saved] = saturate(f.pairs[s, d].saved, f.time_scale)
