"""Graphs: in memory (networkx), node-link JSON, and adjacency lists."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from fate_gym.catalog.limits import MOST_SECONDS
from fate_gym.errors import InputError, check_known
from fate_gym.problem.faults import first_repeated
from fate_gym.workloads.formats.fields import Fields, checked_text, wrong
from fate_gym.workloads.formats.tasks import (
    Call,
    ImportedDag,
    Task,
    by_id_of,
    ordered,
    type_of,
)
from fate_gym.workloads.topology import Topology

_NAME = re.compile(r"[\w.@/+-]+")
"""A node of an adjacency list. Arrows, commas and brackets belong to other formats."""


class GraphLike(Protocol):
    """What `topology_from_graph` needs of a graph, such as a ``networkx.DiGraph``."""

    @property
    def nodes(self) -> Mapping[Any, Mapping[str, Any]]: ...

    @property
    def edges(self) -> Iterable[tuple[Any, Any]]: ...


def topology_from_graph(
    graph: GraphLike, *, name: str = "graph", type_attribute: str = "type"
) -> Topology:
    """Return the topology of a graph in memory, such as a ``networkx.DiGraph``.

    Args:
        graph: ``nodes`` maps node to attributes, ``edges`` gives pairs.
        name: name of the workflow; also its family.
        type_attribute: node attribute that holds the task type; a node without it gets its name,
            without trailing digits, as type.

    Raises:
        InputError: for cycles, unknown or repeated ends, or a graph without nodes.
    """
    tasks = []
    for node, attributes in graph.nodes.items():
        key = checked_text(str(node), f"node {str(node)!a}", "name")
        kind = attributes.get(type_attribute)
        kind = (
            type_of(key)
            if kind is None
            else checked_text(str(kind), f"node {key!r}", type_attribute)
        )
        tasks.append(Task(key, kind, f"node {key!r}"))
    # Edges of multigraphs have a key as well; their repeated edges are reported.
    _connect(tasks, ((str(parent), str(child)) for parent, child, *_ in graph.edges), "edges")
    return ordered(tasks, name).topology


def is_node_link(data: Any) -> bool:
    """Return whether JSON is a graph as networkx's ``node_link_data`` writes it."""
    return isinstance(data, dict) and "nodes" in data and ("links" in data or "edges" in data)


def read_node_link(data: Any, name: str) -> ImportedDag:
    """Return a DAG from node-link JSON; docs/workloads.md lists the fields of a node.

    Raises:
        InputError: naming the node or edge, and the field at fault.
    """
    top = Fields.of(data, None, "the file")
    if top.values.get("directed", True) is not True:
        raise InputError(
            "the graph is not directed", field="directed", remedy="export a networkx.DiGraph"
        )
    tasks = [_node(value, number) for number, value in enumerate(top.entries("nodes"))]
    key = "links" if "links" in top.values else "edges"
    pairs = []
    for number, value in enumerate(top.entries(key)):
        row = Fields.of(value, f"{key} #{number}", key)
        row = Fields(row.values, f"{key} #{number}")
        pairs.append((_node_id(row, "source"), _node_id(row, "target")))
    _connect(tasks, pairs, key)
    return ordered(tasks, name)


def is_adjacency_list(text: str) -> bool:
    """Return whether every line is names between blanks, as networkx's ``write_adjlist``."""
    rows = [row for _, row in _rows(text)]
    return any(len(row) > 1 for row in rows) and all(
        _NAME.fullmatch(name) for row in rows for name in row
    )


def read_adjacency_list(text: str, name: str) -> ImportedDag:
    """Return a DAG from lines with a node and its children; ``#`` begins a comment.

    Raises:
        InputError: naming the line at fault.
    """
    tasks: dict[str, Task] = {}
    listed: dict[str, str] = {}
    for item, (parent, *children) in _rows(text):
        for node in (parent, *children):
            key = checked_text(node, item, "node")
            tasks.setdefault(key, Task(key, type_of(key), f"node {key!a}"))
        if parent in listed:
            raise InputError(
                f"node {parent!a} has a line already ({listed[parent]})",
                item=item,
                field="node",
                remedy="put all children of a node into one line",
            )
        listed[parent] = item
        twice = first_repeated(children)
        if twice is not None:
            raise InputError(
                f"child {twice!a} is listed twice", item=item, field="node", remedy="keep one"
            )
        for child in children:
            tasks[child].parents.append(parent)
    return ordered(list(tasks.values()), name)


def _rows(text: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        names = line.partition("#")[0].split()
        if names:
            yield f"line {number}", names


def _node(value: Any, number: int) -> Task:
    row = Fields(Fields.of(value, f"node #{number}", "node").values, f"node #{number}")
    key = _node_id(row, "id")
    item = f"node {key!a}"
    row = Fields(row.values, item)
    kind = type_of(key) if row.values.get("type") is None else row.text("type")
    model = None if row.values.get("model") is None else row.text("model")
    call = Call(model, row.tokens("prompt_tokens"), row.tokens("output_tokens"))
    return Task(key, kind, item, seconds=row.number("runtime", MOST_SECONDS), call=call)


def _node_id(row: Fields, key: str) -> str:
    """Return the name of a node, which must be a text or a whole number."""
    value = row.values.get(key)
    if isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > 10**18:
            raise wrong(value, row.item, key, "a text or a whole number")
        return str(value)
    return checked_text(value, row.item, key)


def _connect(tasks: Sequence[Task], pairs: Iterable[tuple[str, str]], field: str) -> None:
    by_id = by_id_of(tasks)
    seen: set[tuple[str, str]] = set()
    for parent, child in pairs:
        for end in (parent, child):
            check_known("unknown task", end, by_id, field=field)
        if (parent, child) in seen:
            raise InputError(
                f"the edge from {parent!a} is listed twice", item=f"node {child!a}", field=field,
                remedy="give each edge once",
            )  # fmt: skip
        seen.add((parent, child))
        by_id[child].parents.append(parent)
