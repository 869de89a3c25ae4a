"""Runs one job: builds the problems, plays them, and writes the result files."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fate_gym.errors import InputError, printable
from fate_gym.files import write_text
from fate_gym.lab import provenance
from fate_gym.lab.errors import JobFailedError, unwritable
from fate_gym.lab.files import checksum, read_bytes, write_table
from fate_gym.lab.jobs import directory as files
from fate_gym.lab.jobs.config import EvaluateConfig
from fate_gym.lab.jobs.explained import explained_schedule, write_explained
from fate_gym.lab.jobs.find import read_whole
from fate_gym.lab.jobs.result import (
    JobResult,
    OtherVersionError,
    total_counters,
    write_result,
)
from fate_gym.lab.jobs.schedules import representatives, traced
from fate_gym.lab.progress_bar import progress_bar
from fate_gym.problem import Problem
from policies.registry import build_policy, check_params

if TYPE_CHECKING:
    from fate_gym.lab.jobs.instances import Instance
    from fate_gym.lab.jobs.measure import Measurement


MEANS = (
    "makespan",
    "latency",
    "latency_p50",
    "latency_p95",
    "latency_p99",
    "latency_ratio",
    "makespan_ratio",
    "gap_to_bound",
    "state_intensity",
    "model_loads",
    "load_seconds",
    "prefix_hit_rate",
    "context_hit_rate",
    "bytes_moved",
    "evictions",
    "regretted_evictions",
    "preemptions",
    "device_utilisation",
    "batch_occupancy",
    "ttft_mean",
    "ttft_p50",
    "ttft_p95",
    "ttft_p99",
    "tpot_mean",
    "tpot_p50",
    "tpot_p95",
    "tpot_p99",
    "call_latency_mean",
    "call_latency_p50",
    "call_latency_p95",
    "call_latency_p99",
    "slo_attainment",
    "goodput_per_s",
    "turn_ttft_mean",
    "turn_ttft_p95",
    "session_latency_mean",
    "again_tokens",
    "again_share",
    "shared_hit_rate",
    "within_hit_rate",
    "prefix_memory_share",
    "planning_seconds",
    "usd",
    "energy_joules",
)
"""Columns of ``workflows.parquet`` whose means are stored in ``result.json``."""


@dataclass(frozen=True)
class Outcome:
    """What `run_job` did; ``skipped``: it was done before; ``damage``: found in an old result."""

    result: JobResult
    directory: Path
    skipped: bool = False
    damage: InputError | None = None


def run_job(
    config: EvaluateConfig, *, overrides: Sequence[str] = (), progress: bool = False
) -> Outcome:
    """Run a job unless it is already done.

    Each result file is written atomically, ``result.json`` last. A job that fails leaves the marker
    ``FAILED`` instead; one that is killed leaves neither, and the next attempt starts afresh.

    Args:
        config: configuration of the job.
        overrides: overrides of the command line, stored with the result.
        progress: whether to show a progress bar.

    Raises:
        InputError: the run directory cannot be written, or its result is from another version.
        JobFailedError: anything else; the reason is in the marker.
    """
    directory = config.run_directory
    done, damage = read_whole(directory)
    if isinstance(damage, OtherVersionError):
        raise damage
    if done is not None and (not config.trace or (directory / files.EXPLAINED).exists()):
        return Outcome(done, directory, skipped=True)
    files.prepare_directory(directory)
    try:
        result = _run(config, list(overrides), progress)
    except Exception as error:
        if isinstance(error, OSError):
            error = unwritable(directory, error)
        text = str(error) if isinstance(error, InputError) else traceback.format_exc()
        files.mark_failed(directory, text)
        where = directory.relative_to(config.sweep_directory).as_posix()
        marker = directory / files.FAILED
        message = f"{where} failed: {printable(files.last_line(text))} ({marker})"
        raise JobFailedError(message, config.sweep_directory) from error
    return Outcome(result, directory, damage=damage)


def _run(config: EvaluateConfig, overrides: list[str], progress: bool) -> JobResult:
    # Imported here: a job that is already done does not need the solvers.
    from fate_gym.lab.jobs.instances import job_instances

    start = perf_counter()
    check_params(config.policy)
    instances = job_instances(config)
    problems = [instance.problem for instance in instances]
    measurements, warm = _play(config, instances, progress)
    played = perf_counter()
    cell: dict[str, Any] = {
        "suite": config.suite.name,
        "cluster": cluster_name(problems),
        "execution": execution_name(problems),
        "policy": config.policy.name,
        "seed": config.seed,
    }
    rows = [cell | row for measurement in measurements for row in measurement.rows]
    decisions = [ms for measurement in measurements for ms in measurement.decision_ms]
    kept = traced(problems) if config.trace else representatives(problems)
    _write_tables(config, rows, decisions, [measurements[i] for i in kept])
    result = JobResult(
        **cell,
        name=config.name,
        family=config.policy.family,
        # Lets reports distinguish a policy with charged planning time from the same one without.
        params=config.policy.params
        | ({"charge_planning_time": True} if config.charge_planning_time else {}),
        config_hash=config.hash,
        suite_hash=config.suite_hash,
        workload_hash=provenance.workload_hash(problems),
        problems=len(problems),
        workflows=len(rows),
        means=means(rows),
        counters=total_counters([m.trace.counters for m in measurements]),
        decision_ms_p50=percentile(decisions, 50),
        decision_ms_p99=percentile(decisions, 99),
        seconds={"build": warm - start, "play": played - warm, "total": perf_counter() - start},
        overrides=overrides,
        **provenance.made_with(),
    )
    made_with = ("versions", "git_sha", "machine", "workload_hash", "config_hash", "execution")
    resolved = config.model_dump(mode="json") | {
        "made_with": result.model_dump(include={*made_with})
    }
    text = yaml.dump(resolved, sort_keys=False, Dumper=yaml.CSafeDumper)
    write_text(config.run_directory / files.CONFIG, text)
    names = [files.CONFIG, files.WORKFLOWS, files.DECISIONS, files.SHARDS]
    names += [files.EXPLAINED] if config.trace else []
    sums = {name: checksum(read_bytes(config.run_directory / name)) for name in names}
    result = result.model_copy(update={"checksums": sums}).sealed
    write_result(config.run_directory, result)
    return result


def _play(
    config: EvaluateConfig, instances: Sequence[Instance], progress: bool
) -> tuple[list[Measurement], float]:
    """Play every problem; also return the time at which everything was compiled."""
    from fate_gym.lab.jobs.measure import measure, warm_up
    from fate_gym.sim import Recorder

    policy = build_policy(config.policy.model_dump())
    smallest = min(instances, key=lambda instance: instance.problem.stage_count)
    warm_up(smallest.compiled, policy)
    warm = perf_counter()
    with progress_bar(shown=progress and sys.stderr.isatty()) as bar:
        return [
            measure(
                instance,
                policy,
                charge_planning=config.charge_planning_time,
                recorder=Recorder() if config.trace else None,
            )
            for instance in bar.track(instances, description=config.title)
        ], warm


def _write_tables(
    config: EvaluateConfig,
    rows: Sequence[Mapping[str, Any]],
    decisions: Sequence[float],
    shown: Sequence[Measurement],
) -> None:
    directory = config.run_directory
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        files.WORKFLOWS: rows,
        files.DECISIONS: [{"decision_ms": value} for value in decisions],
        files.SHARDS: [row for one in shown for row in one.shards(config.policy.name)],
    }
    for name, table in tables.items():
        write_table(directory / name, table, owner=config.hash)
    if config.trace:
        write_text(directory / files.CHROME_TRACE, json.dumps(shown[0].trace.to_chrome()))
        runs = [(one.trace, one.recorder) for one in shown]
        write_explained(directory, [explained_schedule(t, r) for t, r in runs if r is not None])


def cluster_name(problems: Sequence[Problem]) -> str:
    """Return the problems' cluster, or ``several``: a suite of files may have many."""
    names = {problem.cluster.id for problem in problems}
    return names.pop() if len(names) == 1 else "several"


def execution_name(problems: Sequence[Problem]) -> str:
    """Return the execution of the problems' devices, or ``several``."""
    names = {problem.cluster.execution for problem in problems}
    return names.pop() if len(names) == 1 else "several"


def place(problems: Sequence[Problem]) -> str:
    """Describe the problems' cluster, with its execution unless that is exclusive."""
    name, execution = cluster_name(problems), execution_name(problems)
    return name if execution == "exclusive" else f"{name} ({execution})"


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute means over workflows of the columns in `MEANS`, ignoring non-finite values."""
    found = {}
    for column in MEANS:
        values = [float(row[column]) for row in rows if math.isfinite(row[column])]
        if values:
            found[column] = sum(values) / len(values)
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """Compute a percentile, interpolated linearly; 0 without values."""
    return float(np.percentile(values, percent)) if len(values) else 0.0
