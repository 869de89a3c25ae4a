"""Workflows of users: WfFormat JSON 1.3, 1.4 and 1.5, and graphs in memory.

WfFormat (Coleman et al., FGCS 2022; https://github.com/wfcommons/wfformat) describes scientific
workflows: tasks, dependencies, files, seconds. LLM attributes come through the role mapping, as
for the packed topologies, or from a sidecar file that gives them for each task type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field, ValidationError

from fate_gym.catalog.limits import (
    MOST_BYTES,
    MOST_CHARACTERS,
    MOST_SECONDS,
    Queries,
    Seconds,
    Tokens,
)
from fate_gym.errors import InputError, check_known, near_matches
from fate_gym.problem import Stage, Workflow
from fate_gym.problem.faults import first_repeated
from fate_gym.problem.io import read_bytes, read_json
from fate_gym.problem.workflow import Frozen, Name, topological_generations
from fate_gym.workloads.config import parse, parse_yaml
from fate_gym.workloads.roles import assign_roles, edges_of
from fate_gym.workloads.topology import Topology

VERSIONS = ("1.3", "1.4", "1.5")
_NUMBERING = re.compile(r"(?:\d+(?:DI)?[_-]?)+")
"""Of a name read backwards, from where it begins: what follows cannot make it try again."""


@dataclass(frozen=True, eq=False)
class WfInstance:
    """An imported workflow: its DAG, and what the file says about files and seconds.

    ``edge_bytes`` (edges,) are the files that a parent writes and its child reads; ``seconds``
    (tasks,) are 0 where the file gives none. Both are in the order of the topology.
    """

    topology: Topology
    edge_bytes: tuple[float, ...]
    seconds: tuple[float, ...]


class TaskAttributes(Frozen):
    """LLM attributes of one task type; a model or seconds of a tool."""

    model: Name | None = None
    queries: Queries = 1
    prefix_tokens: Tokens = Field(0, description="shared by all tasks of the type")
    prompt_tokens: Tokens = 0
    output_tokens: Tokens = 0
    inherited_tokens: Tokens = Field(0, description="taken over from each parent")
    tool_seconds: Seconds | Literal["runtime"] | None = Field(
        None, description="runtime: the seconds of the imported file"
    )


class Sidecar(Frozen):
    """What a sidecar file (YAML or JSON) says: attributes by task type."""

    types: dict[Name, TaskAttributes] = Field(min_length=1)


class GraphLike(Protocol):
    """What `topology_from_graph` needs of a graph, such as a ``networkx.DiGraph``."""

    @property
    def nodes(self) -> Mapping[Any, Mapping[str, Any]]: ...

    @property
    def edges(self) -> Iterable[tuple[Any, Any]]: ...


@dataclass
class _Task:
    """What the two layouts of the format have in common."""

    id: str
    kind: str
    item: str
    parents: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    reads: dict[str, float] = field(default_factory=dict)
    writes: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


def load_wfformat(path: str | Path) -> WfInstance:
    """Read and check a WfFormat file.

    Raises:
        InputError: naming the file, the task and the field at fault.
    """
    return parse_wfformat(read_json(path), source=path)


def parse_wfformat(data: Any, *, source: str | Path = "<workflow>") -> WfInstance:
    """A checked workflow from the parsed content of a WfFormat file.

    Raises:
        InputError: naming ``source``, the task and the field at fault.
    """
    try:
        return _instance(data, source)
    except InputError as error:
        raise error.at(source) from None


def topology_from_graph(
    graph: GraphLike, *, name: str = "graph", type_attribute: str = "type"
) -> Topology:
    """The topology of a graph in memory, such as a ``networkx.DiGraph``.

    Args:
        graph: ``nodes`` maps node to attributes, ``edges`` gives pairs.
        name: of the workflow; also its family.
        type_attribute: node attribute that holds the task type; without it the node's name, less
            trailing digits, is its type.

    Raises:
        InputError: for cycles, unknown or repeated ends, or a graph without nodes.
    """
    tasks = []
    for node, attributes in graph.nodes.items():
        key = _text(str(node), f"node {str(node)!a}", "name")
        kind = attributes.get(type_attribute)
        kind = _type_of(key) if kind is None else _text(str(kind), f"node {key!r}", type_attribute)
        tasks.append(_Task(key, kind, f"node {key!r}"))
    # Multigraphs give a key besides; their repeated edges are reported below.
    by_id = _by_id(tasks)
    for parent, child in ((str(parent), str(child)) for parent, child, *_ in graph.edges):
        check_known("unknown task", child, by_id, field="edges")
        if parent in by_id[child].parents:
            raise InputError(
                f"the edge from {parent!r} is listed twice", item=f"node {child!r}", field="edges",
                remedy="give each edge once",
            )  # fmt: skip
        by_id[child].parents.append(parent)
    return _order(tasks, name).topology


def apply_sidecar(
    instance: WfInstance, sidecar: Sidecar, *, workflow_id: str, tenant: str = "default"
) -> Workflow:
    """The workflow with the sidecar's attributes; edges carry the bytes of the file.

    Raises:
        InputError: for a task type without attributes, attributes of no task type, or attributes
            that do not make a stage.
    """
    topology = instance.topology
    used = set(topology.types)
    for name in sorted(used.symmetric_difference(sidecar.types)):
        missing = name in used
        raise InputError(
            f"no attributes for task type {name!r}" if missing else f"no task has type {name!r}",
            field=f"types.{name}",
            remedy="add them" if missing else near_matches(name, used),
        )
    prefix, children = f"{tenant}/{topology.name}", topology.edges[:, 1].tolist()
    stages = []
    for task, kind, seconds in zip(
        topology.task_ids, topology.types, instance.seconds, strict=True
    ):
        row = sidecar.types[kind]
        try:
            stages.append(
                Stage(
                    id=task,
                    label=kind,
                    prefix_group=f"{prefix}/{kind}" if row.prefix_tokens else None,
                    tool_seconds=seconds if row.tool_seconds == "runtime" else row.tool_seconds,
                    **row.model_dump(exclude={"inherited_tokens", "tool_seconds"}),
                )
            )
        except ValidationError as error:
            raise InputError(
                error.errors()[0]["msg"].removeprefix("Value error, "),
                field=f"types.{kind}",
                remedy="correct the attributes",
            ) from None
    return Workflow(
        id=workflow_id,
        stages=tuple(stages),
        edges=edges_of(
            topology,
            instance.edge_bytes,
            [sidecar.types[topology.types[child]].inherited_tokens for child in children],
        ),
        tenant=tenant,
        family=topology.family,
    )


def load_sidecar(path: str | Path) -> Sidecar:
    """Read a sidecar file. Raises `InputError`."""
    return parse(parse_yaml(read_bytes(path), path), Sidecar, source=path)


def import_workflow(
    instance: WfInstance, seed: int, *, roles: str | Path | None = None
) -> Workflow:
    """A workflow from an imported one: through the role mapping, or a sidecar file.

    Raises:
        InputError: naming the sidecar file and the field at fault, or for a negative seed.
    """
    if roles is None:
        return assign_roles(instance.topology, seed)
    sidecar = load_sidecar(roles)
    try:
        return apply_sidecar(instance, sidecar, workflow_id=instance.topology.name)
    except InputError as error:
        raise error.at(roles) from None


def _instance(data: Any, source: str | Path) -> WfInstance:
    top = _Object.of(data, None, "the file")
    version = top.values.get("schemaVersion")
    if version not in VERSIONS:
        raise InputError(
            f"unknown schema version {_short(version)}",
            field="schemaVersion",
            remedy=f"this release reads {', '.join(VERSIONS)}",
        )
    workflow = replace(top, path="").object("workflow")
    tasks = _split_layout(workflow) if version == "1.5" else _flat_layout(workflow, version)
    name = top.values.get("name")
    name = Path(source).stem if not isinstance(name, str) or not name else name
    return _order(tasks, _text(name, None, "name"))


def _flat_layout(workflow: _Object, version: str) -> list[_Task]:
    """1.3 and 1.4: everything about a task in one place; 1.4 has units in the names."""
    runtime, size = ("runtime", "size") if version == "1.3" else ("runtimeInSeconds", "sizeInBytes")
    tasks = []
    names: dict[str, list[str]] = {}
    for number, value in enumerate(workflow.entries("tasks")):
        task, row, name = _task(value, number)
        names.setdefault(name, []).append(task.id)
        task.seconds = row.number(runtime, MOST_SECONDS)
        for entry in row.objects("files", []):
            file = entry.text("name", "id")
            link = entry.values.get("link")
            if link not in ("input", "output"):
                raise InputError(
                    f"file {file!r} is linked as {_short(link)}",
                    item=task.item,
                    field="files.link",
                    remedy="use input or output",
                )
            (task.reads if link == "input" else task.writes)[file] = entry.number(size, MOST_BYTES)
        tasks.append(task)
    # Both versions occur with dependencies by name and by id.
    ids = {task.id for task in tasks}
    for task in tasks:
        for ends in (task.parents, task.children):
            for place, end in enumerate(ends):
                if end not in ids and len(names.get(end, ())) == 1:
                    ends[place] = names[end][0]
    return tasks


def _split_layout(workflow: _Object) -> list[_Task]:
    """1.5: what the workflow is, apart from how it ran."""
    specification = workflow.object("specification")
    sizes: dict[str, float] = {}
    for entry in specification.objects("files", []):
        file = entry.text("id")
        if file in sizes:
            raise InputError(
                f"duplicate file {file!r}", field=entry.at("id"), remedy="make ids unique"
            )
        sizes[file] = _Object(entry.values, f"file {file!r}").number("sizeInBytes", MOST_BYTES)
    tasks = []
    for number, value in enumerate(specification.entries("tasks")):
        task, row, _ = _task(value, number)
        for key, into in (("inputFiles", task.reads), ("outputFiles", task.writes)):
            for file in row.names(key):
                check_known("unknown file", file, sizes, item=task.item, field=key)
                into[file] = sizes[file]
        tasks.append(task)
    by_id = _by_id(tasks)
    ran: set[str] = set()
    for entry in workflow.object("execution", {}).objects("tasks", []):
        name = entry.text("id")
        check_known("unknown task", name, by_id, field=entry.at("id"))
        if name in ran:
            raise InputError(
                f"task {name!r} ran twice", field=entry.at("id"), remedy="keep one of the two"
            )
        ran.add(name)
        row = _Object(entry.values, f"task {name!r}")
        by_id[name].seconds = row.number("runtimeInSeconds", MOST_SECONDS)
    return tasks


def _task(value: Any, number: int) -> tuple[_Task, _Object, str]:
    """A task without its files and seconds, its row, and its name."""
    values = _Object.of(value, f"task #{number}", "task").values
    name = values.get("name", values.get("id"))
    key = _text(values.get("id", name), f"task #{number}", "id" if "id" in values else "name")
    row = _Object(values, f"task {key!r}")
    name = _text(name, row.item, "name")
    kind = _type_of(name) if values.get("category") is None else row.text("category")
    parents, children = row.names("parents"), row.names("children")
    return _Task(key, kind, f"task {key!r}", parents, children), row, name


def _order(tasks: Sequence[_Task], name: str) -> WfInstance:
    """Tasks in topological order (Kahn 1962), ties in the order of the file."""
    if not tasks:
        raise InputError("there are no tasks", field="tasks", remedy="add tasks")
    by_id = _by_id(tasks)
    edges: dict[tuple[str, str], None] = {}
    for task in tasks:
        for key, ends in (("parents", task.parents), ("children", task.children)):
            for end in ends:
                check_known("unknown task", end, by_id, item=task.item, field=key)
                edges[(end, task.id) if key == "parents" else (task.id, end)] = None
    order = [task for tasks in topological_generations(by_id, edges) for task in tasks]
    if len(order) < len(tasks):
        done = set(order)
        behind = [task for task in by_id if task not in done]
        raise InputError(
            "the dependencies form a cycle; tasks on or behind it: "
            + ", ".join(behind[:5])
            + (" …" if len(behind) > 5 else ""),
            item=f"task {behind[0]!r}",
            field="parents",
            remedy="remove a dependency of the cycle: a workflow is a DAG",
        )
    number = {task: place for place, task in enumerate(order)}
    ordered = [by_id[task] for task in order]
    topology = Topology.of(
        name,
        name,
        [task.kind for task in ordered],
        ((number[parent], number[child]) for parent, child in edges),
        ids=tuple(order),
    )
    moved = tuple(
        _moved(ordered[parent], ordered[child]) for parent, child in topology.edges.tolist()
    )
    return WfInstance(topology, moved, tuple(task.seconds for task in ordered))


def _moved(parent: _Task, child: _Task) -> float:
    """Bytes of the files that a task writes and another reads."""
    moved = sum((size for file, size in parent.writes.items() if file in child.reads), 0.0)
    if moved > MOST_BYTES:
        raise InputError(
            f"reads {moved:g} bytes of task {parent.id!r}, of {MOST_BYTES:g} at most",
            item=child.item,
            field="files",
            remedy="correct the sizes of the files",
        )
    return moved


def _by_id(tasks: Sequence[_Task]) -> dict[str, _Task]:
    twice = first_repeated(task.id for task in tasks)
    if twice is not None:
        raise InputError(
            "the id occurs twice", item=f"task {twice!r}", field="id", remedy="make ids unique"
        )
    return {task.id: task for task in tasks}


def _type_of(name: str) -> str:
    """A task's type from its name: ``sort_ID000012`` is a ``sort``."""
    numbering = _NUMBERING.match(name[::-1])
    return name[: -numbering.end()] or name if numbering else name


@dataclass(frozen=True)
class _Object:
    """An object of the file; what it refuses, it names by ``item`` and ``path``."""

    values: Mapping[Any, Any]
    item: str | None
    path: str = ""

    @classmethod
    def of(cls, value: Any, item: str | None, path: str) -> _Object:
        if isinstance(value, dict):
            return cls(value, item, path)
        raise _wrong(value, item, path, "an object")

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def object(self, key: str, default: Any = None) -> _Object:
        return self.of(self.values.get(key, default), self.item, self.at(key))

    def entries(self, key: str, default: Any = None) -> list[Any]:
        value = self.values.get(key, default)
        if isinstance(value, list):
            return value
        raise _wrong(value, self.item, self.at(key), "a list")

    def objects(self, key: str, default: Any = None) -> Iterator[_Object]:
        return (self.of(value, self.item, self.at(key)) for value in self.entries(key, default))

    def text(self, key: str, other: str | None = None) -> str:
        return _text(self.values.get(key, self.values.get(other)), self.item, self.at(key))

    def names(self, key: str) -> list[str]:
        names = [_text(name, self.item, self.at(key)) for name in self.entries(key, [])]
        twice = first_repeated(names)
        if twice is not None:
            raise InputError(
                f"{twice!r} is listed twice",
                item=self.item,
                field=self.at(key),
                remedy="keep one of the two",
            )
        return names

    def number(self, key: str, most: float) -> float:
        """From 0 to ``most``; null counts as 0."""
        value = self.values.get(key, 0)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong(value, self.item, self.at(key), "a number")
        if not 0 <= value <= most:
            raise _wrong(value, self.item, self.at(key), f"a number from 0 to {most:g}")
        return float(value)


def _text(value: Any, item: str | None, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_CHARACTERS:
        raise _wrong(value, item, field, f"a text of 1 to {MOST_CHARACTERS} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(ascii(value), item, field, "valid Unicode") from None
    return value


def _wrong(value: Any, item: str | None, field: str, wanted: str) -> InputError:
    if value is None:
        return InputError("is missing", item=item, field=field, remedy=f"give {wanted}")
    return InputError(f"is not {wanted} (got {_short(value)})", item=item, field=field,
                      remedy="correct the value")  # fmt: skip


def _short(value: Any) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return "a huge value"
    return text if len(text) <= 60 else text[:57] + "..."
