"""Logs a finished job to Weights & Biases, from its result files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from fate_gym.lab.config import TrackingConfig
from fate_gym.lab.errors import first_line
from fate_gym.lab.files import read_table
from fate_gym.lab.jobs import directory as files
from fate_gym.lab.jobs.find import find_jobs
from fate_gym.lab.jobs.result import JobResult
from fate_gym.lab.jobs.schedules import first_schedules
from fate_gym.lab.tracking.wandb_run import start_run, wandb_inside

_METRIC = "latency_ratio"


def track(tracking: TrackingConfig, result: JobResult, directory: Path) -> str | None:
    """Log one finished job.

    Args:
        tracking: settings; with mode ``none`` nothing happens.
        result: the job's summary.
        directory: the job's run directory, also used for all files that W&B writes.

    Returns:
        A warning if W&B failed, or could not be reached so that the run was kept offline (the
        results are on disk in any case), else None.
    """
    if tracking.mode == "none":
        return None
    try:
        with wandb_inside(directory):
            try:
                _log(tracking, result, directory)
            except _UnreachableError as error:
                # No login or no network: keep the run offline, to be sent later. W&B's service
                # still holds the failed run.
                _end_service()
                _log(tracking.model_copy(update={"mode": "offline"}), result, directory)
                return (
                    f"W&B was not reached for {result.title} ({error}); the run is kept offline: "
                    f"wandb sync {directory}/wandb/offline-run-*"
                )
    except Exception as error:  # noqa: BLE001
        # Failures of the disk or the W&B client must not make a finished job fail.
        _end_service()
        return (
            f"logging {result.title} to W&B failed: {first_line(error)}; the results are on disk, "
            "and `fate-gym track` logs them again"
        )
    return None


def track_again(root: Path, tracking: TrackingConfig) -> Iterator[tuple[str, str | None]]:
    """Log the finished jobs of a sweep from their files; yield each title and warning.

    A run keeps its id, so W&B resumes it instead of starting a second one.

    Raises:
        InputError: no jobs in the directory.
    """
    for job in find_jobs(root):
        if job.result is not None:
            yield job.result.title, track(tracking, job.result, job.directory)


class _UnreachableError(Exception):
    """W&B's server refused the run, or did not answer."""


def _end_service() -> None:
    """Drop W&B's background process, which may be dead: W&B would wait for it at exit."""
    import wandb

    with suppress(Exception):
        wandb.teardown(exit_code=1)


def _log(tracking: TrackingConfig, result: JobResult, directory: Path) -> None:
    import wandb

    resolved = files.read_config(directory)
    try:
        run = start_run(
            tracking,
            directory,
            resolved | resolved.pop("made_with"),
            group=result.name,
            job_type="evaluate",
            name=result.title,
            id=result.run_id,
            resume="allow",
            tags=[f"v{result.versions['fate-gym']}", result.family, result.execution],
        )
    except wandb.Error as error:
        if tracking.mode == "online":
            raise _UnreachableError(first_line(error)) from error
        raise
    try:
        _fill(run, result, directory, gantt=tracking.gantt)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _fill(run: Any, result: JobResult, directory: Path, *, gantt: bool) -> None:
    import wandb

    run.define_metric("workflow", hidden=True)
    run.define_metric("*", step_metric="workflow")
    run.define_metric(_METRIC, step_metric="workflow", summary="mean")
    rows = read_table(directory / files.WORKFLOWS)
    for number, row in enumerate(rows.select([_METRIC, "makespan"]).to_pylist()):
        run.log({"workflow": number} | row)
    figures = result.model_dump(include={"decision_ms_p50", "decision_ms_p99", "seconds"})
    run.summary.update(result.means | figures)
    extra: dict[str, Any] = {
        "workflows": wandb.Table(
            columns=rows.column_names, data=[list(row.values()) for row in rows.to_pylist()]
        )
    }
    if gantt:
        extra["gantt"] = wandb.Image(_gantt(directory))
    run.log(extra)
    artifact = wandb.Artifact(result.run_id, type="results")
    kept = (files.RESULT, files.WORKFLOWS, files.CONFIG, files.SHARDS)
    for file in (*kept, files.CHROME_TRACE, files.EXPLAINED):
        if (directory / file).exists():
            artifact.add_file(str(directory / file))
    run.log_artifact(artifact)


def _gantt(directory: Path) -> Any:
    from PIL import Image

    from fate_gym.lab.report.figures.gantt import gantt_figure
    from fate_gym.lab.report.figures.style import draw_into

    buffer = io.BytesIO()
    draw_into(gantt_figure(first_schedules(directory)), buffer, format="png", dpi=90)
    return Image.open(buffer)
