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

from docs.dead_links import dead_links
from policies import policy_names

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")])
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


def name_of(page: Path) -> str:
    """Return a page's path in the documentation, without its suffix."""
    return page.relative_to(ROOT / "docs").with_suffix("").as_posix()


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, and the directive in the comment before it."""

    language: str
    code: str
    word: str | None
    what: str


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["word"], found["what"] or "")
        for found in BLOCK.finditer(text)
    ]


def smaller(code: str) -> str:
    """Change commands to the smallest suite and one seed."""
    code = re.sub(r"suite=(?!files)[\w]+", "suite=smoke", code)
    code = re.sub(r"experiment=\w+(?!.*suite=)", r"\g<0> suite=smoke", code)
    code = re.sub(r"(runs/\w+)/(?:quick|real_dag\w*)/", r"\1/smoke/", code)
    code = re.sub(r"--problem \d+", "--problem 1", code)
    return re.sub(r"range\(\d+\)", "range(1)", code)


OWN_TEST = ROOT / "docs" / "add-a-policy.md"
"""Runs in tests/policies/test_add_a_policy.py, which looks at what it leaves."""


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page != OWN_TEST], ids=name_of)
def test_code_runs(page: Path, tmp_path: Path) -> None:
    run_page(page, tmp_path)


def run_page(page: Path, folder: Path) -> None:
    """Run the code of a page in an empty folder, and check that nothing fails."""
    bin_folder = folder / ".bin"
    bin_folder.mkdir()
    for name, line in PROGRAMS.items():
        program = bin_folder / name
        program.write_text(f"#!/bin/sh\nexec {line.format(python=sys.executable)}\n")
        program.chmod(0o755)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(bin_folder)
    for name in ("scripts", "docs"):
        (folder / name).symlink_to(ROOT / name)
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
    }

    def run(command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"

    found = [block for block in blocks(page) if block.word != "not run"]
    for block in found:
        if block.word == "file":
            (folder / block.what).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.what).write_text(block.code, encoding="utf-8")
    for block in found:
        if block.language == "bash":
            run(["bash", "-euo", "pipefail", "-c", smaller(block.code)])
    program_text = "\n".join(b.code for b in found if b.language == "python" and b.word is None)
    if program_text:
        run([sys.executable, "-W", "error", "-c", program_text])


def test_pages_call_the_command_and_not_its_scripts() -> None:
    scripts = "evaluate|train|report|session_figure|fit_cost_model|wandb_report"
    for page in (ROOT / "README.md", *PAGES):
        assert not re.search(rf"scripts/({scripts})\.py", page.read_text(encoding="utf-8")), page


def test_leaving_code_out_is_rare_and_has_a_reason() -> None:
    left_out = [block for page in PAGES for block in blocks(page) if block.word == "not run"]
    assert all(len(block.what) > 10 for block in left_out)
    # The commands behind published results take long by nature; their experiments are composed in
    # tests of the lab.
    pages = [page for page in PAGES if page.parent.name != "results"]
    code = [block for page in pages for block in blocks(page) if block.language in LANGUAGES]
    assert sum(block.word == "not run" for block in code) <= len(code) // 3


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the documentation site as `make docs` does."""
    site = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return site


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site: Path) -> None:
    for page in PAGES:
        assert (site / f"{name_of(page)}.html").exists()
    reference = (site / "reference" / "problem.html").read_text(encoding="utf-8")
    assert "prefix_tokens" in reference
    # Nothing is loaded from elsewhere.
    for page in site.rglob("*.html"):
        assert not re.search(r'<(?:script|img|link)[^>]*(?:src|href)="https?:', page.read_text())


@pytest.mark.slow
def test_generated_pages_hold_every_policy_suite_verb_and_key(site: Path) -> None:
    policies = (site / "catalogue" / "policies.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in policies for name in policy_names())
    for group in ("suite", "cluster", "experiment"):
        page = (site / "catalogue" / f"{group}s.html").read_text(encoding="utf-8")
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f'id="{path.stem}"' in page
    verbs = (site / "reference" / "cli.html").read_text(encoding="utf-8")
    assert all(f"fate-gym {verb}" in verbs for verb in ("report", "describe", "import", "plan"))
    keys = (site / "reference" / "configuration.html").read_text(encoding="utf-8")
    fields = ("charge_planning_time", "tracking.mode", "report.axis", "load_gb_s", "per_family")
    assert all(f"<code>{field}</code>" in keys for field in fields)
    wrappers = (site / "reference" / "wrappers.html").read_text(encoding="utf-8")
    assert "FlatObservation" in wrappers and "PolicyAdapter" in wrappers


@pytest.mark.slow
def test_search_works_from_disk(site: Path) -> None:
    chromium = Path("/usr/bin/chromium")
    if not chromium.exists():
        assert not os.environ.get("CI"), "CI installs chromium: make browser"
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.locator("input.md-search__input").fill("critical path")
        page.wait_for_selector("a.md-search-result__link[href*='reports.html']")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_dead_links_and_pictures_are_found(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "index.html").write_text(
        '<h1 id="top">x</h1><a href="deep/page.html#here">1</a><a href="#top">2</a>'
        '<a href="https://elsewhere.example/x">3</a><a href="mailto:a@b.example">4</a>'
    )
    page = tmp_path / "deep" / "page.html"
    page.write_text('<p id="here"><a href="../index.html">1</a><img src="../a%20b.png"></p>')
    assert list(dead_links(tmp_path)) == ["deep/page.html: ../a%20b.png"]
    (tmp_path / "a b.png").write_bytes(b"")
    assert list(dead_links(tmp_path)) == []
    page.write_text("<p>")
    assert list(dead_links(tmp_path)) == ["index.html: deep/page.html#here"]
    page.unlink()
    (tmp_path / "index.html").write_text('<a href="example.json">x</a>')
    assert list(dead_links(tmp_path)) == ["index.html: example.json"]
