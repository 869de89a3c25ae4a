"""Packs the workflow topologies of the PyPI package ``wfcommons`` into fate_gym's data file.

    python scripts/pack_wfcommons.py [PATH]

PATH is an unpacked source distribution (or any folder above ``wfchef/recipes``); by default the
installed package, which is not imported. Writes only ``fate_gym/workloads/data/wfcommons.json.xz``;
the same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fate_gym.errors import InputError
from fate_gym.workloads.topology import Topology, structural_hash
from fate_gym.workloads.wfcommons import DATA_FILE, pack

OUTPUT = Path(__file__).parents[1] / "fate_gym" / "workloads" / "data" / DATA_FILE
GRAPHS = "wfchef/recipes/*/microstructures/*/base_graph.pickle"
FAMILY_NAMES = {"genome": "1000genome"}
ENDS = {"SRC", "DST"}  # artificial source and sink of every graph


class Inert:
    """Stands in for a networkx class: holds the pickled state and has no behaviour."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        # Views are pickled as (attributes, slots); only the graph's dictionary is needed.
        if isinstance(state, Mapping):
            self.__dict__.update(state)


class GraphUnpickler(pickle.Unpickler):
    """Reads a pickled networkx graph without running anything that the file names.

    Every networkx graph or view class becomes `Inert`; of the builtins only ``dict`` is allowed;
    anything else is an error.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("networkx.classes."):
            return Inert
        if (module, name) == ("builtins", "dict"):
            return dict
        raise pickle.UnpicklingError(f"{module}.{name} has no business in a graph")


def read_graph(data: bytes) -> tuple[list[str], list[tuple[int, int]]]:
    """Read task types and (parent, child) pairs of a pickled graph, without SRC and DST.

    Tasks are numbered in topological order, ties in the order of the file (Kahn 1962).
    """
    state = vars(GraphUnpickler(io.BytesIO(data)).load())
    nodes: Mapping[str, Mapping[str, Any]] = state["_node"]
    children = {
        node: [child for child in state["_adj"][node] if child not in ENDS]
        for node in nodes
        if node not in ENDS
    }
    missing = Counter(child for row in children.values() for child in row)
    order = [node for node in children if not missing[node]]
    for node in order:
        for child in children[node]:
            missing[child] -= 1
            if not missing[child]:
                order.append(child)
    number = {node: place for place, node in enumerate(order)}
    pairs = [(number[node], number[child]) for node in order for child in children[node]]
    return [str(nodes[node]["type"]) for node in order], pairs


def read_topologies(root: Path) -> Iterator[Topology]:
    """Yield every graph under ``root`` that has edges and is filed under its own family."""
    found = sorted(root.glob(GRAPHS)) or sorted(root.glob(f"*/{GRAPHS}"))
    if not found:
        raise InputError(
            "no graphs of WfCommons found", source=root, remedy="give the unpacked distribution"
        )
    for folder in sorted({path.parents[2] for path in found}):
        graphs = [
            (path.parent.name, *read_graph(path.read_bytes()))
            for path in found
            if path.parents[2] == folder
        ]
        kinds = Counter(frozenset(types) for _, types, _ in graphs)
        usual = max(kinds, key=lambda kind: (kinds[kind], sorted(kind)))
        for name, types, pairs in graphs:
            misplaced = usual.isdisjoint(types)
            if pairs and not misplaced:
                edges = np.array(sorted(pairs, key=lambda pair: pair[::-1]), dtype=np.int32)
                family = FAMILY_NAMES.get(folder.name, folder.name)
                yield Topology(family, name, tuple(types), edges)


def mark_duplicates(entries: Iterable[Topology]) -> list[Topology]:
    """Sort topologies in packed order, and mark duplicates with the name of the first."""
    first: dict[tuple[str, str], str] = {}
    marked = []
    for entry in sorted(entries, key=lambda entry: (entry.family, len(entry), entry.name)):
        pairs = [(parent, child) for parent, child in entry.edges.tolist()]
        key = entry.family, structural_hash(entry.types, pairs)
        marked.append(replace(entry, duplicate_of=first.get(key)))
        first.setdefault(key, entry.name)
    return marked


def installed_package() -> Path:
    """The folder of the installed package, which need not be importable."""
    spec = find_spec("wfcommons")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "the package wfcommons is not installed", remedy="install wfcommons==1.6 or give a PATH"
        )
    return Path(spec.submodule_search_locations[0])


def main() -> None:
    """Pack the graphs under the path given on the command line."""
    parser = argparse.ArgumentParser(description="Pack the topologies of WfCommons.")
    parser.add_argument("path", nargs="?", type=Path, help="unpacked source distribution")
    path = parser.parse_args().path or installed_package()
    try:
        entries = mark_duplicates(read_topologies(path))
    except InputError as error:
        raise SystemExit(str(error)) from None
    data = pack(entries)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    OUTPUT.write_bytes(data)
    print(f"{OUTPUT}: {len(entries)} topologies, {len(data)} bytes")


if __name__ == "__main__":
    main()
