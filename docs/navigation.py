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
        "results",
        "reliability",
    ),
}

CATALOGUE = ("policies", "suites", "clusters", "experiments")
GENERATED = ("cli.md", "configuration.md")
"""Pages that `docs/generated.py` makes."""


def on_config(config: Any) -> Any:
    """Write the navigation from the pages that there are."""
    folder = Path(config["docs_dir"])
    pages = {page.stem for page in folder.glob("*.md")} - {"index"}
    named = {name for names in SECTIONS.values() for name in names}
    nav: list[dict[str, Any]] = [{"Home": "index.md"}]
    for section, names in SECTIONS.items():
        found = [name for name in names if name in pages]
        if section == "How-to":
            found += sorted(pages - named)
        if found:
            nav.append({section: [f"{name}.md" for name in found]})
    reference = sorted(page.name for page in (folder / "reference").glob("*.md"))
    nav.append({"Catalogue": [f"catalogue/{name}.md" for name in CATALOGUE]})
    nav.append({"Reference": [f"reference/{name}" for name in (*GENERATED, *reference)]})
    config["nav"] = nav
    return config
