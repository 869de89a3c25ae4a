"""``fate-gym gantt``."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.lab.cli import main


def test_schedules_of_two_policies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "gantt.svg"
    words = ["suite=smoke", "policy=heft,eft", "cluster.execution=batching", "--problem", "1"]
    assert main(["gantt", *words, "--figure", str(figure)]) == 0
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert "41 stages on 8 GPUs" in title
    assert [row.split()[0] for row in rows[:2]] == ["heft", "eft"]
    assert rows[0].split()[3] == "1.00"
    drawn = figure.read_text()
    for row in rows[:2]:
        name, makespan = row.split()[:2]
        assert f"{name}: {makespan} s" in drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--figure a.xyz", "cannot draw a .xyz"),
        ("--problem 2", "suite 'smoke' has no problem 2"),
        ("policy=hefty", "unknown policy 'hefty'"),
    ],
)
def test_mistakes(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gantt", *words.split()]) == 2
    assert message in capsys.readouterr().err
