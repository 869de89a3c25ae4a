"""A finished job in a terminal."""

from __future__ import annotations

from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.tables import print_table

_SHOWN = {
    "makespan": ("makespan, s", ".2f"),
    "latency_ratio": ("latency / RoundRobin", ".3f"),
    "gap_to_bound": ("latency / lower bound", ".2f"),
    "model_loads": ("model loads", ".1f"),
    "prefix_hit_rate": ("prefix hit rate", ".1%"),
    "device_utilisation": ("device utilisation", ".1%"),
}


def job_line(result: JobResult) -> str:
    """A finished job in one line."""
    return (
        f"{result.title}: latency / RoundRobin {result.means['latency_ratio']:.3f} over "
        f"{result.workflows} workflows, {result.seconds['total']:.1f} s"
    )


def print_job(result: JobResult) -> None:
    """A table of one job's means."""
    rows = [
        (title, f"{result.means[column]:{form}}")
        for column, (title, form) in _SHOWN.items()
        if column in result.means
    ]
    decisions = f"{result.decision_ms_p50:.2f} / {result.decision_ms_p99:.2f}"
    rows += [("decision P50 / P99, ms", decisions), ("workflows", str(result.workflows))]
    print_table(("mean over workflows", "value"), rows, title=f"{result.title} on {result.cluster}")
