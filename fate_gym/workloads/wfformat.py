"""Workflows of users: WfFormat JSON 1.3, 1.4 and 1.5, and graphs in memory.

WfFormat (Coleman et al., FGCS 2022; https://github.com/wfcommons/wfformat) describes scientific
workflows: tasks, dependencies, files, seconds. LLM attributes come through the role mapping, as
for the packed topologies, or from a sidecar file that gives them for each task type.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import yaml
from pydantic import Field, NonNegativeFloat, ValidationError

from fate_gym.errors import InputError, near_matches
from fate_gym.problem import Edge, Stage, Workflow
from fate_gym.problem.workflow import Count, Frozen, Name, Tokens
from fate_gym.workloads.config import parse
from fate_gym.workloads.roles import assign_roles
from fate_gym.workloads.topology import Topology

VERSIONS = ("1.3", "1.4", "1.5")
MOST = 1e18
"""Largest number of bytes or seconds that is taken for real."""

_LONGEST_NAME = 512
_NUMBERING = re.compile(r"(?:[_-]?(?:ID)?\d+)+$")


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
    queries: Count = 1
    prefix_tokens: Tokens = Field(0, description="shared by all tasks of the type")
    prompt_tokens: Tokens = 0
    output_tokens: Tokens = 0
    inherited_tokens: Tokens = Field(0, description="taken over from each parent")
    tool_seconds: NonNegativeFloat | Literal["runtime"] | None = Field(
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


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises `InputError` if it cannot be read or is not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read the file ({error.strerror})", source=path, remedy="check the path"
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not valid JSON ({error})", source=path, remedy="check that the file is complete"
        ) from None


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
    # Multigraphs give a key besides; their repeated edges are told below.
    pairs = [(str(parent), str(child)) for parent, child, *_ in graph.edges]
    by_id = _by_id(tasks)
    for parent, child in pairs:
        if child not in by_id:
            raise _unknown(child, "edges", None, by_id)
        if parent in by_id[child].parents:
            raise InputError(
                f"the edge from {parent!r} stands twice", item=f"node {child!r}", field="edges",
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
    prefix = f"{tenant}/{topology.name}"
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
                    model=row.model,
                    queries=row.queries,
                    prefix_group=f"{prefix}/{kind}" if row.prefix_tokens else None,
                    prefix_tokens=row.prefix_tokens,
                    prompt_tokens=row.prompt_tokens,
                    output_tokens=row.output_tokens,
                    tool_seconds=seconds if row.tool_seconds == "runtime" else row.tool_seconds,
                )
            )
        except ValidationError as error:
            raise InputError(
                error.errors()[0]["msg"].removeprefix("Value error, "),
                field=f"types.{kind}",
                remedy="correct the attributes",
            ) from None
    ids = topology.task_ids
    edges = tuple(
        Edge(
            parent=ids[parent],
            child=ids[child],
            bytes=size,
            inherited_tokens=sidecar.types[topology.types[child]].inherited_tokens,
        )
        for (parent, child), size in zip(topology.edges.tolist(), instance.edge_bytes, strict=True)
    )
    return Workflow(
        id=workflow_id, stages=tuple(stages), edges=edges, tenant=tenant, family=topology.family
    )


def load_sidecar(path: str | Path) -> Sidecar:
    """Read a sidecar file. Raises `InputError`."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"cannot read the file ({error.strerror})", source=path, remedy="check the path"
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(
            f"not valid YAML ({' '.join(str(error).split())})", source=path,
            remedy="correct the file",
        ) from None  # fmt: skip
    return parse(data, Sidecar, source=path)


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
    top = _mapping(data, None, "the file")
    version = top.get("schemaVersion")
    if version not in VERSIONS:
        raise InputError(
            f"unknown schema version {_short(version)}",
            field="schemaVersion",
            remedy=f"this release reads {', '.join(VERSIONS)}",
        )
    workflow = _mapping(top.get("workflow"), None, "workflow")
    tasks = _split_layout(workflow) if version == "1.5" else _flat_layout(workflow, version)
    name = top.get("name")
    name = Path(source).stem if not isinstance(name, str) or not name else name
    return _order(tasks, _text(name, None, "name"))


def _flat_layout(workflow: Mapping[str, Any], version: str) -> list[_Task]:
    """1.3 and 1.4: everything about a task in one place; 1.4 has units in the names."""
    runtime, size = ("runtime", "size") if version == "1.3" else ("runtimeInSeconds", "sizeInBytes")
    tasks = []
    names: dict[str, list[str]] = {}
    for number, row in enumerate(_list(workflow.get("tasks"), None, "workflow.tasks")):
        task, row, name = _task(row, number)
        names.setdefault(name, []).append(task.id)
        task.seconds = _number(row.get(runtime, 0), task.item, runtime)
        for entry in _list(row.get("files", []), task.item, "files"):
            entry = _mapping(entry, task.item, "files")
            file = _text(entry.get("name", entry.get("id")), task.item, "files.name")
            link = entry.get("link")
            if link not in ("input", "output"):
                raise InputError(
                    f"file {file!r} is linked as {_short(link)}",
                    item=task.item,
                    field="files.link",
                    remedy="use input or output",
                )
            bytes_ = _number(entry.get(size, 0), task.item, f"files.{size}")
            (task.reads if link == "input" else task.writes)[file] = bytes_
        tasks.append(task)
    # Both versions occur with dependencies by name and by id.
    ids = {task.id for task in tasks}
    for task in tasks:
        for ends in (task.parents, task.children):
            for place, end in enumerate(ends):
                if end not in ids and len(names.get(end, ())) == 1:
                    ends[place] = names[end][0]
    return tasks


def _split_layout(workflow: Mapping[str, Any]) -> list[_Task]:
    """1.5: what the workflow is, apart from how it ran."""
    specification = _mapping(workflow.get("specification"), None, "workflow.specification")
    sizes: dict[str, float] = {}
    files = _list(specification.get("files", []), None, "workflow.specification.files")
    for entry in files:
        entry = _mapping(entry, None, "workflow.specification.files")
        file = _text(entry.get("id"), None, "workflow.specification.files.id")
        if file in sizes:
            raise InputError(
                f"duplicate file {file!r}",
                field="workflow.specification.files.id",
                remedy="make ids unique",
            )
        sizes[file] = _number(entry.get("sizeInBytes", 0), f"file {file!r}", "sizeInBytes")
    tasks = []
    for number, row in enumerate(
        _list(specification.get("tasks"), None, "workflow.specification.tasks")
    ):
        task, row, _ = _task(row, number)
        for key, into in (("inputFiles", task.reads), ("outputFiles", task.writes)):
            for file in _names(row.get(key, []), task.item, key):
                if file not in sizes:
                    raise _unknown(file, key, task.item, sizes, "file")
                into[file] = sizes[file]
        tasks.append(task)
    by_id = _by_id(tasks)
    execution = _mapping(workflow.get("execution", {}), None, "workflow.execution")
    ran: set[str] = set()
    for row in _list(execution.get("tasks", []), None, "workflow.execution.tasks"):
        row = _mapping(row, None, "workflow.execution.tasks")
        name = _text(row.get("id"), None, "workflow.execution.tasks.id")
        if name not in by_id:
            raise _unknown(name, "workflow.execution.tasks.id", None, by_id)
        if name in ran:
            raise InputError(
                f"task {name!r} ran twice",
                field="workflow.execution.tasks.id",
                remedy="keep one of the two",
            )
        ran.add(name)
        by_id[name].seconds = _number(
            row.get("runtimeInSeconds", 0), f"task {name!r}", "runtimeInSeconds"
        )
    return tasks


def _task(row: Any, number: int) -> tuple[_Task, Mapping[str, Any], str]:
    """A task without its files and seconds, its row, and its name."""
    row = _mapping(row, f"task #{number}", "task")
    name = row.get("name", row.get("id"))
    key = _text(row.get("id", name), f"task #{number}", "id" if "id" in row else "name")
    item = f"task {key!r}"
    name = _text(name, item, "name")
    kind = row.get("category")
    kind = _type_of(name) if kind is None else _text(kind, item, "category")
    task = _Task(key, kind, item)
    task.parents = _names(row.get("parents", []), item, "parents")
    task.children = _names(row.get("children", []), item, "children")
    return task, row, name


def _order(tasks: Sequence[_Task], name: str) -> WfInstance:
    """Tasks in topological order (Kahn 1962), ties in the order of the file."""
    if not tasks:
        raise InputError("there are no tasks", field="tasks", remedy="add tasks")
    by_id = _by_id(tasks)
    parents: dict[str, dict[str, None]] = {task.id: {} for task in tasks}
    children: dict[str, dict[str, None]] = {task.id: {} for task in tasks}
    for task in tasks:
        for key, ends in (("parents", task.parents), ("children", task.children)):
            for end in ends:
                if end not in by_id:
                    raise _unknown(end, key, task.item, by_id)
                above, below = (end, task.id) if key == "parents" else (task.id, end)
                parents[below][above] = None
                children[above][below] = None
    missing = {task: len(ends) for task, ends in parents.items()}
    order = [task.id for task in tasks if missing[task.id] == 0]
    for done in order:
        for child in children[done]:
            missing[child] -= 1
            if missing[child] == 0:
                order.append(child)
    if len(order) < len(tasks):
        behind = [task for task, left in missing.items() if left]
        raise InputError(
            "the dependencies form a cycle; tasks on or behind it: "
            + ", ".join(behind[:5])
            + (" …" if len(behind) > 5 else ""),
            item=f"task {behind[0]!r}",
            field="parents",
            remedy="remove a dependency of the cycle: a workflow is a DAG",
        )
    number = {task: place for place, task in enumerate(order)}
    edges = sorted(
        (number[child], number[parent]) for child, above in parents.items() for parent in above
    )
    array = np.array([(parent, child) for child, parent in edges], dtype=np.int32).reshape(-1, 2)
    array.flags.writeable = False
    ordered = [by_id[task] for task in order]
    topology = Topology(
        family=name, name=name, types=tuple(task.kind for task in ordered), edges=array,
        ids=tuple(order),
    )  # fmt: skip
    moved = tuple(
        sum(
            (size for file, size in ordered[parent].writes.items() if file in ordered[child].reads),
            0.0,
        )
        for child, parent in edges
    )
    return WfInstance(topology, moved, tuple(task.seconds for task in ordered))


def _by_id(tasks: Sequence[_Task]) -> dict[str, _Task]:
    by_id = {task.id: task for task in tasks}
    if len(by_id) < len(tasks):
        twice = next(
            name for name, count in Counter(task.id for task in tasks).items() if count > 1
        )
        raise InputError(
            "the id occurs twice", item=f"task {twice!r}", field="id", remedy="make ids unique"
        )
    return by_id


def _type_of(name: str) -> str:
    """A task's type from its name: ``sort_ID000012`` is a ``sort``."""
    return _NUMBERING.sub("", name) or name


def _mapping(value: Any, item: str | None, field: str) -> Mapping[str, Any]:
    if isinstance(value, dict):
        return value
    raise _wrong(value, item, field, "an object")


def _list(value: Any, item: str | None, field: str) -> list[Any]:
    if isinstance(value, list):
        return value
    raise _wrong(value, item, field, "a list")


def _names(value: Any, item: str, field: str) -> list[str]:
    names = [_text(name, item, field) for name in _list(value, item, field)]
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InputError(
            f"{twice!r} stands twice", item=item, field=field, remedy="keep one of the two"
        )
    return names


def _text(value: Any, item: str | None, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise _wrong(value, item, field, f"a text of 1 to {_LONGEST_NAME} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(ascii(value), item, field, "valid Unicode") from None
    return value


def _number(value: Any, item: str, field: str) -> float:
    """Finite, not negative, and of a size that can be meant; null counts as 0."""
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, item, field, "a number")
    if not (0 <= value <= MOST) or math.isnan(value):
        raise _wrong(value, item, field, f"a number from 0 to {MOST:g}")
    return float(value)


def _wrong(value: Any, item: str | None, field: str, wanted: str) -> InputError:
    if value is None:
        return InputError("is missing", item=item, field=field, remedy=f"give {wanted}")
    return InputError(f"is not {wanted} (got {_short(value)})", item=item, field=field,
                      remedy="correct the value")  # fmt: skip


def _unknown(
    name: str, field: str, item: str | None, known: Iterable[str], kind: str = "task"
) -> InputError:
    return InputError(
        f"unknown {kind} {name!r}", item=item, field=field, remedy=near_matches(name, known)
    )


def _short(value: Any) -> str:
    try:
        text = ascii(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return "a huge value"
    return text if len(text) <= 60 else text[:57] + "..."
