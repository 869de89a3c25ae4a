"""Makes docs/tutorial.ipynb of docs/tutorial.md: cells of text and Python, shell as ``!`` lines."""

import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"```(bash|python)\n(.*?)```\n", flags=re.DOTALL)


def notebook(page: str) -> str:
    """Convert a page to a notebook, as JSON."""
    cells: list[dict[str, Any]] = []
    last = 0
    for found in BLOCK.finditer(page):
        _add(cells, "markdown", page[last : found.start()])
        code = found[2]
        if found[1] == "bash":
            code = "".join(f"!{line}\n" for line in code.splitlines())
        _add(cells, "code", code)
        last = found.end()
    _add(cells, "markdown", page[last:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells,
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _add(cells: list[dict[str, Any]], kind: str, text: str) -> None:
    text = re.sub(r"<!-- not run: .*? -->\n", "", text).strip("\n")
    if not text:
        return
    cell: dict[str, Any] = {
        "cell_type": kind,
        "id": f"cell-{len(cells)}",
        "metadata": {},
        "source": text.splitlines(keepends=True),
    }
    cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))


def main() -> int:
    """Write the notebook; return the exit code."""
    page = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    (DOCS / "tutorial.ipynb").write_text(notebook(page), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
