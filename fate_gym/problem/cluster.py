"""Devices, links and clusters: where stages run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from fate_gym import catalog
from fate_gym.catalog.limits import MOST_DEVICES, Rate, Seconds, Share
from fate_gym.errors import InputError
from fate_gym.problem.workflow import Frozen, Name

# Results store hashes of problems: a field at its default is left out, so hashes from before
# these fields existed stay valid.
Amount = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Degree = Annotated[int, Field(strict=True, ge=1, le=72)]
"""GPUs of a device, at most those of one NVLink domain today."""


def _is_absent(value: Any) -> bool:
    return value is None


class Serving(NamedTuple):
    """How devices execute, with every default filled in."""

    batching: bool
    prefill_first: bool
    token_budget: int
    max_sequences: int


class Execution(Frozen):
    """Execution settings that problem files and cluster files share."""

    execution: Literal["exclusive", "batching"] = Field(
        "exclusive",
        description="exclusive: a device runs one shard at a time; batching: it batches "
        "continuously, as serving engines do",
        exclude_if=lambda execution: execution == "exclusive",
    )
    prefill: Literal["chunked", "first"] | None = Field(
        None,
        description="of batching devices: chunks of prompts beside those who decode, or whole "
        "prompts before anybody decodes; None: chunked",
        exclude_if=_is_absent,
    )
    token_budget: Amount | None = Field(
        None,
        description="tokens of an iteration of a batching device; None: the catalogue's",
        exclude_if=_is_absent,
    )
    max_sequences: Amount | None = Field(
        None,
        description="queries that run on a batching device at once; None: the catalogue's "
        "max_batch",
        exclude_if=_is_absent,
    )

    @property
    def serving(self) -> Serving:
        """The same settings with every default filled in."""
        constants = catalog.execution()
        return Serving(
            batching=self.execution == "batching",
            prefill_first=self.prefill == "first",
            token_budget=self.token_budget or constants.token_budget,
            max_sequences=self.max_sequences or constants.max_batch,
        )

    def check_execution(self, item: str) -> None:
        """Raise an `InputError` if options contradict one another; ``item`` names their owner."""
        given = [
            name
            for name in ("prefill", "token_budget", "max_sequences")
            if getattr(self, name) is not None
        ]
        serving = self.serving
        if given and not serving.batching:
            raise InputError(
                f"{given[0]} is an option of batching devices, and these are exclusive",
                item=item,
                field=given[0],
                remedy=f"set execution to batching, or remove {' and '.join(given)}",
            )
        if serving.token_budget < serving.max_sequences:
            raise InputError(
                f"a token_budget of {serving.token_budget} is less than max_sequences, "
                f"{serving.max_sequences}",
                item=item,
                field="token_budget" if self.token_budget else "max_sequences",
                remedy="raise token_budget or lower max_sequences: each sequence that runs takes "
                "a token of every iteration",
            )


class Device(Frozen):
    """One GPU in one node, or several that work as one.

    Bandwidths that are not given follow from the GPU type and the cluster.

    ``gpu = None`` makes a device without memory or speed of its own: it can run only stages
    with ``seconds_on`` (classical scheduling instances).
    """

    id: Name
    gpu: Name | None = None
    node: Name = "node0"
    tensor_parallel: Degree = Field(
        1,
        description="GPUs that work as one device: that many times the memory, the rates and the "
        "price, and two all-reduces a layer",
        exclude_if=lambda count: count == 1,
    )
    load_gb_s: Rate | None = Field(None, description="host to device; default: PCIe of its GPUs")
    peer_gb_s: Rate | None = Field(
        None,
        description="between GPUs of the node, of this device and of others; default: NVLink, "
        "else PCIe peer to peer",
    )
    network_gb_s: Rate | None = Field(
        None, description="to other nodes; default: the cluster's network"
    )


class Link(Frozen):
    """Overrides the bandwidth and latency between two devices, both ways."""

    a: Name
    b: Name
    gb_s: Rate
    latency_s: Seconds = 0.0


class Cluster(Execution):
    """Devices and the network between their nodes. The defaults are 100 Gb/s RDMA."""

    id: Name
    devices: tuple[Device, ...] = Field(min_length=1, max_length=MOST_DEVICES)
    links: tuple[Link, ...] = ()
    network_gb_s: Rate = Field(11.0, description="between nodes, effective")
    network_latency_s: Seconds = 0.00003
    load_gb_s: Rate | None = Field(
        None, description="where weights are loaded from: None is host memory over PCIe"
    )
    load_init_s: Seconds | None = Field(
        None, description="start of an engine before weights stream; None: the catalogue's"
    )
    memory_utilisation: Share | None = Field(None, description="None: the catalogue's")
    gpus: tuple[catalog.Gpu, ...] = Field(
        (),
        description="GPUs of its own, e.g. of `fate-gym calibrate`, beside the catalogue's",
        # Results store hashes of problems: those of clusters without GPUs of their own stay valid.
        exclude_if=lambda gpus: not gpus,
    )
