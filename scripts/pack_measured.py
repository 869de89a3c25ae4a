"""Packs measured GPU times into small tables for `fate-gym fit-cost-model`.

    python scripts/pack_measured.py DATA_DIR [OUTPUT_DIR]

DATA_DIR holds the tables of `fate_gym.lab.cost_fit.measured` with the linear layers of Vidur
(MIT). Tables of the PyPI package ``aiconfigurator-core`` (Apache-2.0, 82 MB), which must be
installed but is not imported, are added: GEMMs of the H200 and the L40S, attention of the H200.
Where several engines were measured on the same shape, the median is kept. Only runs on one GPU.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fate_gym.errors import InputError
from fate_gym.lab.cost_fit import measured
from fate_gym.lab.cost_fit.formulas import Frame
from fate_gym.lab.cost_fit.measured import SHAPES, Shape

OUTPUT = Path(__file__).parents[1] / "tests" / "data" / "cost_model"
PACKAGE = "aiconfigurator_core"
TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SYSTEMS = {"h200": "h200_sxm", "l40s": "l40s"}
HEADS = {"llama-2-7b tp1": (32, 32), "70b/34b tp1": (64, 8), "llama-3-8b tp1": (32, 8)}


def main() -> None:
    """Pack the tables named on the command line."""
    parser = argparse.ArgumentParser(description="Pack measured GPU times.")
    parser.add_argument("data", type=Path, help="folder with the measured tables")
    parser.add_argument("output", type=Path, nargs="?", default=OUTPUT)
    options = parser.parse_args()
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{PACKAGE} is not installed", remedy="pip install aiconfigurator-core")
    systems = Path(spec.submodule_search_locations[0]) / "systems" / "data"
    tables = measured.read_tables(options.data)
    linear = [tables.linear, *(_gemm(systems, gpu) for gpu in SYSTEMS)]
    phases = {"prefill": tables.prefill, "decode": tables.decode}
    options.output.mkdir(parents=True, exist_ok=True)
    _write(pd.concat(linear, ignore_index=True), options.output / measured.LINEAR)
    for phase, table in phases.items():
        both = [table, _attention(systems, "h200", phase)]
        _write(pd.concat(both, ignore_index=True), options.output / measured.ATTENTION[phase])
    _write(tables.engine, options.output / measured.ENGINE)


def _write(table: Frame, path: Path) -> None:
    table.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def _read(systems: Path, gpu: str, kind: str, table: str) -> Frame:
    files = sorted((systems / SYSTEMS[gpu] / kind).glob(f"*/*/{table}.parquet"))
    if not files:
        raise InputError(f"no {table} of {gpu}", source=systems)
    return pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)


def _gemm(systems: Path, gpu: str) -> Frame:
    """Sum the four GEMMs of a layer of each shape; unmeasured sizes are interpolated."""
    table = _read(systems, gpu, "gemm", "gemm_perf")
    table = table[table.gemm_dtype == "bfloat16"]
    rows = []
    for tokens in TOKENS:
        grid = table[table.m == tokens].groupby(["n", "k"]).latency.median().unstack()
        for name, shape in SHAPES.items():
            ms = sum(_interpolated(grid, n, k) for n, k in _sizes(shape))
            rows.append((gpu, name, tokens, ms))
    return pd.DataFrame(rows, columns=["gpu", "model", "num_tokens", "gemm_ms_per_layer"])


def _sizes(shape: Shape) -> list[tuple[int, int]]:
    """Return (outputs, inputs) of the GEMMs of a layer: QKV, output, gate and up, down."""
    width, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    hidden, inner = shape.hidden, shape.intermediate
    return [(width + 2 * kv, hidden), (hidden, width), (2 * inner, hidden), (hidden, inner)]


def _interpolated(grid: Frame, n: int, k: int) -> float:
    """Interpolate the ms of an (n, k) GEMM: bilinear in log(time per weight) over log size."""
    rows, columns = np.array(grid.index, float), np.array(grid.columns, float)
    cost = np.log(grid.to_numpy() / (rows[:, None] * columns[None, :]))
    i, u = _between(rows, n)
    j, v = _between(columns, k)
    low = (1 - u) * cost[i, j] + u * cost[i + 1, j]
    high = (1 - u) * cost[i, j + 1] + u * cost[i + 1, j + 1]
    return float(np.exp((1 - v) * low + v * high) * n * k)


def _between(grid: Any, value: float) -> tuple[int, float]:
    i = int(np.clip(np.searchsorted(grid, value) - 1, 0, len(grid) - 2))
    share = np.log(value / grid[i]) / np.log(grid[i + 1] / grid[i])
    return i, float(np.clip(share, 0.0, 1.0))


def _attention(systems: Path, gpu: str, phase: str) -> Frame:
    kind = {"prefill": "context", "decode": "generation"}[phase]
    table = _read(systems, gpu, "attention", f"{kind}_attention_perf")
    keep = (table.head_dim == 128) & (table.attn_dtype == "bfloat16")
    keep &= table.kv_cache_dtype == "bfloat16"
    keep &= table.window_size.fillna(0) == 0
    table = table[keep]
    if phase == "prefill":
        table = table[table.step.fillna(0) == 0] if "step" in table else table
        length, name = table.isl, "isl"
    else:
        length, name = table.isl + table.step, "context_len"
    parts = []
    for shape, (heads, kv_heads) in HEADS.items():
        rows = (table.num_heads == heads) & (table.num_key_value_heads == kv_heads)
        part = table[rows].assign(**{name: length[rows]})
        part = part[part[name] >= (128 if phase == "prefill" else 256)]
        part = part.groupby(["batch_size", name]).latency.median().reset_index()
        part = part.rename(columns={"batch_size": "batch", "latency": "latency_ms"})
        parts.append(part.assign(gpu=gpu, shape=shape, num_heads=heads, num_kv_heads=kv_heads))
    columns = ["gpu", "shape", "num_heads", "num_kv_heads", "batch", name, "latency_ms"]
    return pd.concat(parts)[columns]


if __name__ == "__main__":
    main()
