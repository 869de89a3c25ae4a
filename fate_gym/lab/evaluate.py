"""``fate-gym evaluate``: one job, or a sweep of jobs, through Hydra."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fate_gym.lab.jobs.compilation import compile_policies
from fate_gym.lab.jobs.find import job_state
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.sweep.check import Cell
from fate_gym.lab.sweep.compose import plain
from fate_gym.lab.sweep.hydra_main import run_hydra
from fate_gym.lab.sweep.plan import Plan
from fate_gym.lab.sweep.progress import Entry, add_entry, kind_of
from fate_gym.lab.tables import print_table

if TYPE_CHECKING:
    from fate_gym.lab.jobs.config import EvaluateConfig

_SHOWN = {
    "makespan": ("makespan, s", ".2f"),
    "latency_ratio": ("latency / RoundRobin", ".3f"),
    "gap_to_bound": ("latency / lower bound", ".2f"),
    "model_loads": ("model loads", ".1f"),
    "prefix_hit_rate": ("prefix hit rate", ".1%"),
    "again_share": ("prefilled again, of all tokens prefilled", ".1%"),
    "device_utilisation": ("device utilisation", ".1%"),
    "session_latency_mean": ("session without thinking, s", ".2f"),
    "ttft_p95": ("time to first token P95, s", ".2f"),
    "tpot_p95": ("time per output token P95, s", ".4f"),
    "slo_attainment": ("requests within objectives", ".1%"),
}


def evaluate(config: DictConfig) -> float:
    """Run one job (Hydra's task function); return the mean latency ratio, for sweepers."""
    # Imported here, so that --help does not load the workloads.
    from fate_gym.lab.jobs.run import run_job
    from fate_gym.lab.tracking.job import track

    hydra = HydraConfig.get()
    # --config-dir: the user's own suites may refer to the user's own clusters.
    own = [
        source.path
        for source in hydra.runtime.config_sources
        if source.provider == "command-line" and source.schema == "file"
    ]
    alone = hydra.mode == RunMode.RUN
    checked = checked_config(config, own)
    outcome = run_job(checked, overrides=list(hydra.overrides.task), progress=alone)
    result, directory = outcome.result, outcome.directory
    line = _job_line(result)
    if outcome.skipped:
        line, warning = f"{line}; done before", None
    else:
        warning = track(checked.tracking, result, directory)
    if outcome.damage is not None:
        line += f"\nnote: it was run again, since a file of it was damaged: {outcome.damage}"
    if not alone:
        line += f"\nwarning: {warning}" if warning else ""
        state: Literal["skipped", "done"] = "skipped" if outcome.skipped else "done"
        kind = kind_of(hydra.overrides.task)
        entry = Entry(state, line, kind, result.seconds["total"])
        add_entry(Path(hydra.sweep.dir), entry)
    else:
        _print_job(result)
        where = f"{'done before; ' if outcome.skipped else ''}results: {directory}"
        print(*line.splitlines()[1:], where, sep="\n", flush=True)
        if warning:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    return result.means.get("latency_ratio", math.inf)


def _job_line(result: JobResult) -> str:
    """Summarise a finished job in one line."""
    ratio = result.means.get("latency_ratio", math.inf)
    return (
        f"{result.title} on {result.cluster}: latency / RoundRobin {ratio:.3f} over "
        f"{result.workflows} workflows, {result.seconds['total']:.1f} s"
    )


def _print_job(result: JobResult) -> None:
    """Print a table of one job's means."""
    rows = [
        (title, f"{result.means[column]:{form}}")
        for column, (title, form) in _SHOWN.items()
        if column in result.means
    ]
    decisions = f"{result.decision_ms_p50:.2f} / {result.decision_ms_p99:.2f}"
    rows += [("decision P50 / P99, ms", decisions), ("workflows", str(result.workflows))]
    print_table(("mean over workflows", "value"), rows, title=f"{result.title} on {result.cluster}")


def checked_config(config: DictConfig, extra_dirs: Sequence[str]) -> EvaluateConfig:
    """Check a job's configuration, including that its policy exists and takes its parameters.

    Raises:
        InputError: naming the first option at fault.
    """
    from fate_gym.lab.jobs.config import parse_config
    from policies.registry import check_params

    checked = parse_config(plain(config), extra_dirs=extra_dirs)
    check_params(checked.policy)
    return checked


def cell_of(config: DictConfig, extra_dirs: Sequence[str]) -> Cell:
    """Check a job and return where its results go."""
    checked = checked_config(config, extra_dirs)
    return Cell(checked.suite.name, checked.policy.name, checked.seed)


def preview(config: DictConfig, extra_dirs: Sequence[str]) -> str:
    """Describe a job in one line: whether it would run, its title, and its directory."""
    checked = checked_config(config, extra_dirs)
    state = job_state(checked.run_directory)
    return f"{state or 'new':10} {checked.title:40} {checked.run_directory}"


def compile_ahead(plan: Plan) -> None:
    """Compile what the jobs of a sweep will call, before its workers start."""
    # Imported here, so that --help does not load it.
    from policies.registry import policy_specs

    chosen = (word for job in plan.jobs or [] for word in job if word.startswith("policy="))
    names = {word.removeprefix("policy=") for word in chosen}
    if names <= policy_specs().keys():  # an unknown policy fails in its job: do not delay that
        compile_policies(names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); return the exit code."""
    return run_hydra(
        evaluate,
        sys.argv[1:] if arguments is None else arguments,
        config_name="config",
        preview=preview,
        check=cell_of,
        prepare=compile_ahead,
        then="fate-gym report",
    )
