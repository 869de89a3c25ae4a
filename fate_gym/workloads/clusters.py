"""Clusters as groups of nodes, expanded to devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from fate_gym import catalog
from fate_gym.catalog import Gpu
from fate_gym.catalog.limits import MOST_DEVICES, Devices, Rate, Seconds, Share
from fate_gym.errors import InputError, check_known
from fate_gym.problem import Cluster, Device, Problem
from fate_gym.problem.cluster import Degree, Execution
from fate_gym.problem.io import read_bytes, read_json
from fate_gym.problem.problem import problem_from
from fate_gym.problem.workflow import Frozen, Name
from fate_gym.workloads.config import parse, parse_yaml, read_group
from fate_gym.workloads.gpu_file import SEPARATOR, read_gpu


class NodeSpec(Frozen):
    """One node, or ``count`` equal nodes: their GPUs, and their own bandwidths."""

    gpus: dict[Name, Devices] = Field(
        min_length=1,
        description="GPU type to number; a type is a name of the catalogue, or FILE.yaml#NAME of "
        "`fate-gym calibrate`, from the folder of this file",
    )
    count: Devices = 1
    tensor_parallel: Degree = Field(
        1, description="GPUs that work as one device: those of a type in groups of so many"
    )
    load_gb_s: Rate | None = Field(None, description="default: the cluster's")
    network_gb_s: Rate | None = Field(None, description="default: the cluster's")


class ClusterSpec(Execution):
    """The content of a file in the config group ``cluster``; units in the names."""

    name: Name
    nodes: Annotated[tuple[NodeSpec, ...], Field(min_length=1)]
    network_gb_s: Rate = Field(11.0, description="between nodes, effective")
    network_latency_s: Seconds = 0.00003
    load_gb_s: Rate | None = Field(None, description="None: host memory over PCIe")
    load_init_s: Seconds | None = Field(None, description="None: the catalogue's")
    memory_utilisation: Share | None = Field(
        None, description="share that weights and caches may use; None: the catalogue's"
    )


def build_cluster(spec: ClusterSpec, folder: Path | None = None) -> Cluster:
    """Build a cluster with one device per GPU, named by type and number, e.g. ``a10g-3``.

    With ``tensor_parallel`` there is one device per group of GPUs, named and numbered likewise.

    Args:
        spec: the groups of nodes.
        folder: folder from which GPU files are looked up; None: the current one.

    Raises:
        InputError: for an unknown GPU type, with near matches; for a missing or bad GPU file; for
            GPUs that do not make whole groups; for contradictory options of execution.
    """
    spec.check_execution(f"cluster {spec.name!r}")
    _check_size(spec)
    devices: list[Device] = []
    seen: Counter[str] = Counter()
    types = _gpu_types(spec, folder or Path())
    nodes = [node for node in spec.nodes for _ in range(node.count)]
    for number, node in enumerate(nodes):
        for written, count in node.gpus.items():
            own = types[written]
            gpu = written if own is None else own.name
            if count % node.tensor_parallel:
                raise InputError(
                    f"{count} {gpu} do not make groups of {node.tensor_parallel} equal GPUs",
                    item=f"cluster {spec.name!r}",
                    field="nodes.tensor_parallel",
                    remedy=f"give each type of the node a multiple of {node.tensor_parallel}, or "
                    "list the others as a node of their own",
                )
            for _ in range(count // node.tensor_parallel):
                devices.append(
                    Device(
                        id=f"{gpu.lower()}-{seen[gpu]}",
                        gpu=gpu,
                        node=f"node{number}",
                        tensor_parallel=node.tensor_parallel,
                        load_gb_s=node.load_gb_s,
                        network_gb_s=node.network_gb_s,
                    )
                )
                seen[gpu] += 1
    same = spec.model_dump(exclude={"name", "nodes"})
    measured = {own.name: own for own in types.values() if own is not None}
    return Cluster(id=spec.name, devices=tuple(devices), gpus=tuple(measured.values()), **same)


def _gpu_types(spec: ClusterSpec, folder: Path) -> dict[str, Gpu | None]:
    """Return the GPU types of a cluster by name as written; None: the catalogue's."""
    where: dict[str, Any] = {"item": f"cluster {spec.name!r}", "field": "nodes.gpus"}
    types: dict[str, Gpu | None] = {}
    called: dict[str, str] = {}
    for written in dict.fromkeys(gpu for node in spec.nodes for gpu in node.gpus):
        if SEPARATOR in written:
            own = read_gpu(written, folder)
            types[written], name = own, own.name
        else:
            check_known("unknown GPU", written, catalog.gpus(), **where)
            types[written], name = None, written
        if called.setdefault(name, written) != written:
            raise InputError(
                f"{called[name]!r} and {written!r} are two GPU types of one name",
                remedy="rename one in its file",
                **where,
            )
    return types


def _check_size(spec: ClusterSpec) -> None:
    gpus = sum(node.count * sum(node.gpus.values()) for node in spec.nodes)
    if gpus > MOST_DEVICES:
        raise InputError(
            f"{gpus:,} GPUs, of {MOST_DEVICES:,} at most",
            item=f"cluster {spec.name!r}",
            field="nodes",
            remedy="lower count or the numbers of gpus",
        )


def load_cluster(name: str, extra_dirs: Sequence[str | Path] = (), **changes: Any) -> Cluster:
    """Load the cluster of ``conf/cluster/NAME.yaml``.

    Args:
        name: name of the file.
        extra_dirs: directories that are searched first.
        changes: fields that replace the file's, e.g. ``execution="batching"``.

    Raises:
        InputError: for an unknown name (with near matches), a bad file or a bad change.
    """
    data, source = read_group("cluster", name, extra_dirs)
    folder = Path(source).parent
    spec = parse(data, ClusterSpec, source=source)
    if changes:
        source = "cluster"
        spec = parse(spec.model_dump() | changes, ClusterSpec, source=source)
    return _built(spec, source, folder)


def load_problem_file(path: str | Path) -> Problem:
    """Read and check a problem file, whose cluster may be a name (see `with_cluster`).

    Raises:
        InputError: naming the file, the stage and the field at fault.
    """
    return problem_from(with_cluster(read_json(path), path), path)


def with_cluster(data: Any, source: str | Path) -> Any:
    """Return a problem as plain data, with its cluster written out.

    The cluster may be a name in ``conf/cluster``, or the path of such a file, relative to the
    problem file; a device's GPU may be ``FILE.yaml#NAME``, relative to the problem file too.

    Raises:
        InputError: for a missing cluster (with near matches) or a bad one.
    """
    if isinstance(data, dict) and isinstance(data.get("cluster"), dict):
        return {**data, "cluster": _with_gpus(data["cluster"], Path(source).parent)}
    if not isinstance(data, dict) or not isinstance(data.get("cluster"), str):
        return data
    name = data["cluster"]
    path = Path(source).parent / name
    if name.endswith((".yaml", ".yml")):
        spec = parse(parse_yaml(read_bytes(path), path), ClusterSpec, source=path)
        cluster = _built(spec, path, path.parent)
    else:
        try:
            cluster = load_cluster(name)
        except InputError as error:
            raise InputError(
                error.fault, source=source, field="cluster", remedy=error.remedy
            ) from None
    return {**data, "cluster": cluster.model_dump(mode="json")}


def _with_gpus(cluster: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a cluster as plain data, including the GPUs that its devices name in files."""
    devices, own = cluster.get("devices"), cluster.get("gpus", [])
    if not isinstance(devices, list) or not isinstance(own, list):
        return cluster
    found: dict[str, Gpu] = {}
    written: list[Any] = []
    for device in devices:
        name = device.get("gpu") if isinstance(device, dict) else None
        if isinstance(name, str) and SEPARATOR in name:
            if name not in found:
                found[name] = read_gpu(name, folder)
            device = device | {"gpu": found[name].name}
        written.append(device)
    if not found:
        return cluster
    gpus = [gpu.model_dump(mode="json") for gpu in found.values()]
    return cluster | {"devices": written, "gpus": [*own, *gpus]}


def _built(spec: ClusterSpec, source: str | Path, folder: Path) -> Cluster:
    try:
        return build_cluster(spec, folder)
    except InputError as error:
        raise error.at(source) from None
