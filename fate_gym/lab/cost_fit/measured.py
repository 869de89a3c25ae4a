"""Measured GPU times on which the cost model is fitted and tested.

Four tables, all of runs on one GPU:

* linear layers of one transformer layer by number of tokens (Vidur, MIT; GEMMs of the H200 and
  the L40S from aiconfigurator-core, Apache-2.0);
* attention of one layer in prefill and in decode (aiconfigurator-core);
* whole engines under a closed loop of ``concurrency`` clients: time to first token and time per
  output token (aiconfigurator-core).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fate_gym.errors import InputError

LINEAR = "linear_layers_ms_per_layer.csv"
ATTENTION = {
    "prefill": "attention_prefill_ms_per_layer.csv",
    "decode": "attention_decode_ms_per_layer.csv",
}
ENGINE = "e2e_ttft_tpot_h100_h200.csv"

GPUS = {"a100": "A100-80", "h100": "H100-SXM", "h200": "H200-SXM", "l40s": "L40S", "a40": "A40"}
"""Catalogue names of the GPUs in the tables; the A40 is measured but not in the catalogue."""

SYSTEMS = {"h100_sxm": "h100", "h200_sxm": "h200"}


@dataclass(frozen=True)
class Shape:
    """The sizes that determine the cost of a dense model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @property
    def width(self) -> int:
        """Query heads x head dimension."""
        return self.heads * self.head_dim

    @property
    def layer_params(self) -> int:
        """Weights of the GEMMs of one layer."""
        kv = self.kv_heads * self.head_dim
        return self.hidden * (2 * self.width + 2 * kv + 3 * self.intermediate)

    @property
    def head_params(self) -> int:
        """Weights of the output projection (and of the embedding)."""
        return self.vocab * self.hidden


SHAPES = {
    "Llama-2-7b-hf": Shape(32, 4096, 11008, 32, 32, 128, 32000),
    "CodeLlama-34b-Instruct-hf": Shape(48, 8192, 22016, 64, 8, 128, 32000),
    "Llama-2-70b-hf": Shape(80, 8192, 28672, 64, 8, 128, 32000),
    "Meta-Llama-3-8B": Shape(32, 4096, 14336, 32, 8, 128, 128256),
}
"""Models whose layers were measured, by the config.json of their public releases."""

ENGINE_SHAPES = {
    "Llama-3.1-8B": SHAPES["Meta-Llama-3-8B"],
    "Llama-3.1-70B": Shape(80, 8192, 28672, 64, 8, 128, 128256),
    "Qwen3-32B": Shape(64, 5120, 25600, 64, 8, 128, 151936),
}

_ENGINE_MODELS = {
    "Qwen/Qwen3-32B": "Qwen3-32B",
    "meta-llama/Llama-3.1-70B": "Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "Llama-3.1-8B",
}


@dataclass(frozen=True)
class Tables:
    """The measured tables, in milliseconds as in their files."""

    linear: pd.DataFrame
    prefill: pd.DataFrame
    decode: pd.DataFrame
    engine: pd.DataFrame


def read_tables(folder: Path) -> Tables:
    """Read the tables of a folder; several measurements of one attention shape: their median.

    Raises:
        InputError: a table or column is missing, a model is unknown, or a value is not positive.
    """
    linear = _read(folder / LINEAR, ["gpu", "model", "num_tokens"], ["gemm_ms_per_layer"])
    if "nongemm_ms_per_layer" not in linear:
        linear["nongemm_ms_per_layer"] = float("nan")
    if "tp" in linear:
        linear = linear[linear.tp == 1]
    unknown = set(linear.model) - set(SHAPES)
    if unknown:
        raise InputError(f"unknown models {sorted(unknown)}", source=folder / LINEAR, field="model")
    attention = {}
    for phase, length in (("prefill", "isl"), ("decode", "context_len")):
        keys = ["gpu", "shape", "num_heads", "num_kv_heads", "batch", length]
        table = _read(folder / ATTENTION[phase], keys, ["latency_ms"])
        attention[phase] = table.groupby(keys).latency_ms.median().reset_index()
    keys = ["backend", "model_path", "system", "isl", "osl", "batch_size", "tp_size"]
    engine = _read(folder / ENGINE, keys, ["silicon_ttft_ms", "silicon_tpot_ms"])
    engine = engine[(engine.tp_size == 1) & engine.concurrency.notna()]
    engine = engine.assign(precision=engine.precision.fillna("")).reset_index(drop=True)
    return Tables(
        linear[["gpu", "model", "num_tokens", "gemm_ms_per_layer", "nongemm_ms_per_layer"]],
        attention["prefill"],
        attention["decode"],
        engine,
    )


def engine_models(engine: Any) -> Any:
    """Map the models of the engine table to names in `ENGINE_SHAPES`."""
    return engine.model_path.map(_ENGINE_MODELS)


def _read(path: Path, keys: list[str], values: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(str(error), source=path) from error
    for column in [*keys, *values]:
        if column not in table:
            raise InputError("missing column", source=path, field=column)
    for column in values:
        numbers = pd.to_numeric(table[column], errors="coerce")
        if not (numbers > 0).all():
            raise InputError("must be positive numbers", source=path, field=column)
    return table
