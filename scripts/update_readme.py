"""Puts tables and figures of finished runs into the README: ``make readme``.

A table stands between ``<!-- begin runs/NAME -->`` and ``<!-- end runs/NAME -->`` and is renewed
from ``runs/NAME/report.md``; tables without a run on this machine stay as they are.
"""

import re
import shutil
import sys
from pathlib import Path

from fate_gym.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"<!-- begin (runs/\w+) -->\n.*?<!-- end \1 -->", flags=re.DOTALL)
CHROMIUM = Path("/usr/bin/chromium")
FIGURES = {"runs/quick": ("forest.png", "gantt.png")}


def table(report: str) -> str:
    """The first table of a report with its note and what it was made with."""
    lines = report.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    made_with = [
        line.removeprefix("- ") for line in lines if line.startswith(("- machine:", "- commit:"))
    ]
    return "\n".join([*lines[first:last], "", f"Made on {'; '.join(made_with)}."])


def renewed(section: re.Match[str]) -> str:
    """The section with the table of its run, or as it was."""
    run = section[1]
    report = ROOT / run / "report.md"
    if not report.exists():
        return section[0]
    for name in FIGURES.get(run, ()):
        shutil.copy(ROOT / run / name, ROOT / "docs" / "images" / name)
    text = table(report.read_text(encoding="utf-8"))
    return f"<!-- begin {run} -->\n{text}\n<!-- end {run} -->"


def picture(page: Path, target: Path) -> None:
    """A picture of the upper part of an HTML report, where there is a browser to take it."""
    if not CHROMIUM.exists():
        print(f"{target.name} stays as it is: needs {CHROMIUM}", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        tab = browser.new_page(viewport={"width": 1280, "height": 1140})
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=target)
        browser.close()


def main() -> int:
    """Renew every table of the README; returns the exit code."""
    if not (ROOT / "runs").exists():
        error = InputError("no runs", source=ROOT / "runs", remedy="run `make compare` first")
        print(f"error: {error}", file=sys.stderr)
        return 2
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(SECTION.sub(renewed, text), encoding="utf-8")
    page = ROOT / "runs" / "quick" / "report.html"
    if page.exists():
        picture(page, ROOT / "docs" / "images" / "report.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
