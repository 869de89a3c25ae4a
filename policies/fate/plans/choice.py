"""Device choice of stages without a planned device: the device on which the stage ends first.

Costs come from `fate_gym.kernel.cost`, on batching devices from `policies.fate.plans.joining`. The
costs of a ready stage on a device are recomputed only after something was placed on that device, or
always if they depend on more than the device.
"""

from __future__ import annotations

import numpy as np

from fate_gym.jit import inlined, kernel
from fate_gym.kernel.cost import (
    context_hit_tokens,
    prefill_seconds,
    prefix_hit_tokens,
    split_queries,
)
from fate_gym.kernel.estimate import shard_cost
from fate_gym.kernel.schema import FIXED_STAGE, ProblemArrays, StateArrays
from fate_gym.kernel.transfer import transfer_seconds
from policies.fate.plans.joining import joined_end
from policies.fate.plans.schema import Context, Style, Workspace


@inlined
def hosts(p: ProblemArrays, s: int, d: int) -> bool:
    """Whether device ``d`` can run stage ``s``."""
    return p.clean_seconds[s, d] < np.inf


@inlined
def choose(c: Context, style: Style, s: int) -> float:
    """Write the placement of ``s`` with the earliest (biased) end to ``c.choice``; return its end.

    inf: no device can run the stage.
    """
    p, ws, choice = c.problem, c.work, c.choice
    kind = ws.stages[s].kind
    changing = p.eager or p.contention
    best, best_value = -1, np.inf
    for d in range(p.devices.size):
        choice.ends[d] = np.inf
        if not hosts(p, s, d):
            continue
        if p.batching:
            end = joined_end(p, c.state, ws, s, d, p.stages[s].queries, style.strict)
        else:
            if ws.cached[s, d].version != ws.devices[d].version or changing:
                _look_up(p, c.state, ws, s, d)
            end = _end_on(p, c.state, ws, style, s, d)
        choice.ends[d] = end
        end += ws.devices[d].toll * (end - ws.devices[d].turn)
        if style.biased:
            end += c.biases.seconds[kind, d]
        if end < best_value:
            best, best_value = d, end
    if best < 0:
        return np.inf
    choice.rows[0].width = 1
    choice.rows[0].value = choice.ends[best]
    choice.devices[0, 0] = best
    choice.counts[0, 0] = p.stages[s].queries
    most = min(style.shards, p.stages[s].queries)
    if style.biased:
        most = min(most, c.biases.kinds[kind].spread)
    if most > 1:
        _widen(c, s, most)
    return choice.rows[0].value


@inlined
def _end_on(
    p: ProblemArrays, st: StateArrays, ws: Workspace, style: Style, s: int, d: int
) -> float:
    device, cached, model = ws.devices[d], ws.cached[s, d], p.stages[s].model
    if style.strict:
        return device.turn + cached.transfer + p.clean_seconds[s, d]
    load = 0.0
    if model >= 0 and st.resident[d, model] == 0 and device.brings != model:
        load = p.load_seconds[model, d]
    return device.turn + (max(load, cached.transfer) + cached.run)


@kernel
def _look_up(p: ProblemArrays, st: StateArrays, ws: Workspace, s: int, d: int) -> None:
    """Cache the costs of stage ``s`` on device ``d``, except for loading its model."""
    cached, stage = ws.cached[s, d], p.stages[s]
    cached.version = ws.devices[d].version
    cached.transfer, _ = transfer_seconds(p, st, s, d, 1.0, ws.devices[d].turn)
    cached.run = p.clean_seconds[s, d]
    if stage.kind != FIXED_STAGE:
        prefix = prefix_hit_tokens(p, st, s, d)
        context = context_hit_tokens(p, st, s, d)
        if prefix > 0.0 or context > 0.0:
            prefill = prefill_seconds(p, s, d, stage.queries, prefix, context)
            cached.run = p.decode_seconds[s, d] + prefill


@kernel
def _widen(c: Context, s: int, most: int) -> None:
    """Share stage ``s`` among up to ``most`` devices if it then ends earlier.

    The devices are those with the earliest ends in ``c.choice.ends``, which is overwritten. As in
    list scheduling (`policies.list_scheduling.devices.best_placement`), except that the times at
    which devices are free include what is planned at this instant.
    """
    p, ws, choice = c.problem, c.work, c.choice
    ends, devices, counts = choice.ends, choice.devices[0], choice.counts[0]
    width = 1
    for k in range(2, most + 1):
        ends[devices[k - 2]] = np.inf
        devices[k - 1] = np.argmin(ends)
        if ends[devices[k - 1]] == np.inf:
            break
        split_queries(p, s, devices, k, counts)
        end = 0.0
        for i in range(k):
            end = max(end, _shard_end(p, c.state, ws, s, devices[i], counts[i]))
        end += (k - 1) * p.gather_s
        if end < choice.rows[0].value:
            choice.rows[0].value, width = end, k
    split_queries(p, s, devices, width, counts)
    choice.rows[0].width = width


@inlined
def _shard_end(p: ProblemArrays, st: StateArrays, ws: Workspace, s: int, d: int, n: int) -> float:
    if p.batching:
        return joined_end(p, st, ws, s, d, n, 0)
    device = ws.devices[d]
    cost = shard_cost(p, st, s, d, n, device.turn)
    brought = device.brings >= 0 and device.brings == p.stages[s].model
    load = 0.0 if brought else cost.load
    return device.turn + max(load, cost.transfer) + cost.prefill + cost.decode
