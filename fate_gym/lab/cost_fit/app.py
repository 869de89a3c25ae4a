"""``python scripts/fit_cost_model.py``: fits the cost model on measured times."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from fate_gym.lab.cost_fit.constants import CATALOGUE, write_efficiency
from fate_gym.lab.cost_fit.errors import error_table, update_page, write_errors
from fate_gym.lab.cost_fit.figures import draw
from fate_gym.lab.cost_fit.fit import fit
from fate_gym.lab.cost_fit.measured import read_tables
from fate_gym.lab.cost_fit.predictions import compare


def main(arguments: list[str] | None = None) -> None:
    """Fit, print the error table, and with ``--write`` keep both in the catalogue."""
    parser = argparse.ArgumentParser(description="Fit the cost model on measured times.")
    parser.add_argument("data", type=Path, help="folder with the measured tables")
    parser.add_argument("--write", action="store_true", help="write the catalogue's files")
    parser.add_argument("--figures", type=Path, help="folder for predicted against measured")
    options = parser.parse_args(arguments)
    tables = read_tables(options.data)
    constants = fit(tables)
    rows = compare(tables, constants)
    errors = error_table(rows)
    with pd.option_context("display.width", 200, "display.max_rows", None):
        print(errors.round(3).to_string(index=False))
    if options.write:
        command = f"python scripts/fit_cost_model.py {options.data} --write"
        write_efficiency(constants, CATALOGUE, command)
        write_errors(errors, rows, CATALOGUE)
        update_page(errors)
    if options.figures is not None:
        draw(rows, options.figures)
