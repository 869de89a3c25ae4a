"""Topologies of real scientific workflows from WfCommons, packed as package data.

Source: Coleman et al., "WfCommons: A framework for enabling scientific workflow research and
development", FGCS 2022; the microstructures that the PyPI package ``wfcommons`` 1.6 ships.
``scripts/pack_wfcommons.py`` makes the data file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from fate_gym.errors import check_known
from fate_gym.workloads.packed import pack_json, unpack_json
from fate_gym.workloads.topology import Topology

FORMAT = 1
DATA_FILE = "wfcommons.json.xz"


@cache
def topologies() -> tuple[Topology, ...]:
    """Return every packed topology, sorted by family, number of tasks and name."""
    return unpack(files("fate_gym.workloads").joinpath("data", DATA_FILE).read_bytes())


def families() -> tuple[str, ...]:
    """Return the names of the workflow families, sorted."""
    return tuple(sorted({topology.family for topology in topologies()}))


def topology(name: str) -> Topology:
    """Return a topology by name. Raises `InputError` with near matches for an unknown name."""
    known = {entry.name: entry for entry in topologies()}
    check_known("unknown instance", name, known)
    return known[name]


def pack(entries: Sequence[Topology]) -> bytes:
    """Return topologies as xz-compressed JSON; the same topologies give the same bytes.

    The children of successive edges are stored as differences from the edge before, the parents
    as differences from the parent before: in regular DAGs both are short repeating patterns.
    """
    graphs = []
    for entry in entries:
        names = sorted(set(entry.types))
        numbers = {name: number for number, name in enumerate(names)}
        graph: dict[str, Any] = {
            "family": entry.family,
            "name": entry.name,
            "types": names,
            "type_of": [numbers[name] for name in entry.types],
            "children": np.diff(entry.edges[:, 1], prepend=0).tolist(),
            "parents": np.diff(entry.edges[:, 0], prepend=0).tolist(),
        }
        if entry.duplicate_of is not None:
            graph["duplicate_of"] = entry.duplicate_of
        graphs.append(graph)
    return pack_json({"format": FORMAT, "graphs": graphs}, sort_keys=True)


def unpack(data: bytes) -> tuple[Topology, ...]:
    """Return the topologies packed by `pack`."""
    content = unpack_json(data, FORMAT, source=DATA_FILE, script="scripts/pack_wfcommons.py")
    return tuple(_topology(graph) for graph in content["graphs"])


def _topology(graph: Mapping[str, Any]) -> Topology:
    edges = np.stack([np.cumsum(graph["parents"]), np.cumsum(graph["children"])], axis=1)
    edges = edges.astype(np.int32)
    edges.flags.writeable = False
    return Topology(
        family=graph["family"],
        name=graph["name"],
        types=tuple(graph["types"][number] for number in graph["type_of"]),
        edges=edges,
        duplicate_of=graph.get("duplicate_of"),
    )
