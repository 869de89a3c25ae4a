"""Reads the catalogue: facts as data files, each number beside its source."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from fate_gym.errors import InputError, near_matches

T = TypeVar("T")

GB = 1e9
"""Bytes in a gigabyte, decimal as in data sheets."""


class _Fact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gpu(_Fact):
    """A GPU type; throughput is dense 16-bit.

    ``mfu`` and ``mbu`` are the shares of peak FLOP/s and of memory bandwidth that an engine
    reaches in prefill and in decode.
    """

    name: str
    memory_gb: PositiveFloat
    bandwidth_gb_s: PositiveFloat
    tflops: PositiveFloat
    nvlink_gb_s: PositiveFloat | None = None
    pcie: int = Field(ge=3, le=5)
    watts: PositiveFloat
    usd_per_hour: NonNegativeFloat
    mfu: float = Field(gt=0, le=1)
    mbu: float = Field(gt=0, le=1)
    sources: dict[str, str] = {}


class Model(_Fact):
    """A served model (a quantised variant is a model of its own)."""

    name: str
    params_b: PositiveFloat
    active_b: PositiveFloat | None = None
    layers: NonNegativeInt
    hidden: NonNegativeInt
    kv_heads: NonNegativeInt
    head_dim: NonNegativeInt
    weight_gb: PositiveFloat
    experts: NonNegativeInt = 0
    experts_per_token: NonNegativeInt = 0
    sources: dict[str, str] = {}

    @property
    def active_params(self) -> float:
        """Parameters that one token uses (all of them unless the model is a mixture)."""
        return (self.active_b or self.params_b) * 1e9

    @property
    def weight_bytes(self) -> float:
        return float(round(self.weight_gb * GB))

    @property
    def kv_bytes_per_token(self) -> float:
        """2 (K and V) x layers x KV heads x head dimension x 2 bytes."""
        return 4.0 * self.layers * self.kv_heads * self.head_dim

    @property
    def expert_weight_share(self) -> float:
        """Share of the weights that lies in experts; 0 for a dense model.

        From total = shared + E x e and active = shared + k x e.
        """
        if self.experts <= self.experts_per_token:
            return 0.0
        total, active = self.params_b, self.active_b or self.params_b
        expert = (total - active) / (self.experts - self.experts_per_token)
        return self.experts * expert / total


class Execution(_Fact):
    """Constants of the cost model that belong to no single GPU or model; units in the names."""

    mfu_ramp_tokens: NonNegativeFloat
    prefill_launch_s: NonNegativeFloat
    decode_step_s: NonNegativeFloat
    load_init_s: NonNegativeFloat
    pcie3_gb_s: PositiveFloat
    pcie4_gb_s: PositiveFloat
    pcie5_gb_s: PositiveFloat
    nvlink_efficiency: float = Field(gt=0, le=1)
    pcie_peer_efficiency: float = Field(gt=0, le=1)
    peer_latency_s: NonNegativeFloat
    memory_utilisation: float = Field(gt=0, le=1)
    max_batch: int = Field(ge=1)
    gather_s: NonNegativeFloat

    def pcie_gb_s(self, generation: int) -> float:
        """Effective host-to-device bandwidth of a PCIe generation, GB/s."""
        return float(getattr(self, f"pcie{generation}_gb_s"))


def read_yaml(name: str) -> Any:
    """The parsed content of one catalogue file, e.g. ``"gpus.yaml"``."""
    return yaml.safe_load(files("fate_gym.catalog").joinpath(name).read_text(encoding="utf-8"))


@cache
def gpus() -> dict[str, Gpu]:
    """Every GPU of the catalogue by name."""
    return {name: Gpu(name=name, **row) for name, row in read_yaml("gpus.yaml")["gpus"].items()}


@cache
def models() -> dict[str, Model]:
    """Every model of the catalogue by name."""
    rows = read_yaml("models.yaml")["models"]
    return {name: Model(name=name, **row) for name, row in rows.items()}


@cache
def execution() -> Execution:
    """The constants of the cost model."""
    rows = read_yaml("execution.yaml")
    return Execution(**{name: row["value"] for name, row in rows.items()})


def gpu(name: str) -> Gpu:
    """One GPU; an unknown name is an `InputError` with near matches."""
    return _named(gpus(), name, "GPU")


def model(name: str) -> Model:
    """One model; an unknown name is an `InputError` with near matches."""
    return _named(models(), name, "model")


def _named(known: dict[str, T], name: str, kind: str) -> T:
    try:
        return known[name]
    except KeyError:
        raise InputError(f"unknown {kind} {name!r}", remedy=near_matches(name, known)) from None
