"""One job of a sweep: a suite, a cluster, a policy and a seed, from problems to result files."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import yaml

from fate_gym.errors import InputError
from fate_gym.lab import provenance, results
from fate_gym.lab.config import EvaluateConfig
from fate_gym.lab.console import progress_bar
from fate_gym.lab.hydra_app import JobFailedError
from fate_gym.lab.results import JobResult
from fate_gym.lab.tracking import track

if TYPE_CHECKING:
    from fate_gym.lab.measure import Measurement
    from fate_gym.problem import Problem

MEANS = (
    "makespan",
    "latency",
    "normalised",
    "normalised_makespan",
    "normalised_latency",
    "gap_to_bound",
    "state_intensity",
    "model_loads",
    "load_seconds",
    "prefix_hit_rate",
    "context_hit_rate",
    "bytes_moved",
    "evictions",
    "regretted_evictions",
    "device_utilisation",
    "planning_seconds",
    "usd",
    "energy_joules",
)
"""Columns of ``workflows.parquet`` whose means stand in ``result.json``."""


_SHOWN_STAGES = 1_000


@dataclass(frozen=True)
class Outcome:
    """What `run_job` did. ``skipped``: a result was there; ``warning``: tracking failed."""

    result: JobResult
    directory: Path
    skipped: bool = False
    warning: str | None = None


def run_job(
    config: EvaluateConfig, *, overrides: Sequence[str] = (), progress: bool = False
) -> Outcome:
    """Run a job, or find that it is done.

    The result files appear whole or not at all, ``result.json`` last. A job that fails leaves the
    marker ``FAILED`` instead; one that is killed leaves neither, and the next try starts afresh.

    Args:
        config: the job.
        overrides: what the command line said, kept with the result.
        progress: draw a progress bar.

    Raises:
        InputError: the run directory cannot be written, or its result is from another version.
        JobFailedError: anything else; the reason is in the marker.
    """
    directory = config.run_directory
    done = results.read_result(directory)
    if done is not None and (not config.trace or (directory / results.CHROME_TRACE).exists()):
        return Outcome(done, directory, skipped=True)
    results.prepare_directory(directory)
    try:
        result, rows, resolved = _run(config, directory, list(overrides), progress)
    except Exception as error:
        text = str(error) if isinstance(error, InputError) else traceback.format_exc()
        results.mark_failed(directory, text)
        where = directory.relative_to(config.sweep_directory).as_posix()
        marker = directory / results.FAILED
        message = f"{where} failed: {results.last_line(text)} ({marker})"
        raise JobFailedError(message, config.sweep_directory) from error
    warning = track(config.tracking, result, rows, resolved, directory)
    return Outcome(result, directory, warning=warning)


def _run(
    config: EvaluateConfig, directory: Path, overrides: list[str], progress: bool
) -> tuple[JobResult, list[dict[str, Any]], dict[str, Any]]:
    # Compiled code and solvers are loaded here: a job that is done already needs none of them.
    from fate_gym.lab.measure import measure, warm_up
    from fate_gym.workloads import build_suite
    from policies.registry import build_policy

    start = perf_counter()
    problems = build_suite(config.suite, config.cluster, config.seed)
    policy = build_policy(config.policy.model_dump())
    warm_up(min(problems, key=lambda problem: problem.stage_count), policy)
    built = perf_counter()
    measurements: list[Measurement] = []
    with progress_bar(config.title, len(problems), shown=progress) as advance:
        for problem in problems:
            measurements.append(
                measure(
                    problem,
                    policy,
                    seed=config.seed,
                    charge_planning=config.charge_planning_time,
                )
            )
            advance()
    played = perf_counter()

    cluster = cluster_name(problems)
    cell = {
        "suite": config.suite.name,
        "cluster": cluster,
        "policy": config.policy.name,
        "seed": config.seed,
    }
    rows = [cell | row for measurement in measurements for row in measurement.rows]
    decisions = [ms for measurement in measurements for ms in measurement.decision_ms]
    shown = representatives(problems)
    results.write_table(directory / results.WORKFLOWS, rows)
    results.write_table(
        directory / results.DECISIONS, [{"decision_ms": value} for value in decisions]
    )
    shards = [row for place in shown for row in measurements[place].shards(config.policy.name)]
    results.write_table(directory / results.SHARDS, shards)
    if config.trace:
        text = json.dumps(measurements[shown[0]].trace.to_chrome())
        results.write_text(directory / results.CHROME_TRACE, text)
    resolved = config.model_dump(mode="json")
    result = JobResult(
        name=config.name,
        suite=config.suite.name,
        cluster=cluster,
        policy=config.policy.name,
        family=config.policy.family,
        seed=config.seed,
        params=config.policy.params | _charged(config),
        config_hash=config.hash,
        suite_hash=config.suite_hash,
        workload_hash=provenance.workload_hash(problems),
        problems=len(problems),
        workflows=len(rows),
        means=means(rows),
        counters=results.total_counters([m.trace.counters for m in measurements]),
        decision_ms_p50=percentile(decisions, 50),
        decision_ms_p99=percentile(decisions, 99),
        seconds={
            "build": built - start,
            "play": played - built,
            "total": perf_counter() - start,
        },
        overrides=overrides,
        versions=provenance.versions(),
        git_sha=provenance.git_sha(),
        machine=provenance.machine(),
    )
    made_with = result.model_dump(
        include={"versions", "git_sha", "machine", "workload_hash", "config_hash"}
    )
    text = yaml.safe_dump(resolved | {"made_with": made_with}, sort_keys=False)
    results.write_text(directory / results.CONFIG, text)
    results.write_result(directory, result)
    return result, rows, resolved


def _charged(config: EvaluateConfig) -> dict[str, Any]:
    """Tells a policy whose time is charged from the same one for free, in labels of reports."""
    return {"charge_planning_time": True} if config.charge_planning_time else {}


def cluster_name(problems: Sequence[Problem]) -> str:
    """The cluster of the problems, or ``several``: a suite of files may have many."""
    names = {problem.cluster.id for problem in problems}
    return names.pop() if len(names) == 1 else "several"


def representatives(problems: Sequence[Problem]) -> list[int]:
    """The numbers of the problems whose schedules are kept.

    By stages the median, then the quartiles and the largest, if they have at most 1,000 stages.
    """
    order = sorted(range(len(problems)), key=lambda i: (problems[i].stage_count, i))
    last = len(order) - 1
    places = dict.fromkeys(order[place] for place in (last // 2, last // 4, 3 * last // 4, last))
    first, *others = places
    return [first, *(i for i in others if problems[i].stage_count <= _SHOWN_STAGES)]


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over workflows of the columns in `MEANS`, without values that are not finite."""
    found = {}
    for column in MEANS:
        values = [float(row[column]) for row in rows if math.isfinite(row[column])]
        if values:
            found[column] = sum(values) / len(values)
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile, interpolated linearly; 0 without values."""
    import numpy as np

    return float(np.percentile(values, percent)) if len(values) else 0.0
