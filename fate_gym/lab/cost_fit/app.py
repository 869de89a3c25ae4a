"""``fate-gym fit-cost-model``: fits the cost model on measured times."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from fate_gym.lab.cost_fit.constants import CATALOGUE, write_efficiency
from fate_gym.lab.cost_fit.errors import error_table, update_page, write_errors
from fate_gym.lab.cost_fit.figures import draw
from fate_gym.lab.cost_fit.fit import fit
from fate_gym.lab.cost_fit.measured import read_tables
from fate_gym.lab.cost_fit.predictions import compare


def fit_and_show(data: Path, *, write: bool = False, figures: Path | None = None) -> None:
    """Fit, and print the error table.

    Args:
        data: folder with the measured tables.
        write: write constants and errors to the catalogue's files.
        figures: folder for figures of predicted against measured; None: none.
    """
    tables = read_tables(data)
    constants = fit(tables)
    rows = compare(tables, constants)
    errors = error_table(rows)
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(errors.round(3).to_string(index=False))
    if write:
        command = f"fate-gym fit-cost-model {data} --write"
        write_efficiency(constants, CATALOGUE, command)
        write_errors(errors, rows, CATALOGUE)
        update_page(errors)
    if figures is not None:
        draw(rows, figures)
