"""docs/add-a-policy.md says what is true; tests/test_docs.py runs its code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from fate_gym.sim.groups import GROUPS, IMPLIED

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "add-a-policy.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[number]


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
