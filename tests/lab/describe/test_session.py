"""``fate-gym session``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from fate_gym.problem import Cluster, Problem, dump_problem
from tests.metrics.test_sessions import DEVICES, TURNS


def test_a_session_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, figure = tmp_path / "turns.json", tmp_path / "session.png"
    dump_problem(Problem.build(Cluster(id="two", devices=DEVICES), TURNS), file)
    options = ["suite=files", f"suite.files=[{file}]", "policy=round_robin,eft"]
    assert main(["session", *options, "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main(["session", *options, "--session", "aa", "--figure", str(figure)]) == 2
    assert "unknown session 'aa'" in capsys.readouterr().err


def test_a_suite_without_sessions_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["session", "suite=smoke"]) == 2
    assert "suite 'smoke' has no sessions" in capsys.readouterr().err
