"""WfFormat JSON 1.3, 1.4 and 1.5.

WfFormat (Coleman et al., FGCS 2022; https://github.com/wfcommons/wfformat) describes scientific
workflows: tasks, dependencies, files, seconds.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from fate_gym.catalog.limits import MOST_BYTES, MOST_SECONDS
from fate_gym.errors import InputError, InputWarning, check_known
from fate_gym.problem.io import read_json
from fate_gym.workloads.formats.fields import Fields, checked_text, short
from fate_gym.workloads.formats.tasks import ImportedDag, Task, by_id_of, ordered, type_of

VERSIONS = ("1.3", "1.4", "1.5")


def is_wfformat(data: Any) -> bool:
    """Return whether JSON is a workflow in WfFormat."""
    return isinstance(data, dict) and ("workflow" in data or "schemaVersion" in data)


def load_wfformat(path: str | Path) -> ImportedDag:
    """Read and check a WfFormat file.

    Raises:
        InputError: naming the file, the task and the field at fault.
    """
    return parse_wfformat(read_json(path), source=path)


def parse_wfformat(data: Any, *, source: str | Path = "<workflow>") -> ImportedDag:
    """Return a checked workflow from the parsed content of a WfFormat file.

    Raises:
        InputError: naming ``source``, the task and the field at fault.
    """
    unknown: list[str] = []
    try:
        dag = _instance(data, source, unknown)
    except InputError as error:
        raise error.at(source) from None
    if unknown:
        named = ", ".join(unknown[:3]) + (", …" if len(unknown) > 3 else "")
        said = f"{source}: the size of {len(unknown)} files is negative, counted as 0: {named}"
        warnings.warn(said, InputWarning, stacklevel=2)
    return dag


def _instance(data: Any, source: str | Path, unknown: list[str]) -> ImportedDag:
    top = Fields.of(data, None, "the file")
    version = top.values.get("schemaVersion")
    if version not in VERSIONS:
        raise InputError(
            f"unknown schema version {short(version)}",
            field="schemaVersion",
            remedy=f"this release reads {', '.join(VERSIONS)}",
        )
    workflow = replace(top, path="").object("workflow")
    tasks = _layout(workflow, version, unknown)
    name = top.values.get("name")
    name = Path(source).stem if not isinstance(name, str) or not name else name
    return ordered(tasks, checked_text(name, None, "name"))


def _layout(workflow: Fields, version: str, unknown: list[str]) -> list[Task]:
    """Return the tasks; files of unknown size are added to ``unknown``."""
    if version == "1.5":
        return _split_layout(workflow, unknown)
    return _flat_layout(workflow, version, unknown)


def _bytes(entry: Fields, field: str, file: str, unknown: list[str]) -> float:
    """Return the size of a file. Published files have -1 where it was not known."""
    value = entry.values.get(field)
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        unknown.append(short(file))
        return 0.0
    return entry.number(field, MOST_BYTES)


def _flat_layout(workflow: Fields, version: str, unknown: list[str]) -> list[Task]:
    """Read 1.3 or 1.4: all data of a task in one place; 1.4 has units in the field names."""
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
                    f"file {file!r} is linked as {short(link)}",
                    item=task.item,
                    field="files.link",
                    remedy="use input or output",
                )
            files = task.reads if link == "input" else task.writes
            files[file] = _bytes(entry, size, file, unknown)
        tasks.append(task)
    # In both versions dependencies occur by name and by id.
    ids = {task.id for task in tasks}
    for task in tasks:
        for ends in (task.parents, task.children):
            for place, end in enumerate(ends):
                if end not in ids and len(names.get(end, ())) == 1:
                    ends[place] = names[end][0]
    return tasks


def _split_layout(workflow: Fields, unknown: list[str]) -> list[Task]:
    """Read 1.5, which separates the workflow's specification from its execution."""
    specification = workflow.object("specification")
    sizes: dict[str, float] = {}
    for entry in specification.objects("files", []):
        file = entry.text("id")
        if file in sizes:
            raise InputError(
                f"duplicate file {file!r}", field=entry.at("id"), remedy="make ids unique"
            )
        row = Fields(entry.values, f"file {file!r}")
        sizes[file] = _bytes(row, "sizeInBytes", file, unknown)
    tasks = []
    for number, value in enumerate(specification.entries("tasks")):
        task, row, _ = _task(value, number)
        for key, into in (("inputFiles", task.reads), ("outputFiles", task.writes)):
            for file in row.names(key):
                check_known("unknown file", file, sizes, item=task.item, field=key)
                into[file] = sizes[file]
        tasks.append(task)
    by_id = by_id_of(tasks)
    ran: set[str] = set()
    for entry in workflow.object("execution", {}).objects("tasks", []):
        name = entry.text("id")
        check_known("unknown task", name, by_id, field=entry.at("id"))
        if name in ran:
            raise InputError(
                f"task {name!r} ran twice", field=entry.at("id"), remedy="keep one of the two"
            )
        ran.add(name)
        row = Fields(entry.values, f"task {name!r}")
        by_id[name].seconds = row.number("runtimeInSeconds", MOST_SECONDS)
    return tasks


def _task(value: Any, number: int) -> tuple[Task, Fields, str]:
    """Return a task without its files and seconds, its row, and its name."""
    values = Fields.of(value, f"task #{number}", "task").values
    name = values.get("name", values.get("id"))
    key = checked_text(
        values.get("id", name), f"task #{number}", "id" if "id" in values else "name"
    )
    row = Fields(values, f"task {key!r}")
    name = checked_text(name, row.item, "name")
    kind = type_of(name) if values.get("category") is None else row.text("category")
    parents, children = row.names("parents"), row.names("children")
    return Task(key, kind, f"task {key!r}", parents, children), row, name
