"""Builds a saved Weights & Biases view of the runs of one sweep.

Building W&B reports requires the server; saved views of a workspace do not, so the definition can
be inspected and tested without an account.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fate_gym.errors import InputError
from fate_gym.lab.jobs.find import find_jobs

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

MECHANISM = ("model_loads", "load_seconds", "prefix_hit_rate", "bytes_moved", "device_utilisation")
"""Means of a run in the section that explains differences."""

SERVING = {
    "ttft_p95": "time to first token P95, s",
    "tpot_p95": "time per output token P95, s",
    "call_latency_p95": "latency of a call P95, s",
    "slo_attainment": "share of requests within objectives",
    "goodput_per_s": "goodput, requests per second",
    "batch_occupancy": "queries in service on a busy device",
}
"""Means of a run in the section on serving, with their titles."""

SESSIONS = {
    "latency_p95": "latency of a turn P95, s",
    "turn_ttft_p95": "time to first token of a turn P95, s",
    "again_share": "prefilled again, share of prefill",
    "within_hit_rate": "hit rate within a session",
}
"""Means of a run in the section on sessions, with their titles."""


def build_view(directory: Path, *, entity: str, project: str = "fate-gym") -> Workspace:
    """Build the view of a sweep: runs grouped by policy and execution, results and mechanisms.

    Args:
        directory: directory of the sweep, whose name is the group of its runs.
        entity: W&B user or team.
        project: W&B project.

    Raises:
        InputError: no finished jobs, or the extra ``wandb`` is missing.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as spaces
    except ImportError:
        raise InputError(
            "needs the package wandb-workspaces", remedy="pip install 'fate-gym[wandb]'"
        ) from None
    names = {job.result.name for job in find_jobs(directory) if job.result is not None}
    if len(names) != 1:
        raise InputError(
            f"{len(names)} sweeps have finished jobs here, not one",
            source=directory,
            remedy="give the directory of one sweep, e.g. runs/default",
        )
    (name,) = names

    def section(name: str, *shown: Any, is_open: bool = False) -> Any:
        return spaces.Section(name=name, panels=list(shown), is_open=is_open)

    def bars(metric: str, title: str) -> Any:
        return panels.BarPlot(metrics=[metric], title=title, groupby_aggfunc="mean")

    intensity = panels.ScatterPlot(
        x=panels.SummaryMetric("state_intensity"),
        y=panels.SummaryMetric("latency_ratio"),
        title="against state intensity",
    )
    results = (
        bars("latency_ratio", "latency / RoundRobin"),
        bars("gap_to_bound", "latency / lower bound"),
        bars("decision_ms_p99", "decision, ms P99"),
        intensity,
    )
    return spaces.Workspace(
        entity=entity,
        project=project,
        name=f"{name} by policy",
        sections=[
            section("Results", *results, is_open=True),
            section("Mechanism", *(bars(metric, metric) for metric in MECHANISM)),
            section("Serving", *(bars(metric, title) for metric, title in SERVING.items())),
            section("Sessions", *(bars(metric, title) for metric, title in SESSIONS.items())),
            section("Schedules", panels.MediaBrowser(media_keys=["gantt"], title="Gantt")),
        ],
        runset_settings=spaces.RunsetSettings(
            filters=[spaces.Metric("Group") == name],
            groupby=[spaces.Config("policy.name"), spaces.Config("execution")],
            pinned_columns=["summary:latency_ratio", "summary:gap_to_bound"],
        ),
    )


def save_view(directory: Path, *, entity: str, project: str, dry_run: bool) -> int:
    """Save the view of a sweep in W&B and print its URL; return the exit code.

    Args:
        directory: directory of the sweep.
        entity: W&B user or team.
        project: W&B project.
        dry_run: only print the definition of the view.

    Raises:
        InputError: no finished jobs, or the extra ``wandb`` is missing.
    """
    view = build_view(directory, entity=entity, project=project)
    if dry_run:
        print(view._to_model().model_dump_json(by_alias=True, indent=1))
        return 0
    import wandb

    try:
        view.save()
    except (wandb.Error, OSError, ValueError) as error:
        print(f"error: saving the view in W&B failed: {error}", file=sys.stderr)
        return 1
    print(view.url)
    return 0
