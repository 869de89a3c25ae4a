"""Generate the tables of docs/kernel.md from the schema: ``python -m fate_gym.kernel.docs``.

A test fails while the page is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fate_gym.files import write_text
from fate_gym.jit import Block, Row
from fate_gym.kernel import placements, schema

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kernel.md"
BEGIN = "<!-- begin: the schema, by python -m fate_gym.kernel.docs -->"
END = "<!-- end -->"
SHOWN: tuple[type[Block] | type[Row], ...] = (
    schema.ProblemArrays,
    schema.Stage,
    schema.Edge,
    schema.Device,
    schema.Model,
    schema.PrefixKey,
    schema.Workflow,
    schema.Outage,
    schema.StateArrays,
    schema.DeviceState,
    schema.StageState,
    schema.WorkflowState,
    schema.Slot,
    schema.Fetch,
    schema.Batch,
    schema.Lane,
    schema.Event,
    schema.LogArrays,
    schema.ShardRow,
    schema.EvictionRow,
    placements.Placements,
    placements.Placement,
)


def generated() -> str:
    """Return a table for each block and record type: field, type, shape, unit, meaning."""
    return "\n\n".join(_table(owner) for owner in SHOWN)


def _table(owner: type[Block] | type[Row]) -> str:
    lines = [
        f"### {owner.__name__}",
        "",
        (owner.__doc__ or "").partition("\n")[0],
        "",
        "| field | type | shape | unit | |",
        "|---|---|---|---|---|",
    ]
    named = {row.dtype: row.__name__ for row in SHOWN if issubclass(row, Row)}
    for name, field in owner.fields.items():
        kind = named.get(field.dtype, field.dtype.name)
        lines.append(f"| `{name}` | {kind} | {field.dimensions} | {field.unit} | {field.text} |")
    return "\n".join(lines)


def renewed(text: str, begin: str, part: str) -> str:
    """Return a page with the part between the marker ``begin`` and `END` replaced."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(END)
    return f"{before}{begin}\n\n{part}\n\n{END}{after}"


def page(text: str) -> str:
    """Return the page with its generated part brought up to date."""
    return renewed(text, BEGIN, generated())


def main() -> int:
    """Write the page."""
    write_text(PAGE, page(PAGE.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
