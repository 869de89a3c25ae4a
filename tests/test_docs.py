"""The documentation: every piece of code on every page runs, and the site builds without a warning.

A page's blocks run in order in a directory of their own: shell blocks first, then its Python blocks
as one program. Suites and seeds are made small. A comment right before a block can say otherwise:
``<!-- file: PATH -->`` saves it to a file, ``<!-- not run: REASON -->`` leaves it out.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(
    r"(?:<!-- (?P<word>file|not run): (?P<what>[^>]+?) -->\n+)?"
    r"^```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
LANGUAGES = ("bash", "python")
PROGRAMS = {
    "python": '"{python}" "$@"',
    "fate-gym": '"{python}" -m fate_gym.lab.cli "$@"',
    "wandb": '"{python}" -m wandb "$@"',
}


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, and what the comment before it says."""

    language: str
    code: str
    word: str | None
    what: str


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["word"], found["what"] or "")
        for found in BLOCK.finditer(text)
    ]


def smaller(code: str) -> str:
    """The same commands on the smallest suite, with one seed."""
    code = re.sub(r"suite=(?!files)[\w]+", "suite=smoke", code)
    code = re.sub(r"experiment=\w+(?!.*suite=)", r"\g<0> suite=smoke", code)
    code = re.sub(r"(runs/\w+)/(?:quick|real_dag\w*)/", r"\1/smoke/", code)
    return re.sub(r"range\(\d+\)", "range(1)", code)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    bin_folder = tmp_path / ".bin"
    bin_folder.mkdir()
    for name, line in PROGRAMS.items():
        program = bin_folder / name
        program.write_text(f"#!/bin/sh\nexec {line.format(python=sys.executable)}\n")
        program.chmod(0o755)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(bin_folder)
    for name in ("scripts", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
    }

    def run(command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"

    found = [block for block in blocks(page) if block.word != "not run"]
    for block in found:
        if block.word == "file":
            (tmp_path / block.what).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.what).write_text(block.code, encoding="utf-8")
    for block in found:
        if block.language == "bash":
            run(["bash", "-euo", "pipefail", "-c", smaller(block.code)])
    program_text = "\n".join(b.code for b in found if b.language == "python" and b.word is None)
    if program_text:
        run([sys.executable, "-W", "error", "-c", program_text])


def test_leaving_code_out_is_rare_and_has_a_reason() -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.word == "not run"]
    assert all(len(block.what) > 10 for block in left_out)
    # The commands behind published results take long by nature; their experiments are composed in
    # tests of the lab.
    pages = [page for page in PAGES if page.stem != "results"]
    code = [block for page in pages for block in blocks(page) if block.language in LANGUAGES]
    assert sum(block.word == "not run" for block in code) <= len(code) // 3


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES:
        assert (tmp_path / "site" / f"{page.stem}.html").exists()
    reference = (tmp_path / "site" / "reference" / "problem.html").read_text(encoding="utf-8")
    assert "prefix_tokens" in reference
    assert "https://fonts" not in reference
