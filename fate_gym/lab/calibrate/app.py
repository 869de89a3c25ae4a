"""``fate-gym calibrate``: measure a device, fit its constants, write them, show the errors."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fate_gym import catalog
from fate_gym.catalog import GB
from fate_gym.errors import InputError
from fate_gym.lab.calibrate.entry import check_place, write_entry
from fate_gym.lab.calibrate.fit import Sheet, fit_gpu
from fate_gym.lab.calibrate.measure import TorchMeasurer
from fate_gym.lab.calibrate.plan import BATCHES, CONTEXTS, Measured, measure, plan
from fate_gym.lab.calibrate.report import HEADS, comparison, draw, error_rows, errors
from fate_gym.lab.decoder.device import TorchDevice, open_device
from fate_gym.lab.decoder.shape import DecoderShape, shape_of
from fate_gym.lab.provenance import made_with
from fate_gym.lab.tables import print_table

MODELS = ("Llama-3.1-8B", "Qwen2.5-7B")
"""Default models, by catalogue name; constants are fitted on the first."""
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
_CPU_SCALE = 8.0
_SIZES = {"cpu": (1 << 26, 1 << 27, 1 << 28), "cuda": (1 << 27, 1 << 28, 1 << 29, 1 << 30)}
"""Bytes of loads and copies, by type of device."""


def calibrate(
    device: str,
    minutes: float,
    models: Sequence[str] | None,
    scale: float | None,
    name: str | None,
    like: str | None,
    output: Path,
) -> None:
    """Measure, fit, write and show.

    Raises:
        InputError: no PyTorch, no such device, too little memory, an unknown model or GPU, or an
            output path that is not allowed.
    """
    check_place(output)
    if not minutes > 0:
        raise InputError(f"--minutes {minutes:g} is not above 0", remedy="choose 5, for example")
    names = list(dict.fromkeys(models or MODELS))
    on = open_device(device)
    sheet = _sheet(on, name, like)
    shapes = shapes_that_fit(on, names, scale)
    tasks = plan(shapes, _SIZES[on.device.type], peers=on.has_peer)
    start = time.monotonic()
    with TorchMeasurer(on, shapes, output.resolve().parent) as measurer:
        measured = measure(
            tasks,
            measurer,
            seconds=60.0 * minutes,
            clock=time.monotonic,
            say=lambda line: print(line, flush=True),
        )
    gpu = fit_gpu(measured, shapes, sheet)
    rows = comparison(measured, shapes, gpu)
    table = errors(rows)
    command = ["fate-gym", "calibrate", "--device", device, "--minutes", f"{minutes:g}"]
    command += [word for one in models or () for word in ("--model", one)]
    command += [] if scale is None else ["--scale", f"{scale:g}"]
    command += [] if like is None else ["--like", like]
    made = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([*command, "--output", str(output)]),
        "device": on.name,
        "numbers": str(on.dtype).removeprefix("torch."),
        "torch": str(on.torch.__version__),
        "cuda": on.torch.version.cuda or on.torch.version.hip,
        "rounds": measured[0].rounds,
        "seconds": round(time.monotonic() - start),
        "shapes": {key: f"{shape.params / 1e6:.1f} M parameters" for key, shape in shapes.items()},
        **made_with(),
    }
    residuals = [dict(zip(table.columns, row, strict=True)) for row in table.to_numpy().tolist()]
    reference = write_entry(output, gpu, made=made, measured=_copies(measured), residuals=residuals)
    rows.to_csv(output.with_suffix(".csv"), index=False, lineterminator="\n")
    draw(rows, output.with_suffix(".png"), f"{on.name}: computed against measured")
    print_table(HEADS, error_rows(table), left=2, title="predicted against measured")
    print(f"gpu: {reference}\nfiles: {output}, {output.with_suffix('.csv')}, "
          f"{output.with_suffix('.png')}")  # fmt: skip


def shapes_that_fit(
    device: TorchDevice, names: Sequence[str], scale: float | None
) -> dict[str, DecoderShape]:
    """Choose the decoders to measure, by name of the model.

    Raises:
        InputError: a model is unknown or not a dense decoder, or even the smallest scale does not
            fit in memory.
    """
    if scale is not None and not scale >= 1:
        raise InputError(f"--scale {scale:g} is less than 1", remedy="choose 1 or more")
    known = [catalog.model(name) for name in names]
    for model in known:
        if model.experts or not model.kv_heads:
            raise InputError(
                f"{model.name} is {'a mixture' if model.experts else 'an encoder'}, and constants "
                "are measured on dense decoders",
                remedy="choose another --model, e.g. " + " or ".join(MODELS),
            )
    first = _CPU_SCALE if device.device.type == "cpu" else 1.0
    scales = [scale] if scale is not None else [one for one in _SCALES if one >= first]
    for one in scales:
        shapes = {model.name: shape_of(model, one) for model in known}
        needed = max(_needed(shape) for shape in shapes.values())
        try:
            device.require(needed, f"measuring at a scale of {one:g}", "choose a larger --scale")
        except InputError:
            if one == scales[-1]:
                raise
        else:
            return shapes
    raise AssertionError("the last scale fits or raises")


def _needed(shape: DecoderShape) -> float:
    """Bytes of memory needed: weights, KV, and the largest copy with its source."""
    kv = 4.0 * shape.layers * shape.kv_width * max(BATCHES) * max(CONTEXTS)
    scores = 4.0 * max(CONTEXTS) * max(shape.width, shape.intermediate) * 4
    return 4.0 * shape.params + kv + scores + 2.0 * max(map(max, _SIZES.values()))


def _sheet(device: TorchDevice, name: str | None, like: str | None) -> Sheet:
    found = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")
    memory = device.memory_bytes / GB
    if like is None:
        note = "not measured, a placeholder"
        return Sheet(name or found, memory, watts=1.0, usd_per_hour=0.0,
                     sources=(("watts", note), ("usd_per_hour", note),
                              ("tflops", "best rate seen, and 5 %"),
                              ("bandwidth_gb_s", "best rate seen, and 5 %")))  # fmt: skip
    gpu = catalog.gpu(like)
    return Sheet(
        name or found,
        memory,
        watts=gpu.watts,
        usd_per_hour=gpu.usd_per_hour,
        pcie=gpu.pcie,
        tflops=gpu.tflops,
        bandwidth_gb_s=gpu.bandwidth_gb_s,
        nvlink_gb_s=gpu.nvlink_gb_s,
        sources=(("data sheet", like),),
    )


def _copies(measured: Sequence[Measured]) -> Mapping[str, Any]:
    """Return the best GB/s, over sizes, of copies for which there is no constant."""
    rates: dict[str, list[float]] = {}
    for one in measured:
        if one.task.kind in ("disk", "to_host", "copy"):
            rates.setdefault(one.task.kind, []).append(one.task.bytes / one.seconds / GB)
    return {f"{kind}_gb_s": round(float(np.max(values)), 3) for kind, values in rates.items()}
