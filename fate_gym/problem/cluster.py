"""Devices, links and clusters: where it can be done."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, PositiveFloat

from fate_gym.problem.workflow import Frozen, Name


class Device(Frozen):
    """One GPU in one node. Bandwidths left out follow from the GPU type and the cluster.

    ``gpu = None`` makes a device without memory or speed of its own: it can run only stages
    with ``seconds_on`` (classical scheduling instances).
    """

    id: Name
    gpu: Name | None = None
    node: Name = "node0"
    load_gb_s: PositiveFloat | None = Field(None, description="host to device; default: PCIe")
    peer_gb_s: PositiveFloat | None = Field(
        None, description="to devices of the same node; default: NVLink, else PCIe peer to peer"
    )
    network_gb_s: PositiveFloat | None = Field(
        None, description="to other nodes; default: the cluster's network"
    )


class Link(Frozen):
    """Overrides the bandwidth and latency between two devices, both ways."""

    a: Name
    b: Name
    gb_s: PositiveFloat
    latency_s: NonNegativeFloat = 0.0


class Cluster(Frozen):
    """Devices and the network between their nodes. The defaults are 100 Gb/s RDMA."""

    id: Name
    devices: tuple[Device, ...] = Field(min_length=1)
    links: tuple[Link, ...] = ()
    network_gb_s: PositiveFloat = Field(11.0, description="between nodes, effective")
    network_latency_s: NonNegativeFloat = 0.00003
    load_gb_s: PositiveFloat | None = Field(
        None, description="where weights are loaded from: None is host memory over PCIe"
    )
    load_init_s: NonNegativeFloat | None = Field(
        None, description="start of an engine before weights stream; None: the catalogue's"
    )
    memory_utilisation: float | None = Field(None, gt=0, le=1, description="None: the catalogue's")
