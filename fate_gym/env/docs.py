"""Generate the environment's documentation from its docstring and `fate_gym.env.features`.

    python -m fate_gym.env.docs

updates docs/environment.md between its markers. A test fails while the page is out of date.
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from fate_gym.env.env import WorkflowSchedulingEnv
from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, NODES, STAGES, Group
from fate_gym.files import write_text
from fate_gym.kernel.docs import renewed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "environment.md"
BEGIN = "<!-- begin: the docstring of WorkflowSchedulingEnv, by python -m fate_gym.env.docs -->"

_SCALINGS = """\
M is ``max_models``. Scalings: a *flag* is 0 or 1; a *share* lies in [0, 1] by itself; *half at c*
is ``x / (x + c)``; *signed, half at c* is ``x / (|x| + c)``."""


def feature_tables() -> str:
    """Return a table for each group: index, feature, meaning, unit, scaling, range."""
    return "\n\n".join(_table(group) for group in (STAGES, DEVICES, CANDIDATES, GLOBALS, NODES))


def _table(group: Group) -> str:
    lines = [
        f"`{group.key}`: {group.rows}.",
        "",
        "| index | feature | meaning | unit | scaling | range |",
        "|---|---|---|---|---|---|",
    ]
    rows = [(str(i), feature) for i, feature in enumerate(group.features)]
    first = len(group.features)
    for i, feature in enumerate(group.per_model):
        offset = f"{first}" if i == 0 else f"{first} + {i if i > 1 else ''}M"
        rows.append((f"{offset} + m", feature._replace(name=f"{feature.name}[m]")))
    for index, feature in rows:
        low, high = f"{feature.low:g}", f"{feature.high:g}"
        cells = (index, f"`{feature.name}`", feature.meaning, feature.unit, feature.scaling)
        lines.append(f"| {' | '.join(cells)} | [{low}, {high}] |")
    return "\n".join(lines)


def generated() -> str:
    """Return the environment's docstring, one heading level deeper, and the features."""
    text = inspect.getdoc(WorkflowSchedulingEnv) or ""
    deeper = re.sub("^##", "###", text, flags=re.MULTILINE)
    return f"{deeper}\n\n### Features\n{_SCALINGS}\n\n{feature_tables()}"


def page(text: str) -> str:
    """Return the page with its generated part brought up to date."""
    return renewed(text, BEGIN, generated())


def main() -> int:
    """Write the page."""
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
