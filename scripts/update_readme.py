"""Puts the table and the figures of ``runs/quick`` into the README: ``make readme``."""

import shutil
import sys
from pathlib import Path

from fate_gym.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- compare: from `make compare`; renewed by `make readme` -->"
END = "<!-- end of compare -->"
FIGURES = ("forest.png", "gantt.png")


def main() -> int:
    """Copy the first table of the report and its figures; returns the exit code."""
    run = ROOT / "runs" / "quick"
    try:
        lines = (run / "report.md").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        error = InputError("no report", source=run, remedy="run `make compare` first")
        print(f"error: {error}", file=sys.stderr)
        return 2
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    last = next(i for i in range(first, len(lines)) if not lines[i].startswith("|"))
    note = next(line for line in lines[last:] if line.startswith("Norm. makespan:"))
    made_with = [line for line in lines if line.startswith(("- machine:", "- commit:"))]
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    table = "\n".join([*lines[first:last], "", note, "", "Made by `make compare`:", *made_with])
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    for name in FIGURES:
        shutil.copy(run / name, ROOT / "docs" / "images" / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
