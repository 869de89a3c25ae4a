"""docs/add-a-policy.md, followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from fate_gym.sim.groups import GROUPS, IMPLIED
from tests.test_docs import run_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add-a-policy.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


def test_the_page_adds_a_policy(tmp_path: Path) -> None:
    run_page(ROOT / "docs" / "add-a-policy.md", tmp_path)
    rows = (tmp_path / "runs" / "calm" / "summary.csv").read_text().splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"calm", "eft"}
    # And in Python, without a file.
    code = block("python", 1) + "print(policy.name)\n"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "calm\n"


def test_the_page_lists_the_groups() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    assert list(rows) == list(GROUPS)
    for group, text in rows.items():
        assert text.startswith(GROUPS[group])
        assert ("; implies" in text) == (group in IMPLIED)


def test_the_example_file_is_complete() -> None:
    assert set(yaml.safe_load(block("yaml"))) == {
        "name", "target", "family", "source", "sees", "params"
    }  # fmt: skip
