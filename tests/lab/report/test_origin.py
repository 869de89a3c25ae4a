"""What a report says about the origin of its workflows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fate_gym.lab.report.origin import what
from fate_gym.workloads import load_suite


def report(*sources: str | None) -> Any:
    """Make a report with one job for each source of suites."""
    jobs = [SimpleNamespace(directory=Path(str(source)), source=source) for source in sources]
    result = SimpleNamespace(execution="exclusive", suite="suite")
    return SimpleNamespace(
        sweep=SimpleNamespace(
            finished=[(job, result) for job in jobs],
            rows=["workflow"] * 7,
            option=lambda job, path: job.source if path == "suite.source" else None,
        )
    )


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        (["wfcommons", None], "Real topology, modelled attributes: 2 jobs, 7 workflows"),
        (["agents"], "Measured sessions of agents, models mapped: 1 jobs"),
        (["files"], "Own files: 1 jobs"),
        (["requests", "files"], "Measured requests and arrivals, models mapped; own files: 2 jobs"),
    ],
)
def test_measured_modelled_and_own_workflows_are_told_apart(
    sources: list[str | None], words: str
) -> None:
    assert what(report(*sources)).startswith(words)


def test_own_files_are_not_called_modelled() -> None:
    assert "modelled" not in load_suite("files").origin
    assert "modelled" not in load_suite("agents").origin
