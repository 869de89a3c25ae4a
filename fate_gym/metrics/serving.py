"""Serving metrics: the latencies that users see, and how full batches are.

A *request* is a model stage that generates output; a *call* is any model stage. Both count from
when the stage became ready. `fate_gym.metrics.outcome` has the latency of a whole workflow, which
may be a turn of a session; `fate_gym.metrics.sessions` has the other metrics of turns and sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fate_gym.metrics.arrays import Bools, Floats
from fate_gym.metrics.mechanism import busy_seconds
from fate_gym.sim.occupancy import occupancy

if TYPE_CHECKING:
    from fate_gym.sim import CompiledProblem, Trace

PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class StageTimes:
    """Times of S stages, seconds; NaN where undefined.

    Attributes:
        ttft: (S,) time to first token: from when the stage became ready to the first token of its
            first wave. For model stages with output.
        tpot: (S,) time per output token: (end - first token) / (output tokens - 1) of the slowest
            of its shards, with the actual output. For model stages with two tokens or more. A shard
            of several waves counts the wait for the later ones.
        call: (S,) from when the stage became ready to its end. For model stages.
    """

    ttft: Floats
    tpot: Floats
    call: Floats


def stage_times(trace: Trace, compiled: CompiledProblem) -> StageTimes:
    """Return the times of every stage of a finished run; NaN for stages that vanished.

    A stage that lost a shard counts from when it was first ready, with the tokens of its last
    placement.
    """
    stages = compiled.arrays.stages
    shards = trace.shards[(trace.shards["lost"] == 0) & (trace.shards["device"] >= 0)]
    stage = shards["stage"]
    first, tpot = np.full(stages.size, np.inf), np.full(stages.size, -np.inf)
    np.minimum.at(first, stage, shards["first"])
    output = stages["output_tokens"]
    tokens = np.maximum(1.0, np.floor(output[stage] * shards["length"] + 0.5))
    decode = np.maximum(shards["end"] - shards["first"], 0.0)
    np.maximum.at(tpot, stage, np.where(tokens > 1, decode / np.maximum(tokens - 1, 1), -np.inf))
    ready = first_ready(trace, compiled)
    calls = (compiled.model_of >= 0) & ~trace.stage_vanished
    requests = calls & (output > 0)
    return StageTimes(
        ttft=_where(requests, first - ready),
        tpot=_where(requests & (tpot >= 0.0), tpot),
        call=_where(calls, trace.stage_end - ready),
    )


def _where(mask: Bools, values: Floats) -> Floats:
    return np.where(mask, values, np.nan)


def first_ready(trace: Trace, compiled: CompiledProblem) -> Floats:
    """Return (S,) when each stage was first ready; a trace has the time of its last placement."""
    ready = trace.workflow_arrival[trace.workflow_of].astype(np.float64)
    np.maximum.at(ready, compiled.edge_child, trace.stage_end[compiled.edge_parent])
    lost = np.zeros(ready.size, bool)
    lost[trace.shards["stage"][trace.shards["lost"] != 0]] = True
    found: Floats = np.where(lost, ready, trace.stage_ready)
    return found


def meets_slo(trace: Trace, times: StageTimes) -> Floats:
    """Return (S,) 1 if a request meets its workflow's SLO, 0 if it does not, NaN if it has none."""
    limits = np.full((len(trace.problem.workflows), 2), np.nan)
    for number, workflow in enumerate(trace.problem.workflows):
        if workflow.slo is not None:
            given = (workflow.slo.ttft_s, workflow.slo.tpot_s)
            limits[number] = [np.inf if limit is None else limit for limit in given]
    ttft_s, tpot_s = limits[trace.workflow_of].T
    # A single token has no time between tokens, so it cannot miss that objective.
    met = (times.ttft <= ttft_s) & ~(times.tpot > tpot_s)
    return np.where(np.isnan(times.ttft) | np.isnan(ttft_s), np.nan, met)


def serving_metrics(trace: Trace, compiled: CompiledProblem) -> dict[str, float]:
    """Return the serving metrics of a whole run. A mean of nothing is NaN.

    Returns:
        * ``ttft_mean``, ``ttft_p50``, ``ttft_p95``, ``ttft_p99``: seconds, over requests, see
          `StageTimes`; likewise ``tpot_*`` and ``call_latency_*``;
        * ``slo_attainment``: share of the requests of workflows with objectives that meet all of
          them; ``goodput_per_s``: such requests per second, from the first arrival to the last
          end. (Zhong et al., "DistServe", OSDI 2024, call goodput the highest rate at which a
          given share of the requests meets both; here it is the rate that was reached.)
        * ``batch_occupancy``: mean number of queries in service over the time in which a device
          runs something, all devices together. A shard counts from its start to its end with the
          queries of one of its waves.
    """
    times = stage_times(trace, compiled)
    met = meets_slo(trace, times)
    judged = met[~np.isnan(met)]
    busy = float(busy_seconds(trace).sum())
    on_device = trace.shards[trace.shards["device"] >= 0]
    in_service = occupancy(on_device).integral()
    span = trace.makespan
    return {
        **summarised("ttft", times.ttft),
        **summarised("tpot", times.tpot),
        **summarised("call_latency", times.call),
        "slo_attainment": float(judged.mean()) if judged.size else np.nan,
        "goodput_per_s": float(judged.sum()) / span if judged.size and span > 0 else np.nan,
        "batch_occupancy": in_service / busy if busy > 0 else np.nan,
    }


def serving_by_workflow(trace: Trace, compiled: CompiledProblem) -> list[dict[str, float]]:
    """Return means over each workflow's stages, and the share of its requests that meet its SLO.

    Returns:
        For each workflow ``ttft``, ``tpot``, ``call_latency`` (seconds) and ``slo_met``; NaN where
        undefined.
    """
    times = stage_times(trace, compiled)
    columns = {
        "ttft": times.ttft,
        "tpot": times.tpot,
        "call_latency": times.call,
        "slo_met": meets_slo(trace, times),
    }
    means = {name: _means(trace, values).tolist() for name, values in columns.items()}
    return [dict(zip(means, row, strict=True)) for row in zip(*means.values(), strict=True)]


def _means(trace: Trace, values: Floats) -> Floats:
    """Return (W,) means over the stages of each workflow that have a value."""
    known = ~np.isnan(values)
    workflow, count = trace.workflow_of[known], len(trace.workflow_end)
    total = np.bincount(workflow, values[known], minlength=count)
    number = np.bincount(workflow, minlength=count)
    means: Floats = np.divide(total, number, where=number > 0, out=np.full(count, np.nan))
    return means


def summarised(name: str, values: Floats) -> dict[str, float]:
    """Return ``NAME_mean``, ``NAME_p50``, ``NAME_p95``, ``NAME_p99`` of the values without NaN."""
    known = values[~np.isnan(values)]
    percentiles = np.percentile(known, PERCENTILES) if known.size else [np.nan] * len(PERCENTILES)
    return {f"{name}_mean": float(known.mean()) if known.size else np.nan} | {
        f"{name}_p{p}": float(value) for p, value in zip(PERCENTILES, percentiles, strict=True)
    }
