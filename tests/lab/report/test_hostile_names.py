"""Names from untrusted sources are shown as they are: never executed, never used as paths."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from fate_gym.lab.cli import main
from fate_gym.lab.jobs.directory import RESULT
from fate_gym.lab.jobs.result import wandb_id
from fate_gym.lab.report.compute import Report, compute_report
from fate_gym.lab.report.markdown import markdown
from fate_gym.lab.report.origin import one_line
from fate_gym.lab.report.summary_table import latex_summary
from fate_gym.lab.sweep.command import SWEEP
from tests.lab.conftest import Run, edit_result

BAD = "\\input{x} & 50 % #1 ~^_{} | <b>\x1b[2J\u202e\n```\n[a](javascript:b) [b][c] $x$"
COMMAND = ["suite=smoke", "+a='x\n```\n\\input{/etc/passwd}\n'"]


@pytest.fixture
def hostile(sweep: Run, tmp_path: Path) -> Path:
    """Make a sweep with a malicious policy parameter and a malicious word in its command."""
    root = Path(shutil.copytree(sweep.root, tmp_path / "grid"))
    for number, path in enumerate(sorted(root.glob(f"smoke/*/*/{RESULT}"))):
        edit_result(path, params={"a": f"{BAD}{number % 2}"})
    (root / SWEEP).write_text(yaml.safe_dump({"commands": [COMMAND], "report": {"title": BAD}}))
    return root


@pytest.fixture
def report(hostile: Path) -> Report:
    return compute_report(hostile)


def test_latex_is_text(report: Report) -> None:
    text = latex_summary(report)
    assert text.isascii() or "\u202e" not in text
    assert r"\textbackslash{}input\{x\} \& 50\,\% \#1 \textasciitilde{}\textasciicircum{}" in text
    for line in text.splitlines():
        if not line.startswith("%"):
            assert "\\input" not in line
            assert line.replace(r"\$", "").count("$") in (0, 4), "no formula but in the heads"
    assert text.splitlines()[0] == "% made by:"
    assert all(line.startswith(("%", "\\", "policy", "heft", "eft", "round")) or not line
               for line in text.splitlines())  # fmt: skip


def test_markdown_keeps_its_fence_and_its_tables(report: Report) -> None:
    text = markdown(report, ())
    assert text.count("\n```\n") == 2
    # Between backticks nothing is read as HTML or a link.
    outside = re.sub(r"`[^`\n]+`", "", "".join(text.split("```")[::2]))
    assert "<b>" not in outside
    assert "](javascript" not in outside
    assert "\x1b" not in text
    table = text.split("## smoke")[1].split("\n\n")[1].splitlines()
    assert len({line.replace(r"\|", "").count("|") for line in table}) == 1


def test_terminals_show_and_do_not_obey(
    hostile: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["compare", str(hostile), str(hostile)]) == 0
    out = capsys.readouterr().out
    assert "\\x1b[2J\\u202e" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_a_command_is_one_line_that_a_shell_reads_as_it_was() -> None:
    line = one_line(["printf", "%s\\0", *COMMAND, "it's", "\u202e"])
    assert line.isprintable()
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == [*COMMAND, "it's", "\u202e"]
    assert one_line(["a", "b c"]) == shlex.join(["a", "b c"])


def test_sweeps_with_like_names_have_ids_of_their_own() -> None:
    names = ["a.b", "a-b", "a+b", "a" * 200, "b" + "a" * 199]
    ids = {wandb_id(name, "smoke-heft-s0-00000000") for name in names}
    assert len(ids) == len(names)
    assert all(len(one) <= 128 for one in ids)
    # Of a plain name it is what it was.
    assert wandb_id("grid", "smoke-heft-s0-12345678") == "grid-smoke-heft-s0-12345678"
