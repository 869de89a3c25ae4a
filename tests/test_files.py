"""Files are written completely or not at all, in all parts of the project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.problem import Problem, dump_problem, io, load_problem, parse_problem
from fate_gym.sim import Simulator, Trace
from policies import make_policy

PROBLEM = Problem.classical({"a": {"d": 1.0}}, {})
TRACE: Trace = Simulator(PROBLEM).run(make_policy("round_robin"))
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "new"),
    "problem": lambda path: dump_problem(PROBLEM, path),
    "trace": TRACE.save,
    "chrome": TRACE.write_chrome,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "file.json"
    write_text(path, "old")

    def broken(self: Path, target: Path) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", broken)
        with pytest.raises(OSError, match="disk full"):
            WRITERS[kind](path)
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"
    WRITERS[kind](path)
    assert path.read_text() != "old"


def test_the_next_write_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """And leaves what a process that still runs is writing, and other files' leftovers."""
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    kept = [f".{os.getppid()}.tmp.a[b].txt", f".{ended.pid}.tmp.ab.txt", f".{ended.pid}.tmp.b.txt"]
    for name in [f".{ended.pid}.tmp.a[b].txt", *kept]:
        (tmp_path / name).touch()
    write_text(tmp_path / "a[b].txt", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"a[b].txt", *kept}


def test_a_pipe_is_written_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    dump_problem(PROBLEM, pipe)
    assert parse_problem(os.read(end, 10_000)) == PROBLEM
    os.close(end)
    assert pipe.is_fifo()


def test_files_without_end_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    dump_problem(PROBLEM, path)
    assert load_problem(path) == PROBLEM
    monkeypatch.setattr(io, "MOST_BYTES", path.stat().st_size - 1)
    for endless in (path, Path("/dev/zero")):
        with pytest.raises(InputError, match="more than") as caught:
            load_problem(endless)
        assert caught.value.source == str(endless)
