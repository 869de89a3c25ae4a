"""The catalogue: facts in data files, each number with its source."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Self, TypeVar

import yaml
from pydantic import ConfigDict, Field, model_validator

from fate_gym.catalog.given import Given
from fate_gym.catalog.limits import (
    Amount,
    Billions,
    Gigabytes,
    PositiveAmount,
    Rate,
    Seconds,
    Share,
    Size,
)
from fate_gym.errors import check_known

T = TypeVar("T")

GB = 1e9
"""Bytes in a gigabyte, decimal as in data sheets."""


class _Fact(Given):
    model_config = ConfigDict(allow_inf_nan=False, str_max_length=10_000)


class Own(_Fact):
    """Constants that `fate-gym calibrate` measured for a GPU and its software; None: shared."""

    mfu_ramp_tokens: Amount | None = None
    linear_passes: Amount | None = None
    attention_passes: Amount | None = None
    linear_layer_s: Seconds | None = None
    attention_layer_s: Seconds | None = None
    prefill_launch_s: Seconds | None = None
    load_init_s: Seconds | None = None
    pcie_gb_s: Rate | None = Field(None, description="from and to pinned host memory")
    peer_gb_s: Rate | None = Field(None, description="between two of them in a node")

    @property
    def constants(self) -> dict[str, float]:
        """The constants that replace those of `Execution`, by name."""
        given = self.model_dump(exclude_none=True, exclude={"pcie_gb_s", "peer_gb_s"})
        return {name: float(value) for name, value in given.items()}


class Gpu(_Fact):
    """A GPU type; throughput is dense 16-bit.

    ``mfu`` and ``mbu`` are the shares of peak FLOP/s and of memory bandwidth that linear layers
    reach, ``attention_mfu`` and ``attention_mbu`` those of attention in prefill and in decode
    (None: the usual ratio to the linear layers'). ``fitted``: fitted to measured times.
    """

    name: str
    memory_gb: Gigabytes
    bandwidth_gb_s: Rate
    tflops: Rate
    nvlink_gb_s: Rate | None = None
    pcie: int = Field(ge=3, le=5)
    watts: PositiveAmount
    usd_per_hour: Amount
    mfu: Share
    mbu: Share
    attention_mfu: Share | None = None
    attention_mbu: Share | None = None
    fitted: bool = False
    own: Own | None = Field(
        None,
        description="measured on it, in place of what all GPUs share",
        # Hashes of problems with GPUs of their own stay valid.
        exclude_if=lambda own: own is None,
    )
    sources: dict[str, str] = Field({})

    def times(self, count: int) -> Gpu:
        """Return ``count`` of these GPUs as one: rates, memory, price and power; links stay."""
        names = ("memory_gb", "bandwidth_gb_s", "tflops", "watts", "usd_per_hour")
        return self.model_copy(update={name: count * getattr(self, name) for name in names})


class Model(_Fact):
    """A served model (a quantised variant is a model of its own).

    ``heads`` None: query heads x head dimension is the hidden size. ``vocab`` 0: embedding and
    output projection are absent or unknown; then every parameter counts for every token.
    """

    name: str
    params_b: Billions
    active_b: Billions | None = None
    layers: Size
    hidden: Size
    kv_heads: Size
    head_dim: Size
    heads: Size | None = None
    vocab: int = Field(0, ge=0, le=10**9)
    tied_embedding: bool = False
    weight_gb: Gigabytes
    experts: Size = 0
    experts_per_token: Size = 0
    max_context: Size | None = Field(
        None,
        description="tokens of prompt and output that it was made for; suites keep to it",
        # Hashes of problems with models of their own stay valid.
        exclude_if=lambda tokens: tokens is None,
    )
    sources: dict[str, str] = Field({})

    @property
    def active_params(self) -> float:
        """Parameters that one token uses (all of them unless the model is a mixture)."""
        return (self.active_b or self.params_b) * 1e9

    @property
    def head_params(self) -> float:
        """Parameters of the output projection: one product per generated token, none in prefill."""
        return float(self.vocab * self.hidden)

    @property
    def layer_params(self) -> float:
        """Parameters that multiply every token: neither embedding nor output projection."""
        return self.active_params - self.head_params * (1 if self.tied_embedding else 2)

    @property
    def attention_width(self) -> float:
        """Query heads x head dimension."""
        return float(self.hidden if self.heads is None else self.heads * self.head_dim)

    @property
    def weight_bytes(self) -> float:
        return float(round(self.weight_gb * GB))

    @property
    def read_bytes(self) -> float:
        """Weights that a step reads: all but an untied embedding, which is only looked up."""
        return self.weight_bytes - (0.0 if self.tied_embedding else 2.0 * self.head_params)

    @property
    def kv_width(self) -> float:
        """KV heads x head dimension."""
        return float(self.kv_heads * self.head_dim)

    @property
    def kv_bytes_per_token(self) -> float:
        """2 (K and V) x layers x KV heads x head dimension x 2 bytes."""
        return 4.0 * self.layers * self.kv_width

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

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        if self.layer_params <= 0 or self.read_bytes <= 0:
            raise ValueError("vocab x hidden must be less than the parameters and the weights")
        return self

    @model_validator(mode="after")
    def _active_are_some(self) -> Self:
        if self.active_b is not None and self.active_b > self.params_b:
            raise ValueError(
                f"active_b, {self.active_b:g}, is more than params_b, {self.params_b:g}"
            )
        return self


class Execution(_Fact):
    """Constants of the cost model that belong to no single GPU or model; units in the names."""

    mfu_ramp_tokens: Amount
    linear_passes: Amount
    attention_passes: Amount
    linear_layer_s: Seconds
    attention_layer_s: Seconds
    attention_mfu_ratio: PositiveAmount
    attention_mbu_ratio: PositiveAmount
    prefill_launch_s: Seconds
    load_init_s: Seconds
    pcie3_gb_s: Rate
    pcie4_gb_s: Rate
    pcie5_gb_s: Rate
    nvlink_efficiency: Share
    pcie_peer_efficiency: Share
    peer_latency_s: Seconds
    memory_utilisation: Share
    max_batch: int = Field(ge=1)
    token_budget: int = Field(ge=1)
    all_reduce_s: Seconds
    gather_s: Seconds

    def on(self, gpu: Gpu) -> Execution:
        """Return the constants on a GPU: measured ones replace the shared ones."""
        return self if gpu.own is None else self.model_copy(update=gpu.own.constants)

    def pcie_gb_s(self, gpu: Gpu) -> float:
        """Return the effective host-to-device bandwidth, GB/s; measured or by PCIe generation."""
        if gpu.own is not None and gpu.own.pcie_gb_s is not None:
            return gpu.own.pcie_gb_s
        return float(getattr(self, f"pcie{gpu.pcie}_gb_s"))

    def peer_gb_s(self, gpu: Gpu) -> float:
        """Return the effective bandwidth between two GPUs of a node, GB/s.

        Measured, else that of NVLink, else that of PCIe peer to peer.
        """
        if gpu.own is not None and gpu.own.peer_gb_s is not None:
            return gpu.own.peer_gb_s
        if gpu.nvlink_gb_s is not None:
            return self.nvlink_efficiency * gpu.nvlink_gb_s
        return self.pcie_peer_efficiency * self.pcie_gb_s(gpu)

    def reduce_gb_s(self, peer_gb_s: float, count: int) -> float:
        """Return the bandwidth of a ring all-reduce over ``count`` > 1 GPUs, in GB/s of operand.

        Each GPU sends and receives 2 (count - 1) / count times the operand (Patarasu and Yuan,
        JPDC 69(2), 2009).
        """
        return peer_gb_s * count / (2.0 * (count - 1))

    def attention_mfu(self, gpu: Gpu) -> float:
        """Return the share of the peak FLOP/s that attention reaches in prefill."""
        if gpu.attention_mfu is not None:
            return gpu.attention_mfu
        return min(1.0, self.attention_mfu_ratio * gpu.mfu)

    def attention_mbu(self, gpu: Gpu) -> float:
        """Return the share of the memory bandwidth that attention reaches in decode."""
        if gpu.attention_mbu is not None:
            return gpu.attention_mbu
        return min(1.0, self.attention_mbu_ratio * gpu.mbu)

    def layer_seconds(self, model: Model) -> float:
        """Return the fixed seconds of all layers of a model, per prefill or decode step."""
        return model.layers * (self.linear_layer_s + self.attention_layer_s)

    def traffic_bytes(self, model: Model) -> float:
        """Return the bytes per token moved between GEMMs in all layers, besides weights and KV."""
        between = self.linear_passes * model.hidden
        attention = self.attention_passes * 2 * (model.attention_width + model.kv_width)
        return 2.0 * model.layers * (between + attention)

    def all_reduces(self, model: Model) -> int:
        """Return the all-reduces per pass of a model spread over GPUs: two per layer."""
        return 2 * model.layers

    def all_reduce_bytes(self, model: Model) -> float:
        """Return the bytes per token in all of these all-reduces, at 16 bits."""
        return 2.0 * self.all_reduces(model) * model.hidden


def read_yaml(name: str) -> Any:
    """Return the parsed content of one catalogue file, e.g. ``"gpus.yaml"``."""
    text = files("fate_gym.catalog").joinpath(name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.CSafeLoader)  # every process reads these


@cache
def gpus() -> dict[str, Gpu]:
    """Return every GPU of the catalogue by name, with its efficiencies."""
    rows, rates = read_yaml("gpus.yaml")["gpus"], read_yaml("efficiency.yaml")["gpus"]
    return {name: Gpu(name=name, **row, **rates[name]) for name, row in rows.items()}


@cache
def models() -> dict[str, Model]:
    """Return every model of the catalogue by name."""
    rows = read_yaml("models.yaml")["models"]
    return {name: Model(name=name, **row) for name, row in rows.items()}


@cache
def execution() -> Execution:
    """Return the constants of the cost model."""
    rows = read_yaml("execution.yaml")
    given = {name: row["value"] for name, row in rows.items()}
    return Execution(**given, **read_yaml("efficiency.yaml")["shared"])


def gpu(name: str) -> Gpu:
    """Return one GPU. Raises `InputError` with near matches for an unknown name."""
    return _named(gpus(), name, "GPU")


def model(name: str) -> Model:
    """Return one model. Raises `InputError` with near matches for an unknown name."""
    return _named(models(), name, "model")


def _named(known: dict[str, T], name: str, kind: str) -> T:
    check_known(f"unknown {kind}", name, known)
    return known[name]
