"""A job with a damaged file counts as not done: reports name it, and a rerun repeats it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fate_gym.lab.jobs.config import EvaluateConfig
from fate_gym.lab.jobs.directory import CONFIG, DECISIONS, FAILED, RESULT, SHARDS, WORKFLOWS
from fate_gym.lab.jobs.find import find_jobs, job_state
from fate_gym.lab.jobs.intact import REMEDY
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.compute import compute_report
from tests.lab.conftest import edit_result, job_config

FILES = (RESULT, CONFIG, WORKFLOWS, DECISIONS, SHARDS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two jobs."""
    runs = tmp_path_factory.mktemp("whole")
    for policy in ("heft", "round_robin"):
        run_job(job_config(runs, policy))
    return runs


@pytest.fixture
def heft(whole: Path, tmp_path: Path) -> EvaluateConfig:
    """Return the first of the two jobs, in a copy."""
    shutil.copytree(whole, tmp_path / "runs")
    return job_config(tmp_path / "runs")


def _flip_a_digit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    # Of a number in the middle: the file can still be read.
    place = next(i for i in range(len(data) // 2, len(data)) if chr(data[i]) in "345")
    data[place] ^= 1
    path.write_bytes(data)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "no text": lambda path: path.write_bytes(b"\xff\xfe\x00\xd8"),
    "foreign": lambda path: pq.write_table(pa.table({"a": ["<b>"]}), path),
    "a pipe": _pipe,
    "removed": Path.unlink,
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGE)
def test_one_damaged_file_is_named_and_its_job_runs_again(
    heft: EvaluateConfig, file: str, damage: str
) -> None:
    before = compute_report(heft.sweep_directory)
    path = heft.run_directory / file
    DAMAGE[damage](path)
    if (file, damage) == (RESULT, "removed"):
        assert job_state(heft.run_directory) == "unfinished"
    else:
        assert job_state(heft.run_directory) == "damaged"
        report = compute_report(heft.sweep_directory)
        assert report.order == ["round_robin"]
        (line,) = report.sweep.gaps()
        assert line.startswith("damaged: smoke/heft/s0: ")
        assert str(path) in line
        assert REMEDY in line
    outcome = run_job(heft)
    assert not outcome.skipped
    assert (outcome.damage is None) == ((file, damage) == (RESULT, "removed"))
    assert run_job(heft).skipped
    after = compute_report(heft.sweep_directory)
    assert [row.latency_ratio for row in after.summary] == [
        row.latency_ratio for row in before.summary
    ]


def test_a_number_that_changed_is_found(heft: EvaluateConfig) -> None:
    _flip_a_digit(heft.run_directory / RESULT)
    (job, _) = find_jobs(heft.sweep_directory)
    assert "checksum" in str(job.damage)


@pytest.mark.parametrize("file", [WORKFLOWS, DECISIONS, SHARDS])
def test_a_byte_of_a_table_that_changed_is_found(heft: EvaluateConfig, file: str) -> None:
    path = heft.run_directory / file
    data = bytearray(path.read_bytes())
    data[len(data) // 5] ^= 0x10
    path.write_bytes(data)
    assert job_state(heft.run_directory) == "damaged"


@pytest.mark.parametrize("file", FILES)
def test_a_file_of_another_job_is_found(heft: EvaluateConfig, file: str) -> None:
    other = job_config(heft.paths.runs, "round_robin").run_directory
    shutil.copy(other / file, heft.run_directory / file)
    assert job_state(heft.run_directory) == "damaged"


def test_results_from_before_have_no_checksums(heft: EvaluateConfig) -> None:
    for file in (WORKFLOWS, DECISIONS, SHARDS):
        path = heft.run_directory / file
        pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    edit_result(heft.run_directory / RESULT, checksum="", checksums={})
    assert job_state(heft.run_directory) == "done"


def test_a_marker_that_is_no_text(heft: EvaluateConfig) -> None:
    (heft.run_directory / RESULT).unlink()
    (heft.run_directory / FAILED).write_bytes(b"\xff\x1b[2J")
    (job, _) = find_jobs(heft.sweep_directory)
    assert job.failure == "the reason is lost: not a text in UTF-8"


def test_a_table_that_unpacks_to_too_much_is_refused(heft: EvaluateConfig) -> None:
    column = pa.chunked_array([pa.array([0.0]).take(pa.array([0] * 1_000_000))] * 250)
    pq.write_table(pa.table({"decision_ms": column}), heft.run_directory / DECISIONS)
    assert (heft.run_directory / DECISIONS).stat().st_size < 2 << 20
    edit_result(heft.run_directory / RESULT, checksum="", checksums={})
    (job, _) = find_jobs(heft.sweep_directory)
    assert "more than 200,000,000 values" in str(job.damage)
