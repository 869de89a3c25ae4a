"""Completion: verbs, options, and the values of the configuration."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fate_gym.lab.cli import main
from fate_gym.lab.cli.completion import joined, matches
from tests.lab.conftest import ROOT, environment


@pytest.mark.parametrize(
    ("words", "whole", "prefix"),
    [
        (["suite", "=", "smoke", "policy", "=", "he"], ["suite=smoke", "policy=he"], "policy="),
        (["policy", "="], ["policy="], "policy="),
        (["policy=he"], ["policy=he"], ""),
        (["-m", "pol"], ["-m", "pol"], ""),
        (["suite", "=", "smoke", ""], ["suite=smoke", ""], ""),
    ],
)
def test_words_that_bash_broke_are_joined(words: list[str], whole: list[str], prefix: str) -> None:
    assert joined(words) == (whole, prefix)


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("poli", ["policy.", "policy="]),
        ("policy=heft_o", ["policy=heft_offline"]),
        ("policy=eft,heft_o", ["policy=eft,heft_offline"]),
        ("policy.params.hor", ["policy.params.horizon="]),
        ("tracking=o", ["tracking=offline", "tracking=online"]),
        ("see", ["seed="]),
        ("nothing", []),
    ],
)
def test_options_are_those_of_the_choices_so_far(word: str, found: list[str]) -> None:
    assert matches(word, ["suite=smoke", "policy=fate"], "config") == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shell == "bash" and shutil.which("bash") is None:
        pytest.skip("needs bash")
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"_FATE_GYM_COMPLETE={shell}_complete" in out


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fate-gym evaluate policy = heft_o", ["heft_offline "]),
        ("fate-gym evalu", ["evaluate "]),
        ("fate-gym report --baseline", ["--baseline-from "]),
        ("fate-gym train age", ["agent="]),
    ],
)
def test_bash_completes(line: str, found: list[str], tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    program = tmp_path / "fate-gym"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fate_gym.lab.cli "$@"\n')
    program.chmod(0o755)
    words = line.split()
    script = f"""
        eval "$({program} completion bash)"
        COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}
        _fate_gym_completion {program}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == found, done.stderr
