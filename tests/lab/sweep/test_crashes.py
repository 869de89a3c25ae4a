"""Kills, full and read-only disks, concurrent sweeps: nothing is lost, truncated or doubled."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fate_gym import files
from fate_gym.errors import InputError
from fate_gym.lab.errors import JobFailedError
from fate_gym.lab.jobs.find import find_jobs, job_state
from fate_gym.lab.jobs.run import run_job
from fate_gym.lab.report.write import make_report
from fate_gym.lab.sweep.lock import locked
from fate_gym.lab.sweep.progress import JOURNAL, Entry, add_entry
from tests.fuzz.kills import GRID, SHORT, end, evaluate, leftovers, summary
from tests.lab.conftest import Run, command, job_config, run_script
from tests.lab.sweep.test_sweeps import _start, _until, _waiting


class Disk:
    """Counts writes and fails at one of them, given by number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self.left, self.writes, self._code = -1, 0, code
        flush = files.flush

        def failing(path: Path) -> None:
            self.writes += 1
            if self.left == 0:
                self.left = -1
                path.write_bytes(b"") if path.is_file() else None
                raise OSError(self._code, os.strerror(self._code), str(path))
            self.left -= 1
            flush(path)

        monkeypatch.setattr(files, "flush", failing)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_job_survives_a_failure_of_each_of_its_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk = Disk(monkeypatch, code)
    whole = run_job(job_config(tmp_path / "whole")).result
    writes, said = disk.writes, "disk is full" if code == errno.ENOSPC else "cannot write here"
    assert writes >= 10
    config = job_config(tmp_path / "runs")
    for number in range(writes):
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)
        disk.left = number
        with pytest.raises(JobFailedError, match=said):
            run_job(config)
        # The last thing is the name of the result: it may be there, and then all is.
        assert job_state(config.run_directory) in ("failed", "done")
        assert not list(config.run_directory.glob(".*"))
        again = run_job(config).result.means
        assert again | {"planning_seconds": 0.0} == whole.means | {"planning_seconds": 0.0}
        assert job_state(config.run_directory) == "done"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_report_survives_a_failure_of_its_writes(
    sweep: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    root = Path(shutil.copytree(sweep.root, tmp_path / "grid"))
    disk = Disk(monkeypatch, code)
    make_report(root)
    before = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
    for number in random.Random(code).sample(range(disk.writes), 2):
        disk.left = number
        with pytest.raises(InputError) as raised:
            make_report(root)
        full = code == errno.ENOSPC
        assert ("disk is full" in str(raised.value)) == full
        assert ("make room" if full else "check permissions") in str(raised.value)
        after = {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}
        assert after.keys() == before.keys(), "nothing is left behind"
        assert all(after[name] for name in after if name.endswith(("svg", "png", "html")))


@pytest.mark.slow
def test_sweeps_and_reports_that_are_killed_end_as_unbroken_ones(
    sweep: Run, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(sweep.root, tmp_path / "grid"))
    make_report(root)
    runs, rng = tmp_path / "runs", random.Random(7)
    ended, _ = evaluate(runs, rng, 2)
    assert ended == summary(root)
    end(command("report.py", runs / "grid"), rng, 2, SHORT)
    assert summary(runs / "grid") == ended
    assert not leftovers(runs)


def test_a_second_sweep_in_a_directory_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path / "grid"):
        done = run_script("evaluate.py", *GRID, f"paths.runs={tmp_path}")
    assert done.returncode == 2
    assert f"another sweep is running in this directory (process {os.getpid()} on" in done.stderr
    assert not (tmp_path / "grid" / JOURNAL).exists()
    with locked(tmp_path / "grid"):
        pass


@pytest.mark.slow
def test_workers_end_with_the_sweep_that_started_them(tmp_path: Path) -> None:
    process = _start(
        "-m", "suite=smoke", "seed=0,1", "tracking=none", f"paths.runs={tmp_path / 'runs'}",
        *_waiting(tmp_path / "waiting"), "hydra.launcher.n_jobs=2",
    )  # fmt: skip
    root = tmp_path / "runs" / "default"
    _until(lambda: len(list(root.glob("*/*/s*"))) == 2, process)
    assert _others(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for _ in range(100):
        if not _others(process.pid):
            break
        time.sleep(0.1)
    assert not _others(process.pid)
    assert {job.state for job in find_jobs(root)} == {"unfinished"}


def _others(group: int) -> list[int]:
    """Return the running processes of a group, except its first."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of, *_ = (place / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(of) == group and int(place.name) != group and state != "Z":
            found.append(int(place.name))
    return found


def test_a_journal_with_half_a_line_goes_on(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"time": 1, "sta')
    add_entry(tmp_path, Entry("done", "a", "kind"))
    add_entry(tmp_path, Entry("done", "b", "kind"))
    lines: list[Any] = (tmp_path / JOURNAL).read_text().splitlines()
    assert [json.loads(line)["line"] for line in lines[1:]] == ["a", "b"]
