"""Why a run took as long as it did: loads, caches, transfers, evictions, occupancy, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fate_gym.kernel.schema import EVICT_CONTEXT, EVICT_PREFIX, EVICT_WEIGHTS
from fate_gym.metrics.arrays import Bools, Floats, Ints, Records
from fate_gym.problem import Problem
from fate_gym.sim.occupancy import steps
from fate_gym.sim.phases import phases

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem, Trace


SCARCE_SHARE = 0.25
"""A stage is scarce when at most this share of the devices can run it."""


def mechanism_metrics(trace: Trace, compiled: CompiledProblem) -> dict[str, float]:
    """Return the mechanism behind a trace, in single numbers.

    Seconds are actual, with noise and actual lengths. A shard that was lost with its device counts
    only until then. A rate of nothing is NaN.

    Returns:
        * ``model_loads`` (count), ``load_seconds``;
        * ``prefix_hit_rate``, ``context_hit_rate``: tokens found in a cache / tokens that could
          have been there;
        * ``copied_prefix_tokens``: of the hits, those copied from another device;
        * ``bytes_moved``; ``transfer_wait_seconds``: time by which transfers outlast the load
          beside them; ``prefill_seconds``, ``decode_seconds``: on devices, summed over shards,
          which overlap on a batching device; ``preemptions`` (count);
        * ``device_utilisation``: busy / (makespan x devices), loads and transfers included; time
          in which a device runs several shards counts once;
        * ``evictions`` and ``regretted_evictions`` (counts), see `regretted_evictions`;
        * ``scarce_occupancy``: share of the shard time on scarce devices that goes to stages
          which could run elsewhere, see `scarce_occupancy`;
        * ``usd``: price of the busy time; ``usd_reserved``: of all devices for the makespan;
          ``energy_joules``: TDP x busy time, idle power left out;
        * ``stages_vanished``, ``lost_shards`` (counts), ``lost_seconds``: time on devices of the
          lost shards; ``device_failures`` (count), until the end;
        * ``shards_per_stage``: mean over the stages that run on devices;
        * ``decisions`` (count), ``decision_ms_p50``, ``decision_ms_p99`` (wall clock per call),
          ``planning_seconds`` (their sum);
        * ``policy_<name>``: each of the policy's own counters.
    """
    problem = trace.problem
    lost = trace.shards["lost"] != 0
    shards = trace.shards[~lost]
    on_device = shards[shards["device"] >= 0]
    spans = phases(on_device, False)
    busy = busy_seconds(trace)
    regretted = regretted_evictions(trace, compiled)
    usd_per_hour, watts = _rates(problem)
    decision_ms = np.asarray(trace.decision_seconds) * 1e3
    p50, p99 = np.percentile(decision_ms, [50, 99]) if len(decision_ms) else (np.nan, np.nan)
    metrics = {
        "model_loads": np.count_nonzero(on_device["load_s"] > 0),
        "load_seconds": (spans.loaded - spans.start).sum(),
        "prefix_hit_rate": _rate(on_device["prefix_hit"], on_device["prefix_new"]),
        "context_hit_rate": _rate(on_device["context_hit"], on_device["context_new"]),
        "copied_prefix_tokens": shards["copied"].sum(),
        "bytes_moved": shards["bytes_moved"].sum(),
        "transfer_wait_seconds": transfer_wait_seconds(shards),
        "prefill_seconds": (spans.prefilled - spans.begin).sum(),
        "decode_seconds": (spans.end - spans.prefilled).sum(),
        "preemptions": shards["preempted"].sum(),
        "device_utilisation": _ratio(busy.sum(), trace.makespan * len(busy)),
        "evictions": len(trace.evictions),
        "regretted_evictions": np.count_nonzero(regretted),
        "scarce_occupancy": scarce_occupancy(trace, compiled),
        "usd": busy @ usd_per_hour / 3600,
        "usd_reserved": trace.makespan * usd_per_hour.sum() / 3600,
        "energy_joules": busy @ watts,
        "stages_vanished": np.count_nonzero(trace.stage_vanished),
        "lost_shards": np.count_nonzero(lost),
        "lost_seconds": (trace.shards["end"] - trace.shards["start"])[lost].sum(),
        "device_failures": len(trace.outages),
        "shards_per_stage": _ratio(len(on_device), len(np.unique(on_device["stage"]))),
        "decisions": len(decision_ms),
        "decision_ms_p50": p50,
        "decision_ms_p99": p99,
        "planning_seconds": trace.planning_seconds,
    }
    metrics |= {f"policy_{name}": value for name, value in trace.counters.items()}
    return {name: float(value) for name, value in metrics.items()}


def busy_seconds(trace: Trace) -> Floats:
    """Return (D,) seconds in which each device runs any shard, loads and transfers included."""
    shards, devices = trace.shards, range(len(trace.problem.cluster.devices))
    of_device = (shards[shards["device"] == device] for device in devices)
    return np.array([steps(one["start"], one["end"]).positive_seconds() for one in of_device])


def transfer_wait_seconds(shards: Records) -> float:
    """Return the transfer seconds that no load hides: Σ max(0, transfer - load), with tools."""
    # Noise stretches everything on a device, but only the work of a tool.
    stretch = np.where(shards["device"] >= 0, shards["noise"], 1.0)
    wait = np.maximum(shards["transfer_s"] - shards["load_s"], 0.0)
    return float((wait * stretch).sum())


def regretted_evictions(trace: Trace, compiled: CompiledProblem) -> Bools:
    """Return (X,) whether an eviction was regretted: the same data was made there again.

    Weights: the model is loaded on that device later. A prefix: tokens of it are prefilled there
    later. The context of a stage: a child of the same model, which inherits it, has to prefill
    inherited tokens there later. Later means by a shard committed later.
    """
    shards, evictions = trace.shards, trace.evictions
    stage, device = shards["stage"], shards["device"]
    model = compiled.model_of[stage]
    loads = (device >= 0) & (shards["load_s"] > 0)
    prefill_row, prefix = _prefilled(compiled, shards)
    child_row, parent = _inherited(compiled, shards)
    last = {
        EVICT_WEIGHTS: _last_rows(device[loads], model[loads], np.flatnonzero(loads)),
        EVICT_PREFIX: _last_rows(device[prefill_row], prefix, prefill_row),
        EVICT_CONTEXT: _last_rows(device[child_row], parent, child_row),
    }
    return np.array(
        [
            last[int(row["kind"])].get((int(row["device"]), int(row["key"])), -1) > row["shard"]
            for row in evictions
        ],
        dtype=bool,
    )


def scarce_occupancy(trace: Trace, compiled: CompiledProblem) -> float:
    """Return the share of shard time on scarce devices taken by stages that could run elsewhere.

    A model stage is scarce when at most a quarter of the devices can run it; the devices that can
    run a scarce stage are scarce. A stage could run elsewhere when a device that is not scarce can
    run it. NaN without scarce devices, or when they did nothing.
    """
    eligible = np.isfinite(compiled.clean_seconds)
    hosts = eligible.sum(axis=1)
    limit = SCARCE_SHARE * eligible.shape[1]
    scarce_stage = (compiled.model_of >= 0) & (hosts > 0) & (hosts <= limit)
    scarce = eligible[scarce_stage].any(axis=0)
    elsewhere = (eligible & ~scarce).any(axis=1)
    shards = trace.shards[trace.shards["device"] >= 0]
    shards = shards[scarce[shards["device"]]]
    seconds = shards["end"] - shards["start"]
    return _ratio(seconds[elsewhere[shards["stage"]]].sum(), seconds.sum())


def _prefilled(compiled: CompiledProblem, shards: Records) -> tuple[Ints, Ints]:
    """Return rows of shards that prefill part of their prefix, each with a key of that part.

    A row occurs once for each such key.
    """
    stages, paths = compiled.arrays.stages[shards["stage"]], compiled.prefix_paths
    rows = np.flatnonzero((shards["device"] >= 0) & (shards["prefix_new"] > 0))
    pairs = [
        (row, key)
        for row in rows.tolist()
        for key, _, last in paths.to(int(stages["prefix"][row]), int(stages["prefix_tokens"][row]))
        if last > shards["prefix_hit"][row]
    ]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _inherited(compiled: CompiledProblem, shards: Records) -> tuple[Ints, Ints]:
    """Return rows of shards that prefill inherited tokens, each with a parent of the same model.

    A row occurs once for each such parent.
    """
    edges = compiled.arrays.edges
    parents: dict[int, list[int]] = {}
    for edge in edges[(edges["inherited_tokens"] > 0) & (edges["same_model"] != 0)]:
        parents.setdefault(int(edge["child"]), []).append(int(edge["parent"]))
    rows = np.flatnonzero((shards["device"] >= 0) & (shards["context_new"] > 0))
    pairs = [(row, parent) for row in rows for parent in parents.get(shards["stage"][row], ())]
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _last_rows(device: Ints, key: Ints, row: Ints) -> dict[tuple[int, int], int]:
    """Return the last of the ascending rows for each (device, key)."""
    pairs = zip(device.tolist(), key.tolist(), strict=True)
    return dict(zip(pairs, row.tolist(), strict=True))


def _rates(problem: Problem) -> tuple[Floats, Floats]:
    """Return (D,) $/h and (D,) W; 0 for a device without a GPU."""
    gpus = [problem.device_facts.get(device.id) for device in problem.cluster.devices]
    usd = np.array([gpu.usd_per_hour if gpu else 0.0 for gpu in gpus])
    watts = np.array([gpu.watts if gpu else 0.0 for gpu in gpus])
    return usd, watts


def _rate(hit: Floats, missed: Floats) -> float:
    return _ratio(float(hit.sum()), float(hit.sum() + missed.sum()))


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else float("nan")
