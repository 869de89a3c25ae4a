"""The notebook of the tutorial equals its page, whose code `tests/test_docs.py` runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_the_notebook_is_the_page() -> None:
    notebook = runpy.run_path(str(ROOT / "scripts" / "tutorial_notebook.py"))["notebook"]
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    kept = (ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8")
    assert kept == notebook(page), "run scripts/tutorial_notebook.py"
    cells = json.loads(kept)["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    shell = [source for source in code if source.startswith("!")]
    program = "\n".join(source for source in code if source not in shell)
    compile(program, "tutorial.ipynb", "exec")
    assert shell and all(line.startswith("!") for one in shell for line in one.splitlines())
    for line in program.splitlines():
        assert line in page
