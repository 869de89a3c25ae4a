"""Errors of the fit, as a table and for docs/cost-model.md."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fate_gym.files import write_text
from fate_gym.lab.cost_fit.constants import CATALOGUE
from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.tables import markdown_table

PAGE = CATALOGUE.parents[1] / "docs" / "cost-model.md"
_GOAL = 0.15
_PHASES = ("ttft", "tpot", "request")
_HEADS = (
    "what", "phase", "GPU", "model", "bits", "rows", "median error", "90th percentile", "bias"
)  # fmt: skip


def error_table(rows: Frame) -> Frame:
    """Median and 90th percentile of |relative error|, and its median, by pair and phase."""
    error = rows.predicted_s / rows.measured_s - 1.0
    keys = ["level", "phase", "split", "gpu", "model", "precision", "engine"]
    groups = error.groupby([rows[key] for key in keys])
    table = pd.DataFrame(
        {
            "rows": groups.size(),
            "median_abs_error": groups.apply(lambda e: e.abs().median()),
            "p90_abs_error": groups.apply(lambda e: e.abs().quantile(0.9)),
            "median_error": groups.median(),
        }
    )
    return table.reset_index().round(4)


def error_markdown(errors: Frame) -> str:
    """Format the held-out rows for docs/cost-model.md; medians over 15 % are in bold."""
    held_out = (errors.split == "test") & (errors.phase != "linear")
    shown = errors[(errors.split == "unseen") | held_out]
    shown = shown.sort_values(["level", "phase", "gpu"], ascending=[False, False, True])
    rows = []
    for row in shown.itertuples():
        median = f"{row.median_abs_error:.1%}"
        rows.append(
            (
                f"{row.level}, start values" if row.split == "unseen" else row.level,
                row.phase,
                row.gpu,
                f"{row.model}, {row.engine}" if row.engine else row.model,
                "8" if row.precision == "fp8" else "16",
                str(row.rows),
                f"**{median}**" if row.median_abs_error > _GOAL else median,
                f"{row.p90_abs_error:.1%}",
                f"{row.median_error:+.1%}",
            )
        )
    return "\n".join(markdown_table(_HEADS, rows, left=len(_HEADS)))


def engine_table(rows: Frame) -> Frame:
    """Make one row per run of a measured engine, with all times, measured and computed, seconds."""
    runs = rows[rows.level.str.startswith("engine")]
    keys = ["gpu", "model", "engine", "precision", "size", "prompt", "output", "level"]
    values = runs.rename(columns={"measured_s": "measured", "predicted_s": "computed"})
    table = values.pivot(index=keys, columns="phase", values=["measured", "computed"])
    order = [(what, phase) for phase in _PHASES for what in ("measured", "computed")]
    table = table[order].map(_digits)
    table.columns = [f"{phase}_{what}_s" for what, phase in order]
    table = table.reset_index().rename(columns={"size": "clients"})
    full = (table.pop("level") != "engine").astype(int)
    table.insert(table.columns.get_loc("output") + 1, "kv_full", full)
    return table


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


def write_errors(errors: Frame, rows: Frame, folder: Path) -> None:
    """Write ``cost_errors.csv``, and ``cost_engines.csv`` with every run of an engine."""
    errors.to_csv(folder / "cost_errors.csv", index=False, lineterminator="\n")
    table = engine_table(rows)
    table.to_csv(folder / "cost_engines.csv", index=False, lineterminator="\n")


def update_page(errors: Frame) -> None:
    """Put the error table into docs/cost-model.md."""
    put_into_page("errors", error_markdown(errors))


def put_into_page(part: str, text: str) -> None:
    """Replace the text after ``<!-- part -->`` in docs/cost-model.md (not present in a wheel)."""
    if PAGE.exists():
        begin, end = f"<!-- {part} -->", "<!-- end -->"
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(end)
        write_text(PAGE, f"{before}{begin}\n{text}\n{end}{after}")
