from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fate_gym.lab.training.app import main


def test_training_without_its_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "sb3_contrib", None)
    options = ["agent=maskable_ppo", "curriculum=demo", f"paths.runs={tmp_path}"]
    assert main(options) == 2
    assert "pip install 'fate-gym[rl]'" in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["agent=maskable_pp"], "maskable_ppo"),
        (["agent=dqn", "curriculum=dem"], "demo"),
        ([], "no agent chosen"),
        (["agent=dqn", "agent.learning.step=3"], "steps"),
        (["agent=dqn", "env.window=-1"], "window"),
    ],
)
def test_mistakes_end_in_a_message(
    options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, f"paths.runs={tmp_path}"]) == 2
    assert says in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--dry-run", "agent=dqn,bc", "seed=1,2", f"paths.runs={tmp_path}", "-m"]
    assert main(options) == 0
    said = capsys.readouterr().out
    for name in ("dqn/s1", "dqn/s2", "bc/s1", "bc/s2"):
        assert f"real_dag/{name}: 0 epochs and 0 steps done" in said
