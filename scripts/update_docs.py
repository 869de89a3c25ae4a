"""Updates tables and figures of finished runs in the README and docs: ``make readme``.

A table between ``<!-- begin runs/NAME: HEADING -->`` and ``<!-- end runs/NAME: HEADING -->``
(without a heading: the first table) is regenerated from ``runs/NAME/report.md``; tables without a
run on this machine stay as they are. `FIGURES` lists the figures copied to docs/images. The
overview in docs/results.md (``<!-- begin overview -->``) is computed from tables of other pages.
"""

import re
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

from fate_gym.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
CELL = re.compile(r"(?<!\\)\|")
SECTION = re.compile(
    r"<!-- begin (runs/[\w/]+)(: [^\n]+)? -->\n.*?<!-- end \1(?:: [^\n]+)? -->", flags=re.DOTALL
)
EXCERPTS = {
    ("README.md", "runs/quick"): (
        ("fate", "heft", "eft", "least_loaded", "round_robin"),
        ("policy", "latency / RoundRobin", "gap", "wins", "vs strongest"),
    )
}
"""Rows, and columns by the beginning of their heading, to which a page restricts a run's table."""
RESULTS = "docs/results.md"
OVERVIEW = (
    ("docs/results/suites.md", "runs/field: By suite"),
    ("docs/results/agents.md", "runs/real_agents: By suite"),
    ("docs/results/uncertainty.md", "runs/uncertain: By suite"),
)
"""Pages, and their tables, that the overview summarises; of a suite in several, the last one."""
OURS = ("fate", "fate_rollout")
CHROMIUM = Path("/usr/bin/chromium")
FIGURES = {
    "runs/quick": {"forest.png": "forest.png", "gantt.png": "gantt.png"},
    "runs/headline": {"ecdf.png": "headline_ecdf.png", "intensity.png": "headline_intensity.png"},
    "runs/headline_alike": {
        "ecdf.png": "headline_alike_ecdf.png",
        "intensity.png": "headline_alike_intensity.png",
    },
    "runs/regimes": {"map.png": "regimes.png"},
    "runs/requests": {"map.png": "requests.png"},
    "runs/regimes_ablation": {"map.png": "regimes_ablation.png"},
    "runs/occupancy": {"occupancy.png": "occupancy.png"},
    "runs/sessions": {"session.png": "session.png"},
    "runs/streams": {"ecdf.png": "streams_ecdf.png"},
    "runs/sensitivity": {"axis.png": "sensitivity_devices.png"},
    "runs/sensitivity_depth": {"axis.png": "sensitivity_depth.png"},
    "runs/sensitivity_window": {"axis.png": "sensitivity_window.png"},
    "runs/sensitivity_max_shards": {"axis.png": "sensitivity_max_shards.png"},
    "runs/sensitivity_steps": {"axis.png": "sensitivity_steps.png"},
    "runs/sensitivity_memory": {"axis.png": "sensitivity_memory.png"},
    "runs/sensitivity_samples": {"axis.png": "sensitivity_samples.png"},
    "runs/learned": {"profile.png": "learned_profile.png"},
    "runs/learned_clusters": {"axis.png": "learned_clusters.png"},
    "runs/curves": {"curves.png": "learning_curves.png"},
}


def table(report: str, heading: str | None) -> str:
    """Extract a table of a report, with the machines and commits on which it was made.

    Raises:
        InputError: the report has no such heading.
    """
    lines = report.splitlines()
    start = 0
    if heading is not None:
        if f"## {heading}" not in lines:
            known = ", ".join(line[3:] for line in lines if line.startswith("## "))
            raise InputError(f"no heading {heading!r} in the report", remedy=f"one of {known}")
        start = lines.index(f"## {heading}")
    first = next(i for i in range(start, len(lines)) if lines[i].startswith("|"))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    made_with = [
        line.removeprefix("- ") for line in lines if line.startswith(("- machine:", "- commit:"))
    ]
    return "\n".join([*lines[first:last], "", f"Made on {'; '.join(made_with)}."])


def excerpt(text: str, rows: Collection[str], columns: Sequence[str]) -> str:
    """Restrict the table at the beginning of a text to some rows and columns.

    Raises:
        InputError: the table has no such row or column.
    """
    lines, rest = text.split("\n\n", 1)
    head, ruler, *body = cells(lines)
    missing = {*rows} - {row[0] for row in body}
    kept = [i for i, name in enumerate(head) if name.startswith(tuple(columns))]
    if missing or len(kept) < len(columns):
        raise InputError(
            f"the table has not the rows {sorted(rows)} and columns {list(columns)}",
            remedy="correct EXCERPTS, or run the whole experiment",
        )
    shown = [head, ruler, *(row for row in body if row[0] in rows)]
    table = ("| " + " | ".join(row[i] for i in kept) + " |" for row in shown)
    return "\n".join([*table, "", rest])


def cells(table: str) -> list[list[str]]:
    """Split a Markdown table into rows of cells: head, ruler and body."""
    return [[cell.strip() for cell in CELL.split(line)[1:-1]] for line in table.splitlines()]


def overview() -> str:
    """Make the overview: FATE against the strongest baseline of each suite, from other pages."""
    head = ("suite", "strongest baseline", *OURS)
    rows: dict[str, tuple[str, ...]] = {}
    for page, name in OVERVIEW:
        text = (ROOT / page).read_text(encoding="utf-8")
        link = Path(page).relative_to("docs").as_posix()
        shown = text.split(f"<!-- begin {name} -->\n")[1].split("\n\n")[0]
        rows |= {suite: (f"[{suite}]({link})", *row) for suite, *row in leads(shown)}
    rule = ("---", *("--:" for _ in head[1:]))
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows.values()))


def leads(table: str) -> Iterator[tuple[str, ...]]:
    """Yield for each suite in a table: name, strongest baseline (in bold there), FATE's leads."""
    head, _, *body = cells(table)
    for i, suite in enumerate(head[1:], start=1):
        means = {row[0]: float(row[i].strip("*").split()[0]) for row in body}
        (strongest,) = (row[0] for row in body if row[i].startswith("**"))
        best = means[strongest]
        ours = (f"{means[name]:.3f} ({100 * (1 - means[name] / best):+.0f} %)" for name in OURS)
        yield suite, f"{best:.3f} ({strongest})", *ours


def pages() -> list[str]:
    """List the README and the pages of docs, relative to the root of the project."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return ["README.md", *(page.relative_to(ROOT).as_posix() for page in found)]


def with_overview(text: str) -> str:
    """Update the overview in a page, if the page has one."""
    return re.sub(
        r"(<!-- begin overview -->\n).*?(<!-- end overview -->)",
        lambda found: f"{found[1]}{overview()}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )


def renewed(section: re.Match[str], page: str = "") -> str:
    """Return a section with the table of its run, or unchanged if there is no run."""
    run, heading = section[1], section[2] or ""
    report = ROOT / run / "report.md"
    if not report.exists():
        return section[0]
    text = table(report.read_text(encoding="utf-8"), heading.removeprefix(": ") or None)
    if (page, run) in EXCERPTS:
        text = excerpt(text, *EXCERPTS[page, run])
    return f"<!-- begin {run}{heading} -->\n{text}\n<!-- end {run}{heading} -->"


def copy_figures() -> None:
    """Copy the figures of the runs on this machine."""
    for run, names in FIGURES.items():
        for source, target in names.items():
            if (ROOT / run / source).exists():
                shutil.copy(ROOT / run / source, ROOT / "docs" / "images" / target)


def pictures(page: Path, images: Path) -> None:
    """Take screenshots of an HTML report, if a browser is installed.

    One shows its upper part, the other its schedules with the first longer stage selected.
    """
    if not CHROMIUM.exists():
        print(f"pictures of reports stay as they are: need {CHROMIUM}", file=sys.stderr)
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        tab = browser.new_page(viewport={"width": 1280, "height": 1140})
        tab.goto(page.resolve().as_uri())
        tab.screenshot(path=images / "report.png")
        tab.set_viewport_size({"width": 1280, "height": 2400})  # nothing sticks to its upper edge
        viewer = tab.locator("#fig-gantt")
        viewer.locator("g.shard rect.hull").evaluate_all(
            "all => all.find(one => one.getBBox().width > 40 && one.getBBox().x > 150)"
            "?.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
        )
        viewer.screenshot(path=images / "viewer.png")
        browser.close()


def main() -> int:
    """Update every table and figure; return the exit code."""
    if not (ROOT / "runs").exists():
        error = InputError("no runs", source=ROOT / "runs", remedy="run `make compare` first")
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name in pages():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        path.write_text(SECTION.sub(partial(renewed, page=name), text), encoding="utf-8")
    page = ROOT / RESULTS
    page.write_text(with_overview(page.read_text(encoding="utf-8")), encoding="utf-8")
    copy_figures()
    page = ROOT / "runs" / "quick" / "report.html"
    if page.exists():
        pictures(page, ROOT / "docs" / "images")
    return 0


if __name__ == "__main__":
    sys.exit(main())
