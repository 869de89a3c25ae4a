"""Mirrors a finished job to Weights & Biases. The result files are the record; this never is.

Offline by default: no account, no network. ``wandb sync RUN_DIRECTORY/wandb/offline-run-*`` sends
a run later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fate_gym.lab.config import TrackingConfig
from fate_gym.lab.results import (
    CHROME_TRACE,
    CONFIG,
    RESULT,
    SHARDS,
    WORKFLOWS,
    JobResult,
    find_jobs,
    first_schedules,
)

_METRIC = "normalised"
_INIT_SECONDS = 20


def track(
    tracking: TrackingConfig,
    result: JobResult,
    rows: Sequence[Mapping[str, Any]],
    resolved: Mapping[str, Any],
    directory: Path,
) -> str | None:
    """Log one finished job.

    Args:
        tracking: where to; with mode ``none`` nothing happens.
        result: the job's summary.
        rows: its rows of workflows.
        resolved: the resolved configuration.
        directory: the job's run directory; everything that W&B writes goes there.

    Returns:
        A warning if W&B failed, or could not be reached so that the run was kept offline (the
        results are on disk all the same), else None.
    """
    if tracking.mode == "none":
        return None
    try:
        with _inside(directory):
            try:
                _log(tracking, result, rows, resolved, directory)
            except _UnreachableError as error:
                # No login, no network: what could not be sent now can be sent later. The service
                # still holds the run that failed.
                _end_service()
                offline = tracking.model_copy(update={"mode": "offline"})
                _log(offline, result, rows, resolved, directory)
                return (
                    f"W&B was not reached for {result.title} ({error}); the run is kept offline: "
                    f"wandb sync {directory}/wandb/offline-run-*"
                )
    except Exception as error:  # noqa: BLE001
        # Whatever a disk or a third-party client does, a finished job stays finished.
        _end_service()
        return (
            f"W&B did not take {result.title}: {_reason(error)}; the results are on disk, and "
            f"`fate-gym track` logs them again"
        )
    return None


def track_again(root: Path, tracking: TrackingConfig) -> Iterator[tuple[str, str | None]]:
    """Log the finished jobs of a sweep from their files: title and warning of each.

    A run has the same id as before, so W&B goes on with it instead of starting a second one.

    Raises:
        InputError: no jobs in the directory.
    """
    import pyarrow.parquet as pq
    import yaml

    for job in find_jobs(root):
        if job.result is not None:
            rows = pq.read_table(job.directory / WORKFLOWS).to_pylist()
            resolved = yaml.safe_load((job.directory / CONFIG).read_text(encoding="utf-8"))
            yield job.result.title, track(tracking, job.result, rows, resolved, job.directory)


class _UnreachableError(Exception):
    """W&B's server refused the run, or did not answer."""


def _reason(error: Exception) -> str:
    first = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {first[0]}"


def _end_service() -> None:
    """Forget W&B's background process, which may be dead: at exit it would be waited for."""
    import wandb

    with suppress(Exception):
        wandb.teardown(exit_code=1)


def _log(
    tracking: TrackingConfig,
    result: JobResult,
    rows: Sequence[Mapping[str, Any]],
    resolved: Mapping[str, Any],
    directory: Path,
) -> None:
    import wandb

    assert tracking.mode != "none"
    settings = wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        init_timeout=_INIT_SECONDS,
        login_timeout=_INIT_SECONDS,
        # A killed run loses what is not flushed; the default is 15 s.
        x_transaction_log_flush_interval=2.0,
    )
    try:
        run = wandb.init(
            project=tracking.project,
            entity=tracking.entity,
            mode=tracking.mode,
            dir=str(directory),
            group=result.name,
            job_type="evaluate",
            name=result.title,
            id=run_id(result),
            resume="allow",
            tags=[f"v{result.versions['fate-gym']}", result.family],
            config=dict(resolved)
            | {
                "versions": result.versions,
                "git_sha": result.git_sha,
                "workload_hash": result.workload_hash,
                "config_hash": result.config_hash,
            },
            settings=settings,
        )
    except wandb.Error as error:
        if tracking.mode == "online":
            raise _UnreachableError(_reason(error)) from error
        raise
    try:
        run.define_metric("workflow", hidden=True)
        run.define_metric("*", step_metric="workflow")
        run.define_metric(_METRIC, step_metric="workflow", summary="mean")
        for number, row in enumerate(rows):
            run.log({"workflow": number, _METRIC: row[_METRIC], "makespan": row["makespan"]})
        run.summary.update(
            result.means
            | {
                "decision_ms_p50": result.decision_ms_p50,
                "decision_ms_p99": result.decision_ms_p99,
                "seconds": result.seconds,
            }
        )
        columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
        data: list[Iterable[Any]] = [[row.get(str(name)) for name in columns] for row in rows]
        extra: dict[str, Any] = {"workflows": wandb.Table(columns=columns, data=data)}
        if tracking.gantt:
            extra["gantt"] = wandb.Image(_gantt(directory))
        run.log(extra)
        artifact = wandb.Artifact(run_id(result), type="results")
        for file in (RESULT, WORKFLOWS, CONFIG, SHARDS, CHROME_TRACE):
            if (directory / file).exists():
                artifact.add_file(str(directory / file))
        run.log_artifact(artifact)
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def run_id(result: JobResult) -> str:
    """W&B's id of a job: the same job has the same id on every machine."""
    name = f"{result.name}-{result.suite}-{result.policy}-s{result.seed}-{result.config_hash}"
    return re.sub(r"[^\w-]", "-", name)[-120:]


def _gantt(directory: Path) -> Any:
    import io

    from PIL import Image

    from fate_gym.lab.plots import gantt_figure

    figure = gantt_figure(first_schedules(directory))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return Image.open(buffer)


@contextmanager
def _inside(directory: Path) -> Iterator[None]:
    """Keep everything that W&B writes inside a directory: it reads these from the environment."""
    wanted = {
        "WANDB_DIR": str(directory),
        "WANDB_DATA_DIR": str(directory / "wandb" / "data"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
