"""Fits the constants on the training part of the measurements.

Fitted are four efficiencies per GPU (linear layers and attention; compute and memory bandwidth),
and, shared by all GPUs, the ramp of the MFU, the memory traffic between the GEMMs and the fixed
cost of a layer. The training part is the shapes of Llama-2-7B and CodeLlama-34B; every other model,
and every measurement of a whole engine, is held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
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

_WIDTH = 0.1  # logarithmic residuals beyond this are weighted down (soft L1)


def fit(tables: Tables) -> Constants:
    """Fit the constants to the training part."""
    known = {key for key, name in GPUS.items() if name in catalog.gpus()}
    keep = tables.linear.model.isin(TRAIN_MODELS) & tables.linear.gpu.isin(known)
    linear = tables.linear[keep].reset_index(drop=True)
    names = list(dict.fromkeys(linear.gpu))
    params = column(linear.model, {name: shape.layer_params for name, shape in SHAPES.items()})
    tokens = linear.num_tokens.to_numpy(float)
    mfu, mbu, ramp = fit_gemm(_peaks_of(linear, names), params, tokens, _s(linear, "gemm"))
    between = linear[linear.nongemm_ms_per_layer.notna()]
    hidden = column(between.model, {name: shape.hidden for name, shape in SHAPES.items()})
    unit = 2.0 * between.num_tokens.to_numpy(float) * hidden / peaks(between)[1]
    passes, linear_s = fit_between(unit, _s(between, "nongemm"))
    table = _train(tables.prefill, names)
    flops, traffic = attention_work(table)
    prefill, attention_passes, prefill_s = fit_prefill(
        _peaks_of(table, names), flops, traffic, table.latency_ms.to_numpy(float) / 1e3
    )
    table = _train(within_bandwidth(tables.decode), names)
    decode, decode_s = fit_decode(
        _peaks_of(table, names), kv_bytes(table), table.latency_ms.to_numpy(float) / 1e3
    )
    rates, bandwidth = (dict(zip(linear.gpu, peak.tolist(), strict=True)) for peak in peaks(linear))
    found = zip(mfu.tolist(), mbu.tolist(), prefill.tolist(), decode.tolist(), strict=True)
    return Constants(
        gpus={n: Rates(rates[n], bandwidth[n], *v) for n, v in zip(names, found, strict=True)},
        ramp_tokens=ramp,
        linear_passes=passes,
        attention_passes=attention_passes,
        linear_s=linear_s,
        attention_s=float(np.mean([prefill_s, decode_s])),
    )


def _train(table: Frame, names: list[str]) -> Frame:
    return table[table["shape"].isin(TRAIN_SHAPES) & table.gpu.isin(names)]


def _s(table: Frame, part: str) -> Column:
    return np.asarray(table[f"{part}_ms_per_layer"].to_numpy(float) / 1e3)


def _peaks_of(table: Frame, names: list[str]) -> Peaks:
    return Peaks(table.gpu.map(names.index).to_numpy(), len(names), *peaks(table))


@dataclass(frozen=True)
class Peaks:
    """The GPUs of R measurements.

    Attributes:
        index: (R,) index of the GPU.
        count: number of GPUs.
        flops: (R,) FLOP/s by that GPU's data sheet.
        bytes_s: (R,) bytes/s of its memory.
    """

    index: NDArray[np.int64]
    count: int
    flops: Column
    bytes_s: Column


def fit_gemm(
    on: Peaks, params: Column, tokens: Column, measured_s: Column
) -> tuple[Column, Column, float]:
    """Fit MFU and MBU of each GPU, and the ramp of the MFU in tokens."""
    count = on.count

    def seconds(x: Column) -> Column:
        mfu, mbu = x[:count][on.index], x[count : 2 * count][on.index]
        return np.asarray(linear_seconds(params, tokens, mfu * on.flops, mbu * on.bytes_s, x[-1]))

    start, upper = [0.7] * (2 * count) + [50.0], [1.0] * (2 * count) + [500.0]
    found = solve(seconds, measured_s, start, upper)
    return found[:count], found[count : 2 * count], float(found[-1])


def fit_between(
    unit: Column, measured_s: Column, known_s: Column | float = 0.0
) -> tuple[float, float]:
    """Fit passes over memory between the GEMMs, and fixed seconds of a layer.

    Args:
        unit: (R,) seconds of one pass.
        measured_s: (R,) seconds of a layer.
        known_s: seconds of other, known parts of the layer.
    """
    found = solve(lambda x: known_s + x[0] * unit + x[1], measured_s, [40.0, 2e-5])
    return float(found[0]), float(found[1])


def fit_prefill(
    on: Peaks, flops: Column, traffic: Column, measured_s: Column
) -> tuple[Column, float, float]:
    """Fit MFU of each GPU, passes over memory, and fixed seconds of a layer."""
    count = on.count

    def seconds(x: Column) -> Column:
        compute = flops / (x[:count][on.index] * on.flops)
        return np.asarray(compute + x[-2] * traffic / on.bytes_s + x[-1])

    start, upper = [0.6] * count + [2.0, 1e-5], [1.0] * count + [50.0, 1e-3]
    found = solve(seconds, measured_s, start, upper)
    return found[:count], float(found[-2]), float(found[-1])


def fit_decode(on: Peaks, read: Column, measured_s: Column) -> tuple[Column, float]:
    """Fit MBU of each GPU, and fixed seconds of a layer."""
    count = on.count

    def seconds(x: Column) -> Column:
        return np.asarray(read / (x[:count][on.index] * on.bytes_s) + x[-1])

    start, upper = [0.8] * count + [1e-5], [1.0] * count + [1e-3]
    found = solve(seconds, measured_s, start, upper)
    return found[:count], float(found[-1])


def solve(
    seconds: Callable[[Column], Column],
    measured_s: Column,
    start: list[float],
    upper: list[float] | None = None,
) -> Column:
    """Solve least squares of log(predicted / measured), with outliers weighted down."""
    measured = np.log(measured_s)
    result = least_squares(
        lambda x: np.log(seconds(x)) - measured,
        start,
        bounds=(0.0, np.inf if upper is None else upper),
        x_scale=start,
        loss="soft_l1",
        f_scale=_WIDTH,
    )
    return np.asarray(result.x)
