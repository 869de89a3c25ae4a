"""The observed features of the devices."""

from __future__ import annotations

import numpy as np

from fate_gym.env.features import (
    DEVICE,
    DEVICE_WIDTH,
    HALF_OUTSTANDING,
    HALF_SHARDS,
    saturate,
)
from fate_gym.env.observe.load import measure_load
from fate_gym.env.schema import EpisodeArrays, FeatureRows, Run
from fate_gym.jit import inlined, kernel
from fate_gym.kernel.estimate import undisturbed
from fate_gym.kernel.openings import is_open
from fate_gym.kernel.schema import MODEL_STAGE, ProblemArrays, StateArrays


@inlined
def seconds_until_free(p: ProblemArrays, now: float, turn: float) -> float:
    """Return the seconds until ``turn``; for a device that is down (inf), the mean repair time."""
    return turn - now if turn < np.inf else p.mttr_s


@kernel
def update_devices(run: Run) -> None:
    """Update turns and demand, and mark devices whose cached costs no longer hold."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    for d in range(p.devices.size):
        dev = ep.devices[d]
        _compare(p, st, ep, d)
        if dev.changed or not p.batching:
            dev.turn, dev.others = undisturbed(p, st, d)
        dev.admits = is_open(p, st, d)
        dev.turn_feature = saturate(seconds_until_free(p, st.now, dev.turn), f.time_scale)
        dev.hits = 0.0
        dev.demand = 0.0
    for i in range(ep.shown):
        s = ep.window[i]
        share = 1.0 / (f.stages[s].eligible * ep.shown)
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] < np.inf:
                ep.devices[d].demand += share


@inlined
def _compare(p: ProblemArrays, st: StateArrays, ep: EpisodeArrays, d: int) -> None:
    """Note whether anything has changed that costs on a device depend on."""
    seen, dev = ep.devices[d], st.devices[d]
    # What is left of an eager transfer shrinks while the stage waits for its turn; with
    # contention, bookings anywhere may be in the way.
    seen.changed = (
        p.eager != 0
        or p.contention != 0
        or (p.batching != 0 and _has_moved(st, ep, d))
        or seen.drains_at != dev.drains_at
        or seen.weight_bytes != dev.weight_bytes
        or seen.kv_bytes != dev.kv_bytes
        or seen.oldest != dev.oldest
        or seen.newest != dev.newest
    )
    seen.drains_at, seen.weight_bytes, seen.kv_bytes = (
        dev.drains_at,
        dev.weight_bytes,
        dev.kv_bytes,
    )
    seen.oldest, seen.newest = dev.oldest, dev.newest


@inlined
def _has_moved(st: StateArrays, ep: EpisodeArrays, d: int) -> bool:
    """Return whether the batch of ``d`` has changed since the last observation.

    It changes with time. Within one instant only a placement on the device changes it.
    """
    seen, tail, admissions = ep.devices[d], st.devices[d].queue_tail + 2, st.batches[d].admissions
    moved = (
        seen.now != st.now
        or seen.instant != st.instants + 1
        or seen.tail != tail
        or seen.admissions != admissions
    )
    seen.now, seen.instant, seen.tail, seen.admissions = st.now, st.instants + 1, tail, admissions
    return moved


@inlined
def _wanted(p: ProblemArrays, st: StateArrays, ep: EpisodeArrays, d: int) -> float:
    """Return the share of the shown stages whose model is resident on device ``d``."""
    found = 0
    for i in range(ep.shown):
        stage = p.stages[ep.window[i]]
        found += stage.kind == MODEL_STAGE and st.resident[d, stage.model] > 0
    return found / max(1, ep.shown)


@kernel
def write_devices(run: Run, rows: FeatureRows) -> None:
    """Fill ``rows`` (max_devices, F) with the features of the devices; zeros beyond the last."""
    p, st, f, ep = run.problem, run.state, run.facts, run.episode
    with_prefix = 0
    for i in range(ep.shown):
        with_prefix += p.stages[ep.window[i]].prefix_tokens > 0
    for d in range(p.devices.size):
        for c in range(rows.shape[1]):
            rows[d, c] = f.device_rows[d, c]
        now, dev = ep.devices[d], st.devices[d]
        memory = p.devices[d].memory
        if memory > 0.0:
            # Rounding errors of a long run must not lead outside [0, 1].
            weights = min(1.0, max(0.0, dev.weight_bytes / memory))
            kv = min(1.0 - weights, max(0.0, dev.kv_bytes / memory))
            rows[d, DEVICE.weights] = weights
            rows[d, DEVICE.kv] = kv
            rows[d, DEVICE.free] = 1.0 - weights - kv
        rows[d, DEVICE.admits] = now.admits
        rows[d, DEVICE.queue] = now.turn_feature
        rows[d, DEVICE.prefix_hits] = now.hits / max(1, with_prefix)
        rows[d, DEVICE.demand] = now.demand
        rows[d, DEVICE.up] = now.turn < np.inf
        rows[d, DEVICE.wanted] = _wanted(p, st, ep, d)
        for m in range(p.models.size):
            rows[d, DEVICE_WIDTH + m] = st.resident[d, m] > 0
        if now.changed or now.head != dev.queue_head + 2:
            measure_load(run, d)
        if now.queries == 0 and now.waiting == 0:
            continue  # zeros
        tokens = now.tokens
        if now.running_seconds > 0.0:
            left = now.running_since + now.running_seconds - st.now
            share = min(1.0, max(0.0, left / now.running_seconds))
            tokens += share * now.running_tokens
        rows[d, DEVICE.occupancy] = min(1.0, now.queries / p.max_batch)
        rows[d, DEVICE.reserved] = now.reserved
        rows[d, DEVICE.waiting] = saturate(now.waiting, HALF_SHARDS)
        rows[d, DEVICE.outstanding] = saturate(tokens, HALF_OUTSTANDING)
    for d in range(p.devices.size, rows.shape[0]):
        for c in range(rows.shape[1]):
            rows[d, c] = 0.0
