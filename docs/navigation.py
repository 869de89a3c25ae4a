"""A hook of mkdocs: puts pages into sections; a page that no section names is a how-to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SECTIONS = {
    "Tutorial": ("tutorial", "environment", "libraries"),
    "How-to": ("sweeps", "wandb", "reports", "add-a-policy"),
    "Explanation": (
        "execution-model",
        "kernel",
        "cost-model",
        "workloads",
        "fate",
        "learned",
        "reliability",
    ),
    "Results": (
        "results",
        "results/headline",
        "results/alike",
        "results/regimes",
        "results/headroom",
        "results/suites",
        "results/streams",
        "results/batching",
        "results/agents",
        "results/uncertainty",
        "results/charged",
        "results/ablations",
        "results/shapes",
        "results/sensitivity",
        "results/quick",
    ),
}

CATALOGUE = ("policies", "suites", "clusters", "experiments")
TITLES = {"results": "Overview"}
"""Pages that are called something else in the navigation than in their own head."""
GENERATED = ("cli.md", "configuration.md")
"""Pages that `docs/generated.py` makes."""


def on_config(config: Any) -> Any:
    """Write the navigation from the pages that there are."""
    folder = Path(config["docs_dir"])
    found = (*folder.glob("*.md"), *folder.glob("results/*.md"))
    pages = {page.relative_to(folder).with_suffix("").as_posix() for page in found} - {"index"}
    named = {name for names in SECTIONS.values() for name in names}
    nav: list[dict[str, Any]] = [{"Home": "index.md"}]
    for section, names in SECTIONS.items():
        shown = [name for name in names if name in pages]
        if section == "How-to":
            shown += sorted(pages - named)
        if shown:
            nav.append({section: [_entry(name) for name in shown]})
    reference = sorted(page.name for page in (folder / "reference").glob("*.md"))
    nav.append({"Catalogue": [f"catalogue/{name}.md" for name in CATALOGUE]})
    nav.append({"Reference": [f"reference/{name}" for name in (*GENERATED, *reference)]})
    config["nav"] = nav
    return config


def _entry(name: str) -> str | dict[str, str]:
    page = f"{name}.md"
    return {TITLES[name]: page} if name in TITLES else page
