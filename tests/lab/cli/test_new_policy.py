"""``fate-gym new-policy``: what it writes runs at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from tests.lab.conftest import ROOT


def test_a_new_policy_runs_at_once_and_passes_its_test(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-policy", "my_policy"]) == 0
    assert "cd my_policy" in capsys.readouterr().out
    folder = tmp_path / "my_policy"

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    # The console script does not look for modules in the working directory, as `-m` does.
    command = "import sys; sys.path.remove(''); from fate_gym.lab.cli import main; sys.exit(main())"
    options = ("-m", "suite=smoke", "policy=my_policy,heft", "name=my_policy", "tracking=none")
    out = run("-c", command, "evaluate", "--config-dir", "conf", *options)
    assert "smoke/my_policy/s0 on mixed_8" in out
    assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("heft", "there is a policy 'heft' already"),
        ("My-Policy", "'My-Policy' cannot name a module"),
        ("class", "'class' cannot name a module"),
        ("../x", "cannot name a module"),
    ],
)
def test_names(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-policy", name]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text("precious")
    assert main(["new-policy", "mine", "--directory", str(tmp_path)]) == 2
    assert "the file is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == "precious"
    assert not (tmp_path / "conf").exists()
