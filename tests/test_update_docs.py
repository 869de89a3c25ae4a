"""Tables of finished runs are copied into README and documentation."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fate_gym.errors import InputError

ROOT = Path(__file__).resolve().parent.parent

REPORT = """# Title

## All suites

| policy | n |
|---|--:|
| heft | 4 |

## By suite

| policy | smoke |
|---|--:|
| heft | 0.5 |

## Made with

- machine: a machine
- commit: abc
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """Load the script, pointed at a project in a temporary directory."""
    path = ROOT / "scripts" / "update_docs.py"
    spec = importlib.util.spec_from_file_location("update_docs", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "update_docs", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "report.md").write_text(REPORT)
    (tmp_path / "docs" / "images").mkdir(parents=True)
    (tmp_path / "docs" / "results").mkdir()
    for page in ("README.md", "docs/results.md", "docs/learned.md"):
        (tmp_path / page).write_text("nothing\n")
    return module


def section(run: str, text: str) -> str:
    return f"<!-- begin {run} -->\n{text}<!-- end {run} -->\n"


def test_tables_are_renewed_and_others_stay(script: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "docs" / "results" / "streams.md"
    page.write_text(
        "before\n"
        + section("runs/mine", "old\n")
        + section("runs/mine: By suite", "")
        + section("runs/gone", "kept\n")
        + "after\n"
    )
    assert script.main() == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    first, second, third = text.split("<!-- end ")[:3]
    assert "| heft | 4 |" in first and "old" not in first
    assert "| heft | 0.5 |" in second and "| heft | 4 |" not in second
    assert "Made on machine: a machine; commit: abc." in second
    assert "kept" in third
    assert script.main() == 0
    assert page.read_text() == text, "a second run changes nothing"


def test_an_unknown_heading_is_refused(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(section("runs/mine: By hand", ""))
    with pytest.raises(InputError, match=r"no heading 'By hand'.*All suites, By suite"):
        script.main()


def test_a_page_may_show_a_part_of_a_table(script: ModuleType) -> None:
    text = (
        "| policy | n | latency [CI] |\n|---|--:|--:|\n| a | 1 | 2 |\n| b | 3 | x\\|4 |\n\nMade on."
    )
    shown = script.excerpt(text, ("b",), ("policy", "latency"))
    assert shown == "| policy | latency [CI] |\n| --- | --: |\n| b | x\\|4 |\n\nMade on."
    for rows, columns in ((("c",), ("policy",)), (("a",), ("speed",))):
        with pytest.raises(InputError, match="the table has not the rows"):
            script.excerpt(text, rows, columns)


def test_the_overview_names_the_strongest_baseline_and_what_fate_gains(
    script: ModuleType, tmp_path: Path
) -> None:
    table = (
        "| policy | smoke | tiny |\n|---|--:|--:|\n"
        "| fate_rollout | 0.4 [0.3, 0.5] | 1.1 |\n| heft | **0.5 [0.4, 0.6]** | 1.2 |\n"
        "| fate | 0.45 [0.4, 0.5] | 1.3 |\n| eft | 0.9 [0.8, 1.0] | **1.0** |\n\nMade on.\n"
    )
    later = (
        "| policy | tiny |\n|---|--:|\n| fate_rollout | 0.9 |\n| fate | 0.8 |\n| eft | **1.0** |\n"
    )
    *first, last = script.OVERVIEW
    for page, name in first:
        (tmp_path / page).write_text(section(name, table))
    (tmp_path / last[0]).write_text(section(last[1], f"{later}\nMade on.\n"))
    page = tmp_path / "docs" / "results.md"
    page.write_text(f"before\n{section('overview', '')}after\n")
    assert script.main() == 0
    before, *rows, after = page.read_text().splitlines()
    assert (before, after) == ("before", "after")
    assert rows[3:5] == [
        "| [smoke](results/agents.md) | 0.500 (heft) | 0.450 (+10 %) | 0.400 (+20 %) |",
        # The last page with a suite counts.
        "| [tiny](results/uncertainty.md) | 1.000 (eft) | 0.800 (+20 %) | 0.900 (+10 %) |",
    ]


def test_the_overview_follows_from_the_pages(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", ROOT)
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert text == script.with_overview(text), "run `make readme`"


def test_every_figure_that_pages_show_is_there() -> None:
    pages = ["README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")]
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for line in text.splitlines():
            if line.startswith("!["):
                target = line.split("](")[1].rstrip(")")
                assert ((ROOT / page).parent / target).exists(), (page, target)
