"""Fits the constants of one GPU to its measurements, with the fits of `fate_gym.lab.cost_fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu, Own
from fate_gym.lab.calibrate.plan import Kind, Measured, Task
from fate_gym.lab.cost_fit.fit import (
    Peaks,
    fit_between,
    fit_decode,
    fit_gemm,
    fit_prefill,
    solve,
)
from fate_gym.lab.cost_fit.formulas import Column
from fate_gym.lab.decoder.shape import DecoderShape
from fate_gym.validator.costs import Rates
from fate_gym.validator.world import Machine

_HEADROOM = 1.05
"""Assumed ratio of an unknown peak to the best rate seen, so that shares stay below 1."""


@dataclass(frozen=True)
class Sheet:
    """A GPU's data sheet: what a fit cannot find. A rate of None: use the best rate seen."""

    name: str
    memory_gb: float
    watts: float
    usd_per_hour: float
    pcie: int = 4
    tflops: float | None = None
    bandwidth_gb_s: float | None = None
    nvlink_gb_s: float | None = None
    sources: tuple[tuple[str, str], ...] = ()


def fit_gpu(measured: Sequence[Measured], shapes: Mapping[str, DecoderShape], sheet: Sheet) -> Gpu:
    """Fit the GPU that best explains the training part of the measurements."""
    train = [one for one in measured if one.task.split == "train"]
    flops, bytes_s = _peaks(train, shapes, sheet)
    gemm = _Rows(train, shapes, "gemm")
    params = gemm.of(lambda _, shape: shape.layer_params)
    mfu, mbu, ramp = fit_gemm(gemm.on(flops, bytes_s), params, gemm.tokens, gemm.seconds)
    prefill = _Rows(train, shapes, "prefill")
    work = prefill.of(lambda task, shape: 4.0 * shape.width * task.pairs)
    traffic = prefill.of(lambda task, shape: 4.0 * (shape.width + shape.kv_width) * task.tokens)
    on = prefill.on(flops, bytes_s)
    attention_mfu, attention_passes, prefill_s = fit_prefill(on, work, traffic, prefill.seconds)
    decode = _Rows(train, shapes, "decode")
    attention_mbu, decode_s = fit_decode(
        decode.on(flops, bytes_s), decode.of(_kv_bytes), decode.seconds
    )
    init, pcie = _fit_copies(train, "load")
    own = Own(
        mfu_ramp_tokens=_digits(ramp),
        linear_passes=0.0,
        attention_passes=_digits(attention_passes),
        linear_layer_s=0.0,
        attention_layer_s=_digits(float(np.mean([prefill_s, decode_s]))),
        # A decoder has no engine around it: the passes are all the time that a prompt takes.
        prefill_launch_s=0.0,
        load_init_s=_digits(init),
        pcie_gb_s=_digits(pcie / GB),
        peer_gb_s=_digits(_fit_copies(train, "peer")[1] / GB) if _has(train, "peer") else None,
    )
    gpu = Gpu(
        name=sheet.name,
        memory_gb=_digits(sheet.memory_gb),
        bandwidth_gb_s=_digits(bytes_s / GB),
        tflops=_digits(flops / 1e12),
        nvlink_gb_s=sheet.nvlink_gb_s,
        pcie=sheet.pcie,
        watts=sheet.watts,
        usd_per_hour=sheet.usd_per_hour,
        mfu=_digits(float(mfu[0])),
        mbu=_digits(float(mbu[0])),
        attention_mfu=_digits(float(attention_mfu[0])),
        attention_mbu=_digits(float(attention_mbu[0])),
        fitted=True,
        own=own,
        sources=dict(sheet.sources),
    )
    passes, linear_s = _fit_rest(train, shapes, gpu)
    between = {"linear_passes": _digits(passes), "linear_layer_s": _digits(linear_s)}
    return gpu.model_copy(update={"own": own.model_copy(update=between)})


def rates_of(shape: DecoderShape, gpu: Gpu, name: str = "decoder") -> Rates:
    """Set up the formulas of docs/execution-model.md for a decoder on a GPU."""
    facts = catalog.execution().on(gpu)
    machine = Machine(gpu.name, "", gpu, 1, facts, limit=0.0, pcie=0.0, peer=0.0, network=0.0,
                      load=0.0)  # fmt: skip
    return Rates(shape.facts(name), machine)


def predicted_s(task: Task, shapes: Mapping[str, DecoderShape], gpu: Gpu) -> float | None:
    """Seconds of a task by the constants of a GPU; None: the model does not cover it."""
    constants = catalog.execution().on(gpu)
    if task.kind in ("load", "peer"):
        rate = constants.pcie_gb_s(gpu) if task.kind == "load" else constants.peer_gb_s(gpu)
        start = constants.load_init_s if task.kind == "load" else 0.0
        return start + task.bytes / (rate * GB)
    if not task.model:
        return None
    shape = shapes[task.model]
    rates = rates_of(shape, gpu)
    if task.kind == "pass":
        tokens = task.queries * task.tokens
        seconds = rates.linear(tokens, task.queries) + rates.between(tokens)
        if task.tokens == 1:
            return seconds + rates.recalling(task.queries * task.context)
        return seconds + rates.attending(task.pairs)
    return _layer_s(task, shape, gpu)


def _layer_s(task: Task, shape: DecoderShape, gpu: Gpu) -> float:
    """Seconds of the part of a layer that a task measures."""
    constants = catalog.execution().on(gpu)
    flops, bytes_s = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
    if task.kind == "gemm":
        compute = 2.0 * shape.layer_params * (task.tokens + constants.mfu_ramp_tokens)
        return max(compute / (gpu.mfu * flops), 2.0 * shape.layer_params / (gpu.mbu * bytes_s))
    if task.kind == "decode":
        read = _kv_bytes(task, shape) / (constants.attention_mbu(gpu) * bytes_s)
        return read + constants.attention_layer_s
    work = 4.0 * shape.width * task.pairs / (constants.attention_mfu(gpu) * flops)
    traffic = 4.0 * (shape.width + shape.kv_width) * task.tokens / bytes_s
    return work + constants.attention_passes * traffic + constants.attention_layer_s


class _Rows:
    """The measurements of one kind, as columns."""

    def __init__(
        self, measured: Sequence[Measured], shapes: Mapping[str, DecoderShape], kind: Kind
    ) -> None:
        self.rows = [one for one in measured if one.task.kind == kind]
        self.shapes = shapes
        self.seconds = np.array([one.seconds for one in self.rows])
        self.tokens = np.array([float(one.task.queries * one.task.tokens) for one in self.rows])

    def of(self, value: Callable[[Task, DecoderShape], float]) -> Column:
        """Compute a number for each row."""
        return np.array([value(one.task, self.shapes[one.task.model]) for one in self.rows], float)

    def on(self, flops: float, bytes_s: float) -> Peaks:
        """Describe all rows as measured on one GPU with these peaks."""
        count = len(self.rows)
        index = np.zeros(count, np.int64)
        return Peaks(index, 1, np.full(count, flops), np.full(count, bytes_s))


def _peaks(
    train: Sequence[Measured], shapes: Mapping[str, DecoderShape], sheet: Sheet
) -> tuple[float, float]:
    """Peak FLOP/s and bytes/s: from the data sheet, else above the best rates seen."""
    gemm, decode = _Rows(train, shapes, "gemm"), _Rows(train, shapes, "decode")
    prefill = _Rows(train, shapes, "prefill")
    params = gemm.of(lambda _, shape: shape.layer_params)
    flops = max(
        float((2.0 * params * gemm.tokens / gemm.seconds).max()),
        float(
            (prefill.of(lambda task, shape: 4.0 * shape.width * task.pairs) / prefill.seconds).max()
        ),
    )
    copies = [2.0 * one.task.bytes / one.seconds for one in train if one.task.kind == "copy"]
    bytes_s = max(
        *copies,
        float((2.0 * params / gemm.seconds).max()),
        float((decode.of(_kv_bytes) / decode.seconds).max()),
    )
    if sheet.tflops is not None:
        flops = sheet.tflops * 1e12 / _HEADROOM
    if sheet.bandwidth_gb_s is not None:
        bytes_s = sheet.bandwidth_gb_s * GB / _HEADROOM
    return flops * _HEADROOM, bytes_s * _HEADROOM


def _fit_rest(
    train: Sequence[Measured], shapes: Mapping[str, DecoderShape], gpu: Gpu
) -> tuple[float, float]:
    """Fit passes over memory and fixed seconds of a layer: all but matrix products and attention.

    They are fitted on whole passes, so that what lies between the kernels counts too.
    """
    rows = _Rows(train, shapes, "pass")
    layers = rows.of(lambda _, shape: shape.layers)
    known = np.array([predicted_s(one.task, shapes, gpu) for one in rows.rows], float)
    hidden = rows.of(lambda _, shape: shape.hidden)
    unit = 2.0 * rows.tokens * hidden / (gpu.bandwidth_gb_s * GB)
    return fit_between(unit, rows.seconds / layers, known / layers)


def _fit_copies(train: Sequence[Measured], kind: Kind) -> tuple[float, float]:
    """Fit start-up seconds and bytes/s of copies."""
    rows = [one for one in train if one.task.kind == kind]
    size = np.array([float(one.task.bytes) for one in rows])
    seconds = np.array([one.seconds for one in rows])
    rate = float((size / seconds).max())
    # Scaled by the best rate, so that the unknowns are about 1.
    found = solve(lambda x: 1e-3 * x[0] + size / (x[1] * rate), seconds, [0.1, 1.0])
    return float(1e-3 * found[0]), float(found[1] * rate)


def _has(measured: Sequence[Measured], kind: Kind) -> bool:
    return any(one.task.kind == kind for one in measured)


def _kv_bytes(task: Task, shape: DecoderShape) -> float:
    return 4.0 * shape.kv_width * task.queries * task.context


def _digits(value: float) -> float:
    """Round to four digits; values below 1e-9 become 0."""
    return float(f"{value:.4g}") if value >= 1e-9 else 0.0
