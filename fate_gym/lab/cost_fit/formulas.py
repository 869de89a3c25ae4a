"""The formulas of docs/execution-model.md over columns of a table; seconds of one layer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym import catalog
from fate_gym.catalog import GB
from fate_gym.lab.cost_fit.measured import GPUS

Column = NDArray[np.float64]
Frame = Any  # a table or a column of pandas, whose stubs make arithmetic unreadable


def linear_seconds(params: Any, tokens: Any, flops: Any, bandwidth: Any, ramp: float) -> Any:
    """Seconds of GEMMs with ``params`` 16-bit weights: the larger of compute and weight reads."""
    return np.maximum(2.0 * params * (tokens + ramp) / flops, 2.0 * params / bandwidth)


def attention_work(table: Frame) -> tuple[Column, Column]:
    """FLOPs of causal attention, and bytes of queries, keys, values and outputs, per layer."""
    tokens = (table.batch * table.isl).to_numpy(float)
    flops = 4.0 * table.num_heads.to_numpy(float) * 128 * tokens * table.isl.to_numpy(float) / 2
    heads = (table.num_heads + table.num_kv_heads).to_numpy(float)
    return flops, 2.0 * 2.0 * heads * 128 * tokens


def kv_bytes(table: Frame) -> Column:
    """Bytes of keys and values that a decode step of one layer reads."""
    tokens = (table.batch * table.context_len).to_numpy(float)
    return np.asarray(2.0 * 2.0 * table.num_kv_heads.to_numpy(float) * 128 * tokens)


def column(keys: Frame, values: dict[str, Any]) -> Column:
    """Look up the value of each key."""
    return np.asarray(keys.map(values).to_numpy(float))


def peaks(table: Frame) -> tuple[Column, Column]:
    """FLOP/s and bytes/s of each row's GPU, by its data sheet."""
    gpus = {name: catalog.gpu(GPUS[name]) for name in set(table.gpu)}
    flops = column(table.gpu, {name: gpu.tflops * 1e12 for name, gpu in gpus.items()})
    return flops, column(table.gpu, {name: gpu.bandwidth_gb_s * GB for name, gpu in gpus.items()})


def within_bandwidth(decode: Frame) -> Frame:
    """Keep decode rows within the memory's bandwidth; faster ones read from a cache."""
    _, bandwidth = peaks(decode)
    return decode[kv_bytes(decode) / bandwidth * 1e3 <= decode.latency_ms]
