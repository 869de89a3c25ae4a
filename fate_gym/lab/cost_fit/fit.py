"""Fits the constants on the training part of the measurements.

Fitted are, for each GPU, four efficiencies (linear layers and attention; compute and memory
bandwidth), and for all of them the ramp of the MFU, the memory traffic between the GEMMs and the
fixed cost of a layer. The training part is the shapes of Llama-2-7B and CodeLlama-34B; every other
model, and every measurement of a whole engine, is held out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import least_squares

from fate_gym import catalog
from fate_gym.lab.cost_fit.constants import Constants, Rates
from fate_gym.lab.cost_fit.formulas import (
    Column,
    Frame,
    attention_work,
    column,
    kv_bytes,
    linear_seconds,
    peaks,
    within_bandwidth,
)
from fate_gym.lab.cost_fit.measured import GPUS, SHAPES, Tables

TRAIN_MODELS = ("Llama-2-7b-hf", "CodeLlama-34b-Instruct-hf")
TRAIN_SHAPES = ("llama-2-7b tp1", "70b/34b tp1")

_WIDTH = 0.1  # residuals of the logarithm beyond this count less (soft L1)


def fit(tables: Tables) -> Constants:
    """The constants that fit the training part best."""
    known = {key for key, name in GPUS.items() if name in catalog.gpus()}
    keep = tables.linear.model.isin(TRAIN_MODELS) & tables.linear.gpu.isin(known)
    linear = tables.linear[keep].reset_index(drop=True)
    names = list(dict.fromkeys(linear.gpu))
    mfu, mbu, ramp = _fit_gemm(linear, names)
    passes, linear_s = _fit_between(linear)
    prefill, attention_passes, prefill_s = _fit_prefill(tables.prefill, names)
    decode, decode_s = _fit_decode(tables.decode, names)
    flops, bandwidth = (dict(zip(linear.gpu, peak.tolist(), strict=True)) for peak in peaks(linear))
    found = zip(mfu.tolist(), mbu.tolist(), prefill.tolist(), decode.tolist(), strict=True)
    return Constants(
        gpus={n: Rates(flops[n], bandwidth[n], *v) for n, v in zip(names, found, strict=True)},
        ramp_tokens=ramp,
        linear_passes=passes,
        attention_passes=attention_passes,
        linear_s=linear_s,
        attention_s=float(np.mean([prefill_s, decode_s])),
    )


def _fit_gemm(linear: Frame, names: list[str]) -> tuple[Column, Column, float]:
    """MFU and MBU of each GPU, and the ramp of the MFU in tokens."""
    index, count = linear.gpu.map(names.index).to_numpy(), len(names)
    peak, bandwidth = peaks(linear)
    params = column(linear.model, {name: shape.layer_params for name, shape in SHAPES.items()})
    tokens = linear.num_tokens.to_numpy(float)

    def seconds(x: Column) -> Column:
        mfu, mbu = x[:count][index], x[count : 2 * count][index]
        return np.asarray(linear_seconds(params, tokens, mfu * peak, mbu * bandwidth, x[-1]))

    start, upper = [0.7] * (2 * count) + [50.0], [1.0] * (2 * count) + [500.0]
    found = _solve(seconds, linear.gemm_ms_per_layer, start, upper)
    return found[:count], found[count : 2 * count], float(found[-1])


def _fit_between(linear: Frame) -> tuple[float, float]:
    """Passes over memory between the GEMMs, and fixed seconds of a layer."""
    linear = linear[linear.nongemm_ms_per_layer.notna()]
    hidden = column(linear.model, {name: shape.hidden for name, shape in SHAPES.items()})
    unit = 2.0 * linear.num_tokens.to_numpy(float) * hidden / peaks(linear)[1]
    found = _solve(lambda x: x[0] * unit + x[1], linear.nongemm_ms_per_layer, [40.0, 2e-5])
    return float(found[0]), float(found[1])


def _fit_prefill(table: Frame, names: list[str]) -> tuple[Column, float, float]:
    """MFU of each GPU, passes over memory, and fixed seconds of a layer."""
    table = table[table["shape"].isin(TRAIN_SHAPES) & table.gpu.isin(names)]
    index, count = table.gpu.map(names.index).to_numpy(), len(names)
    peak, bandwidth = peaks(table)
    flops, traffic = attention_work(table)

    def seconds(x: Column) -> Column:
        return np.asarray(flops / (x[:count][index] * peak) + x[-2] * traffic / bandwidth + x[-1])

    start, upper = [0.6] * count + [2.0, 1e-5], [1.0] * count + [50.0, 1e-3]
    found = _solve(seconds, table.latency_ms, start, upper)
    return found[:count], float(found[-2]), float(found[-1])


def _fit_decode(table: Frame, names: list[str]) -> tuple[Column, float]:
    """MBU of each GPU, and fixed seconds of a layer."""
    table = within_bandwidth(table)
    table = table[table["shape"].isin(TRAIN_SHAPES) & table.gpu.isin(names)]
    index, count = table.gpu.map(names.index).to_numpy(), len(names)
    _, bandwidth = peaks(table)
    read = kv_bytes(table)

    def seconds(x: Column) -> Column:
        return np.asarray(read / (x[:count][index] * bandwidth) + x[-1])

    start, upper = [0.8] * count + [1e-5], [1.0] * count + [1e-3]
    found = _solve(seconds, table.latency_ms, start, upper)
    return found[:count], float(found[-1])


def _solve(
    seconds: Callable[[Column], Column],
    measured_ms: Frame,
    start: list[float],
    upper: list[float] | None = None,
) -> Column:
    """Least squares on the logarithm of predicted over measured; outliers count less."""
    measured = np.log(measured_ms.to_numpy(float) / 1e3)
    result = least_squares(
        lambda x: np.log(seconds(x)) - measured,
        start,
        bounds=(0.0, np.inf if upper is None else upper),
        x_scale=start,
        loss="soft_l1",
        f_scale=_WIDTH,
    )
    return np.asarray(result.x)
