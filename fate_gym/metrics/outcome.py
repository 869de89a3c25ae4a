"""Outcomes of a run: when workflows ended, and how long they took."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from fate_gym.metrics.arrays import Floats

if TYPE_CHECKING:
    from fate_gym.sim import Trace


class WorkflowOutcome(TypedDict):
    """One workflow of a trace; times in seconds.

    ``latency`` counts from the arrival, ``makespan`` from the start of the workflow's first stage:
    in a stream the difference is time spent waiting for a first device. Where workflows compete,
    compare latencies; a policy can buy short makespans with long queues.
    """

    workflow: str
    family: str
    stages: int  # without those that vanished
    arrival: float
    end: float
    latency: float
    makespan: float
    deadline_missed: bool


def workflow_outcomes(trace: Trace) -> list[WorkflowOutcome]:
    """Return a record for each workflow, in the order of the problem.

    ``deadline_missed`` is false for a workflow without a deadline.
    """
    shards = trace.shards
    vanished = np.zeros(len(trace.workflow_end))
    np.add.at(vanished, trace.workflow_of[trace.stage_vanished], 1)
    start = np.full(len(trace.workflow_end), np.inf)
    np.minimum.at(start, trace.workflow_of[shards["stage"]], shards["start"])
    return [
        WorkflowOutcome(
            workflow=workflow.id,
            family=workflow.family,
            stages=len(workflow.stages) - int(vanished[i]),
            arrival=float(trace.workflow_arrival[i]),
            end=float(trace.workflow_end[i]),
            latency=float(trace.latencies[i]),
            makespan=float(trace.workflow_end[i] - start[i]),
            deadline_missed=workflow.deadline is not None
            and bool(trace.latencies[i] > workflow.deadline),
        )
        for i, workflow in enumerate(trace.problem.workflows)
    ]


def outcome_summary(trace: Trace) -> dict[str, float]:
    """Return the outcome of a run in single numbers.

    Returns:
        ``makespan`` (s, first arrival to last end); ``latency_mean``, ``latency_p50``,
        ``latency_p95``, ``latency_p99`` (s, over workflows, percentiles interpolated linearly);
        ``deadline_misses`` (count); ``deadline_miss_rate`` (share of the workflows that have a
        deadline; NaN when none has).
    """
    outcomes = workflow_outcomes(trace)
    with_deadline = sum(w.deadline is not None for w in trace.problem.workflows)
    misses = sum(outcome["deadline_missed"] for outcome in outcomes)
    return {
        "makespan": float(trace.makespan),
        **latency_summary(trace.latencies),
        "deadline_misses": float(misses),
        "deadline_miss_rate": misses / with_deadline if with_deadline else float("nan"),
    }


def latency_summary(latencies: Floats) -> dict[str, float]:
    """Return ``latency_mean``, ``latency_p50``, ``latency_p95``, ``latency_p99`` of latencies."""
    percentiles = np.percentile(latencies, [50, 95, 99])
    return {"latency_mean": float(np.mean(latencies))} | {
        f"latency_p{p}": float(value) for p, value in zip((50, 95, 99), percentiles, strict=True)
    }


LEAST_S = 1e-9
"""Least time used in ratios, seconds: two workflows that take no time are equally fast."""


def ratios(ours: Floats, theirs: Floats) -> Floats:
    """Return the (n,) ratios of our times to theirs."""
    return np.maximum(ours, LEAST_S) / np.maximum(theirs, LEAST_S)


def ratio(ours: float, theirs: float) -> float:
    """Return the ratio of our time to theirs."""
    return max(ours, LEAST_S) / max(theirs, LEAST_S)
