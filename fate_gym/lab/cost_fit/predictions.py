"""Predicted against measured times: one row per measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fate_gym.lab.cost_fit.benchmark import benchmark
from fate_gym.lab.cost_fit.closed_loop import means
from fate_gym.lab.cost_fit.constants import UNSEEN, Constants, rates_of
from fate_gym.lab.cost_fit.fit import TRAIN_MODELS
from fate_gym.lab.cost_fit.formulas import (
    Column,
    Frame,
    attention_work,
    kv_bytes,
    linear_seconds,
    within_bandwidth,
)
from fate_gym.lab.cost_fit.measured import (
    GPUS,
    SHAPES,
    SYSTEMS,
    Tables,
    engine_models,
)

ATTENTION_OF = {
    "Llama-2-7b-hf": "llama-2-7b tp1",
    "CodeLlama-34b-Instruct-hf": "70b/34b tp1",
    "Llama-2-70b-hf": "70b/34b tp1",
    "Meta-Llama-3-8B": "llama-3-8b tp1",
}


def compare(tables: Tables, constants: Constants) -> Frame:
    """Make one row per measurement: the keys of `error_table`, measured_s and predicted_s.

    ``size`` is the tokens of a layer's batch (its queries in decode) or the clients of an engine;
    ``prompt`` and ``output`` are an engine's tokens per request. ``level`` is ``layer`` (the linear
    part and the attention of a transformer layer, as far as measured), ``engine`` (a whole engine
    in a closed loop) or ``engine, KV full`` (one whose memory does not hold the KV of all clients).
    ``split`` is ``train``, ``test`` or ``unseen`` (a GPU without a fit).
    """
    parts = [
        _linear_rows(tables, constants),
        _layer_rows(tables, constants, "prefill"),
        _layer_rows(tables, constants, "decode"),
        _engine_rows(tables.engine, constants),
    ]
    return pd.concat(parts, ignore_index=True)


def _linear_part(table: Frame, constants: Constants) -> Column:
    """Predict seconds of the linear part of a layer; only its GEMMs if only those are measured."""
    seconds = np.empty(len(table))
    for i, row in enumerate(table.itertuples(index=False)):
        shape, rates = SHAPES[row.model], rates_of(row.gpu, constants)
        seconds[i] = linear_seconds(
            shape.layer_params,
            row.num_tokens,
            rates.mfu * rates.flops,
            rates.mbu * rates.bytes_s,
            constants.ramp_tokens,
        )
        if not np.isnan(row.nongemm_ms_per_layer):
            traffic = constants.linear_passes * 2.0 * shape.hidden * row.num_tokens
            seconds[i] += traffic / rates.bytes_s + constants.linear_s
    return seconds


def _linear_rows(tables: Tables, constants: Constants) -> Frame:
    table = tables.linear
    measured = table.gemm_ms_per_layer + table.nongemm_ms_per_layer.fillna(0.0)
    return _rows(table, "linear", measured / 1e3, _linear_part(table, constants))


def _layer_rows(tables: Tables, constants: Constants, phase: str) -> Frame:
    """Make rows of whole layers: measured linear part plus measured attention of the same batch."""
    attention = tables.prefill if phase == "prefill" else within_bandwidth(tables.decode)
    attention = attention[attention.gpu.isin(constants.gpus)]
    attention = attention.rename(columns={"latency_ms": "attention_ms"})
    tokens = attention.batch * attention.isl if phase == "prefill" else attention.batch
    attention = attention.assign(num_tokens=tokens)
    linear = tables.linear.assign(shape=tables.linear.model.map(ATTENTION_OF))
    table = linear.merge(attention, on=["gpu", "shape", "num_tokens"])
    rates = [rates_of(name, constants) for name in table.gpu]
    predicted = _linear_part(table, constants) + constants.attention_s
    if phase == "prefill":
        flops, traffic = attention_work(table)
        predicted += flops / np.array([r.attention_mfu * r.flops for r in rates])
        predicted += constants.attention_passes * traffic / np.array([r.bytes_s for r in rates])
    else:
        predicted += kv_bytes(table) / np.array([r.attention_mbu * r.bytes_s for r in rates])
    measured = table.gemm_ms_per_layer + table.nongemm_ms_per_layer.fillna(0.0) + table.attention_ms
    return _rows(table, phase, measured / 1e3, predicted)


def _rows(table: Frame, phase: str, measured: Any, predicted: Column) -> Frame:
    split = np.where(table.model.isin(TRAIN_MODELS), "train", "test")
    split = np.where(table.gpu.map(GPUS).isin(UNSEEN), "unseen", split)
    return pd.DataFrame(
        {
            "gpu": table.gpu.map(GPUS),
            "model": table.model,
            "level": "layer",
            "phase": phase,
            "engine": "",
            "precision": "bf16",
            "split": split,
            "size": table.num_tokens,
            "prompt": 0,
            "output": 0,
            "measured_s": np.asarray(measured),
            "predicted_s": predicted,
        }
    )


def _engine_rows(engine: Frame, constants: Constants) -> Frame:
    """Make three rows per run of an engine: time to first token, per output token, of a request.

    The measured seconds of a request are time to first token + (output - 1) x time per token.
    """
    rows = []
    names = engine_models(engine)
    for row, model in zip(engine.itertuples(index=False), names, strict=True):
        run = benchmark(row, model, constants)
        predicted = means(run.run(constants))
        tpot, ttft = row.silicon_tpot_ms / 1e3, row.silicon_ttft_ms / 1e3
        level = "engine" if run.fits else "engine, KV full"
        precision = "fp8" if row.precision == "fp8" else "bf16"
        sizes = (run.clients, int(row.isl), int(row.osl))
        about = (GPUS[SYSTEMS[row.system]], model, level, row.backend, precision, *sizes)
        rows.append((*about, "ttft", ttft, predicted.ttft))
        rows.append((*about, "tpot", tpot, predicted.tpot))
        rows.append((*about, "request", ttft + (run.output - 1) * tpot, predicted.request))
    columns = ["gpu", "model", "level", "engine", "precision", "size", "prompt", "output"]
    table = pd.DataFrame(rows, columns=[*columns, "phase", "measured_s", "predicted_s"])
    return table.assign(split="test")
