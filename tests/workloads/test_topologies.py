"""The packed WfCommons topologies: their content, which equals the published one."""

from __future__ import annotations

import os
import pickle
import random
from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fate_gym.errors import InputError
from fate_gym.workloads import Topology, families, topologies, topology
from fate_gym.workloads.suites import TEST_FAMILIES
from fate_gym.workloads.topology import structural_hash
from fate_gym.workloads.wfcommons import pack, unpack
from scripts.pack_wfcommons import mark_duplicates, read_graph, read_topologies

# Counted in the package wfcommons 1.6: graphs, fewest and most tasks, depths, least and most width.
COUNTS = {
    "1000genome": (22, 52, 902, {3}, 28, 572),
    "blast": (15, 43, 303, {3}, 40, 300),
    "bwa": (15, 104, 1004, {3}, 100, 1000),
    "cycles": (22, 67, 3273, {4}, 32, 1620),
    "epigenomics": (26, 41, 1695, {9}, 9, 420),
    "montage": (13, 58, 2122, {8}, 18, 1890),
    "seismology": (10, 101, 1101, {2}, 100, 1100),
    "soykb": (10, 96, 676, {11}, 50, 500),
    "srasearch": (25, 22, 104, {3, 4}, 11, 51),
}


def of_family(family: str) -> list[Topology]:
    return [entry for entry in topologies() if entry.family == family]


def as_networkx(entry: Topology) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from((task, {"type": kind}) for task, kind in enumerate(entry.types))
    graph.add_edges_from(entry.edges.tolist())
    return graph


def edge_kinds(graph: nx.DiGraph) -> Counter[object]:
    """Count edges by type, degrees and level of both ends: equal for isomorphic graphs."""
    level = {
        task: depth for depth, row in enumerate(nx.topological_generations(graph)) for task in row
    }
    end = {
        task: (graph.nodes[task]["type"], graph.in_degree(task), graph.out_degree(task), depth)
        for task, depth in level.items()
    }
    return Counter((end[parent], end[child]) for parent, child in graph.edges)


def published() -> Path | None:
    path = os.environ.get("FATE_GYM_WFCOMMONS")
    if path:
        return Path(path)
    spec = find_spec("wfcommons")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])


def test_families() -> None:
    assert families() == tuple(COUNTS)


@pytest.mark.parametrize("family", COUNTS)
def test_counts_of_a_family(family: str) -> None:
    found = of_family(family)
    widths = [entry.width for entry in found]
    assert COUNTS[family] == (
        len(found),
        min(map(len, found)),
        max(map(len, found)),
        {entry.depth for entry in found},
        min(widths),
        max(widths),
    )


def test_tasks_are_in_topological_order() -> None:
    for entry in topologies():
        assert (entry.edges[:, 0] < entry.edges[:, 1]).all(), entry.name
        assert entry.edges.min() >= 0 and entry.edges.max() < len(entry)
        assert len(np.unique(entry.edges, axis=0)) == len(entry.edges)


def test_depth_is_the_longest_path() -> None:
    for family in families():
        entry = of_family(family)[0]
        assert entry.depth == nx.dag_longest_path_length(as_networkx(entry)) + 1


def test_no_artificial_ends_and_no_single_tasks() -> None:
    for entry in topologies():
        assert not {"SRC", "DST"}.intersection(entry.types)
        assert (entry.fan_in + entry.fan_out > 0).all(), entry.name


def test_names_and_task_ids_are_unique() -> None:
    names = [entry.name for entry in topologies()]
    assert len(set(names)) == len(names)
    for entry in topologies()[::10]:
        assert len(set(entry.task_ids)) == len(entry)


def test_types_stay_with_their_family() -> None:
    owners: dict[str, set[str]] = {}
    for entry in topologies():
        for kind in entry.types:
            owners.setdefault(kind, set()).add(entry.family)
    assert all(len(owner) == 1 for kind, owner in owners.items() if kind != "cat")


def test_duplicates_are_isomorphic_and_the_rest_is_not() -> None:
    for family in ("blast", "montage", "srasearch"):
        small = [entry for entry in of_family(family) if len(entry) <= 103]
        by_name = {entry.name: entry for entry in small}
        same = nx.algorithms.isomorphism.categorical_node_match("type", None)
        for entry in small:
            if entry.duplicate_of is not None:
                first = by_name[entry.duplicate_of]
                assert first.duplicate_of is None
                assert nx.is_isomorphic(as_networkx(first), as_networkx(entry), node_match=same)
        kinds = [frozenset(edge_kinds(as_networkx(e)).items()) for e in small if not e.duplicate_of]
        assert len(set(kinds)) == len(kinds)


@given(st.sampled_from(["blast", "srasearch", "epigenomics", "soykb"]), st.integers(0, 10**6))
def test_structural_hash_does_not_see_numbers(family: str, seed: int) -> None:
    entry = of_family(family)[0]
    order = list(range(len(entry)))
    random.Random(seed).shuffle(order)
    types = [""] * len(entry)
    for task, kind in enumerate(entry.types):
        types[order[task]] = kind
    pairs = [(order[parent], order[child]) for parent, child in entry.edges.tolist()]
    straight = [(parent, child) for parent, child in entry.edges.tolist()]
    assert structural_hash(types, pairs) == structural_hash(entry.types, straight)
    assert structural_hash(types, pairs[:-1]) != structural_hash(entry.types, straight)


def test_structural_hash_sees_direction_and_types() -> None:
    chain = structural_hash("aab", [(0, 1), (1, 2)])
    assert chain != structural_hash("aab", [(1, 0), (1, 2)])
    assert chain != structural_hash("abb", [(0, 1), (1, 2)])


def test_pack_and_unpack() -> None:
    sample = topologies()[::20]
    data = pack(sample)
    assert data == pack(sample)
    for before, after in zip(sample, unpack(data), strict=True):
        assert (before.family, before.name, before.types, before.duplicate_of) == (
            after.family,
            after.name,
            after.types,
            after.duplicate_of,
        )
        assert np.array_equal(before.edges, after.edges)


def test_edges_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        topologies()[0].edges[0, 0] = 5


def test_unknown_name_has_near_matches() -> None:
    with pytest.raises(InputError, match="blast-chameleon-small-001"):
        topology("blast-chameleon-smal-001")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("pwned",)


def test_reading_a_graph_runs_nothing() -> None:
    with pytest.raises(pickle.UnpicklingError, match="no business"):
        read_graph(pickle.dumps(Harmful()))


def write_graphs(root: Path, graphs: Iterable[tuple[str, str, nx.DiGraph]]) -> None:
    for family, name, graph in graphs:
        folder = root / "wfchef" / "recipes" / family / "microstructures" / name
        folder.mkdir(parents=True)
        ends = nx.DiGraph(graph)
        for end in ("SRC", "DST"):
            ends.add_node(end, type=end)
        ends.add_edges_from(("SRC", task) for task in graph if not graph.in_degree(task))
        ends.add_edges_from((task, "DST") for task in graph if not graph.out_degree(task))
        (folder / "base_graph.pickle").write_bytes(pickle.dumps(ends))


def typed_chain(*types: str) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from((f"t{place}", {"type": kind}) for place, kind in enumerate(types))
    nx.add_path(graph, list(graph))
    return graph


def test_reading_leaves_out_graphs_without_edges_and_misplaced_ones(tmp_path: Path) -> None:
    loose = nx.DiGraph()
    loose.add_nodes_from(["x", "y"], type="loose")
    write_graphs(
        tmp_path,
        [
            ("genome", "g1", typed_chain("a", "b", "c")),
            ("genome", "g2", typed_chain("a", "b", "c", "c")),
            ("genome", "g3", typed_chain("a", "b", "c")),
            ("genome", "strangers", typed_chain("x", "y")),
            ("loose", "l1", loose),
        ],
    )
    found = mark_duplicates(read_topologies(tmp_path))
    assert [(entry.family, entry.name, entry.duplicate_of) for entry in found] == [
        ("1000genome", "g1", None),
        ("1000genome", "g3", "g1"),
        ("1000genome", "g2", None),
    ]
    assert found[0].types == ("a", "b", "c")
    assert found[0].edges.tolist() == [[0, 1], [1, 2]]


@pytest.mark.skipif(published() is None, reason="needs wfcommons 1.6 or FATE_GYM_WFCOMMONS")
def test_packed_graphs_are_the_published_ones() -> None:
    root = published()
    assert root is not None
    paths = {
        path.parent.name: path
        for path in sorted(root.glob("**/microstructures/*/base_graph.pickle"))
        if path.parent.name.startswith(path.parents[2].name) or path.parents[2].name == "genome"
    }
    left_out = {name for name in paths if name.startswith("rnaseq")}
    assert set(paths) - left_out == {entry.name for entry in topologies()}
    for entry in topologies():
        graph = pickle.loads(paths[entry.name].read_bytes())
        graph.remove_nodes_from(["SRC", "DST"])
        assert Counter(nx.get_node_attributes(graph, "type").values()) == Counter(entry.types)
        assert edge_kinds(graph) == edge_kinds(as_networkx(entry)), entry.name


def test_the_table_of_the_docs_is_right() -> None:
    text = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    stated = {row[0]: row[1:] for row in rows if row[0] in COUNTS and len(row) == 8}
    computed = {}
    for family in families():
        found = of_family(family)
        sizes, widths = [len(entry) for entry in found], [entry.width for entry in found]
        computed[family] = [
            "test" if family in TEST_FAMILIES else "train",
            str(len(found)),
            str(sum(entry.duplicate_of is None for entry in found)),
            f"{min(sizes)}–{max(sizes)}",
            "–".join(map(str, sorted({entry.depth for entry in found}))),
            f"{min(widths)}–{max(widths)}",
            str(max(len(set(entry.types)) for entry in found)),
        ]
    assert stated == computed
