"""Every command and every piece of code in the README works."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(command: list[str], folder: Path) -> str:
    """Run a command of the README; its results go to ``folder``."""
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commands() -> list[str]:
    """The command lines that run Python; the `make` targets run in CI."""
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    targets = {"make compare", "make test", "make train-demo"}
    assert {line for line in lines if line.startswith("make ")} == targets
    return [line for line in lines if not line.startswith("make ")]


def adapted(line: str, folder: Path) -> list[str]:
    """The command with this interpreter, a small suite, and its results below ``folder``."""
    smaller = re.sub(
        r"suite=(?!files)\w+", "suite=smoke", re.sub(r"range\(\d+\)", "range(1)", line)
    )
    words = shlex.split(smaller)
    program, *rest = words
    if program == ".venv/bin/fate-gym":
        return [sys.executable, "-m", "fate_gym.lab.cli", *rest]
    assert program == ".venv/bin/python"
    if "scripts/evaluate.py" in rest:
        rest.append(f"paths.runs={folder}")
    if "scripts/train.py" in rest:
        rest += [f"paths.runs={folder}", "agent.learning.steps=512", "agent.learning.lanes=4"]
    rest = [
        word.replace("runs/", f"{folder}/") if word.startswith("runs/") else word for word in rest
    ]
    return [sys.executable, *rest]


def test_commands(tmp_path: Path) -> None:
    lines = commands()
    assert len(lines) >= 6
    trained = importlib.util.find_spec("sb3_contrib") is not None
    for line in lines:
        if trained or "scripts/train.py" not in line:
            run(adapted(line, tmp_path), tmp_path)
    assert (tmp_path / "mine" / "report.md").exists()
    assert list(tmp_path.rglob("trace.json"))


def test_makefile_runs_the_documented_comparison() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "suite=quick name=quick" in makefile
    assert "eleven policies" in README
    experiment = (ROOT / "conf" / "experiment" / "main.yaml").read_text(encoding="utf-8")
    assert len(experiment.split(">-")[1].split(",")) == 11


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code: str, tmp_path: Path) -> None:
    run([sys.executable, "-c", code], tmp_path)


def test_the_policy_of_the_readme_runs(tmp_path: Path) -> None:
    (code,) = [block for block in blocks("python") if "class EarliestFinish" in block]
    (config,) = blocks("yaml")
    (tmp_path / "earliest_finish.py").write_text(code, encoding="utf-8")
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "earliest_finish.yaml").write_text(
        config.replace("policies.earliest_finish", "earliest_finish"), encoding="utf-8"
    )
    command = [sys.executable, "scripts/evaluate.py", "--config-dir", str(tmp_path)]
    options = ["suite=smoke", "policy=earliest_finish", "tracking=none"]
    output = run([*command, *options, f"paths.runs={tmp_path}"], tmp_path)
    assert "earliest_finish" in output


def test_the_error_message_is_the_real_one(tmp_path: Path) -> None:
    example = (ROOT / "docs" / "examples" / "agent.json").read_text(encoding="utf-8")
    (tmp_path / "my.json").write_text(
        example.replace("Llama-3.1-8B", "Llama-3.1-8b", 1), encoding="utf-8"
    )
    done = subprocess.run(
        [sys.executable, "-m", "fate_gym.lab.cli", "validate", "my.json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    (shown,) = blocks("text")
    assert done.returncode == 2
    assert done.stderr.strip() == shown.strip()


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    local = [target for target in targets if not target.startswith("http")]
    assert local
    for target in local:
        assert (ROOT / target).exists(), target
