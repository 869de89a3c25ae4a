"""The constants of the cost model, fitted and in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fate_gym import catalog
from fate_gym.catalog import GB
from fate_gym.files import write_text
from fate_gym.lab.cost_fit.measured import GPUS

CATALOGUE = Path(catalog.__file__).parent

UNSEEN = {"A40": {"bandwidth_gb_s": 696.0, "tflops": 149.7, "mfu": 0.5, "mbu": 0.75}}
"""GPUs measured but not in the catalogue: NVIDIA's data sheet, and start values of the type."""

_EFFICIENCIES = ("mfu", "mbu", "attention_mfu", "attention_mbu")


_SHARED = {
    "ramp_tokens": "mfu_ramp_tokens",
    "linear_passes": "linear_passes",
    "attention_passes": "attention_passes",
    "linear_s": "linear_layer_s",
    "attention_s": "attention_layer_s",
}


_HEADER = """\
# Efficiencies of the cost model: shares of peak FLOP/s (mfu) and of memory bandwidth (mbu) that
# linear layers and attention reach, and what all GPUs share (docs/execution-model.md). Written by
# `command`; the errors are in cost_errors.csv. `fitted: false`: not measured, start values of the
# type (end-to-end MFU as published, decode MBU .65 on HBM and .75 on GDDR); their attention
# follows from the ratios under `shared`.
# Sources: Vidur (MIT), aiconfigurator-core 0.12 (Apache-2.0); fate_gym/lab/cost_fit/measured.py.
"""


@dataclass(frozen=True)
class Rates:
    """Data sheet of a GPU (FLOP/s, bytes/s), and the fractions of it that are reached."""

    flops: float
    bytes_s: float
    mfu: float
    mbu: float
    attention_mfu: float
    attention_mbu: float


@dataclass(frozen=True)
class Constants:
    """All fitted constants. ``linear_s`` and ``attention_s`` are seconds per layer."""

    gpus: dict[str, Rates]
    ramp_tokens: float
    linear_passes: float
    attention_passes: float
    linear_s: float
    attention_s: float

    @property
    def layer_s(self) -> float:
        """Fixed seconds of one layer."""
        return self.linear_s + self.attention_s


def catalogue_constants() -> Constants:
    """Read the constants from the catalogue."""
    facts = catalog.execution()
    rates = {}
    for key, name in GPUS.items():
        if name in catalog.gpus():
            gpu = catalog.gpu(name)
            shares = (gpu.mfu, gpu.mbu, facts.attention_mfu(gpu), facts.attention_mbu(gpu))
            rates[key] = Rates(gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB, *shares)
    return Constants(rates, **{own: getattr(facts, name) for own, name in _SHARED.items()})


def execution_of(constants: Constants) -> catalog.Execution:
    """Return the catalogue's execution constants, with the fitted ones taken from ``constants``."""
    shared = {name: getattr(constants, own) for own, name in _SHARED.items()}
    return catalog.execution().model_copy(update=shared)


def rates_of(name: str, constants: Constants) -> Rates:
    """Return the rates of a GPU in the tables; without a fit, start values and no attention."""
    if name in constants.gpus:
        return constants.gpus[name]
    facts = UNSEEN[GPUS[name]]
    flops, bandwidth = facts["tflops"] * 1e12, facts["bandwidth_gb_s"] * GB
    return Rates(flops, bandwidth, facts["mfu"], facts["mbu"], 0.0, 0.0)


def write_efficiency(constants: Constants, folder: Path, command: str) -> None:
    """Write ``efficiency.yaml``; GPUs without a fit keep their values."""
    gpus = catalog.read_yaml("efficiency.yaml")["gpus"]
    for key, rates in constants.gpus.items():
        shares = {name: _digits(getattr(rates, name)) for name in _EFFICIENCIES}
        gpus[GPUS[key]] = {"fitted": True, **shares}
    shared = {name: getattr(constants, own) for own, name in _SHARED.items()}
    for kind in ("mfu", "mbu"):
        ratios = [
            getattr(r, f"attention_{kind}") / getattr(r, kind) for r in constants.gpus.values()
        ]
        shared[f"attention_{kind}_ratio"] = float(np.median(ratios))
    lines = [_HEADER + f"command: {command}", "shared:"]
    lines += [f"  {name}: {_digits(value)}" for name, value in shared.items()]
    lines += ["gpus:", *(f"  {name}: {_flow(row)}" for name, row in gpus.items())]
    write_text(folder / "efficiency.yaml", "\n".join(lines) + "\n")


def _flow(row: Mapping[str, Any]) -> str:
    values = ", ".join(f"{key}: {str(value).lower()}" for key, value in row.items())
    return f"{{{values}}}"


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
