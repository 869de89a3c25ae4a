"""What people see in a terminal: a progress bar while a job runs, and small tables."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fate_gym.lab.results import JobResult

if TYPE_CHECKING:
    from fate_gym.lab.summary import PolicySummary


@contextmanager
def progress_bar(title: str, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error; yields the function that advances it by one.

    Nothing is drawn when not ``shown`` or when standard error is no terminal.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def job_line(result: JobResult) -> str:
    """A finished job in one line."""
    mean = result.means["normalised"]
    return (
        f"{result.title}: {mean:.3f} x round_robin's makespan over {result.workflows} workflows, "
        f"{result.seconds['total']:.1f} s"
    )


def print_job(result: JobResult) -> None:
    """A table of one job's means."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.title} on {result.cluster}", title_justify="left")
    table.add_column("mean over workflows")
    table.add_column("value", justify="right", no_wrap=True)
    for label, key, form in (
        ("makespan, s", "makespan", "{:.2f}"),
        ("makespan / round robin's", "normalised", "{:.3f}"),
        ("makespan / lower bound", "gap_to_bound", "{:.2f}"),
        ("model loads", "model_loads", "{:.1f}"),
        ("prefix hit rate", "prefix_hit_rate", "{:.1%}"),
        ("device utilisation", "device_utilisation", "{:.1%}"),
    ):
        if key in result.means:
            table.add_row(label, form.format(result.means[key]))
    table.add_row(
        "decision P50 / P99, ms", f"{result.decision_ms_p50:.2f} / {result.decision_ms_p99:.2f}"
    )
    table.add_row("workflows", str(result.workflows))
    Console().print(table)


def print_summary(summary: Sequence[PolicySummary], *, strongest: str | None) -> None:
    """The summary of a sweep, best policy first."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fate_gym.lab.summary import interval_text

    caption = "makespan / round robin's; gap: latency / lower bound"
    if strongest:
        caption += f"; wins against {strongest}"
    table = Table(box=None, caption=caption, caption_justify="left", pad_edge=False)
    table.add_column("policy", no_wrap=True)
    for heading in ("mean [95 % CI]", "P95", "wins", "gap", "decision ms", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for number, row in enumerate(summary):
        table.add_row(
            Text(row.policy),
            Text(interval_text(row.norm_makespan, row.norm_makespan_lo, row.norm_makespan_hi)),
            f"{row.norm_p95:.3f}",
            "–" if math.isnan(row.win_rate) else f"{row.win_rate:.0%}",
            f"{row.gap_to_bound:.2f}",
            f"{row.decision_ms_p50:.2f} / {row.decision_ms_p99:.1f}",
            str(row.n),
            style="bold" if number == 0 else None,
        )
    Console().print(table)
