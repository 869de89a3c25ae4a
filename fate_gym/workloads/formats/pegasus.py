"""Pegasus workflows: DAX (XML, up to 4.9) and YAML (5.0).

Formats: https://pegasus.isi.edu/documentation/. Jobs become tasks, with their name (transformation)
as type. As in Pegasus, a job that reads a file comes after the job that writes it, in addition to
the dependencies that are listed.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

from fate_gym.catalog.limits import MOST_BYTES, MOST_SECONDS
from fate_gym.errors import InputError, check_known
from fate_gym.workloads.formats.fields import (
    Fields,
    checked_number,
    checked_text,
    number_from_text,
    short,
)
from fate_gym.workloads.formats.tasks import ImportedDag, Task, by_id_of, ordered

_LINKS = {
    "input": (True, False),
    "output": (False, True),
    "inout": (True, True),
    "checkpoint": (False, False),
    "none": (False, False),
}
"""Whether a job reads and writes a file, by the kind of link."""


def is_dax(data: bytes) -> bool:
    """Return whether XML has an ``adag`` element near its beginning."""
    return b"<adag" in data[:20_000]


def read_dax(data: bytes, name: str) -> ImportedDag:
    """Return a DAG from a Pegasus DAX.

    Raises:
        InputError: naming the job (or element) and the attribute at fault.
    """
    root = _parse_xml(data)
    if _tag(root) != "adag":
        raise InputError(
            f"the root element is {short(_tag(root))}", field="adag", remedy="give a Pegasus DAX"
        )
    sizes: dict[str, float] = {}
    tasks: list[Task] = []
    for number, element in enumerate(root):
        tag = _tag(element)
        if tag in ("dax", "dag"):
            raise _sub_workflow(f"element {tag} #{number}")
        if tag == "file":
            file = checked_text(element.get("name"), f"element file #{number}", "name")
            _note_size(sizes, file, _xml_size(element, f"file {file!a}"))
        elif tag == "job":
            tasks.append(_xml_job(element, len(tasks), sizes))
    by_id = by_id_of(tasks)
    for element in root:
        if _tag(element) == "child":
            child = checked_text(element.get("ref"), "element child", "ref")
            check_known("unknown job", child, by_id, item="element child", field="ref")
            for inner in element:
                item = f"parents of {child!a}"
                if _tag(inner) == "parent":
                    parent = checked_text(inner.get("ref"), item, "ref")
                    check_known("unknown job", parent, by_id, item=item, field="ref")
                    by_id[child].parents.append(parent)
    return _connected(tasks, sizes, root.get("name") or name)


def is_pegasus_yaml(data: Any) -> bool:
    """Return whether YAML declares itself as Pegasus, or has a list of jobs."""
    return isinstance(data, dict) and ("pegasus" in data or "x-pegasus" in data or "jobs" in data)


def read_pegasus_yaml(data: Any, name: str) -> ImportedDag:
    """Return a DAG from a Pegasus 5 workflow.

    Raises:
        InputError: naming the job and the field at fault.
    """
    top = Fields.of(data, None, "the file")
    version = top.values.get("pegasus")
    if not str(version if isinstance(version, str | float | int) else "").startswith("5"):
        raise InputError(
            f"unknown version {short(version)}", field="pegasus", remedy="this release reads 5.0"
        )
    sizes: dict[str, float] = {}
    for entry in top.object("replicaCatalog", {}).objects("replicas", []):
        file = entry.text("lfn")
        _note_size(sizes, file, _yaml_size(Fields(entry.values, f"file {file!a}")))
    tasks = [
        _yaml_job(Fields.of(value, f"job #{number}", "jobs"), sizes)
        for number, value in enumerate(top.entries("jobs"))
    ]
    by_id = by_id_of(tasks)
    for entry in top.objects("jobDependencies", []):
        parent = entry.text("id")
        check_known("unknown job", parent, by_id, field=entry.at("id"))
        item = f"children of {parent!a}"
        for child in Fields(entry.values, item).names("children"):
            check_known("unknown job", child, by_id, item=item, field="children")
            by_id[child].parents.append(parent)
    title = top.values.get("name")
    return _connected(tasks, sizes, checked_text(title, None, "name") if title else name)


def _connected(tasks: list[Task], sizes: dict[str, float], name: str) -> ImportedDag:
    """Return the DAG with its file sizes; writers of a file come before those that only read it."""
    writers: dict[str, list[Task]] = {}
    for task in tasks:
        for files in (task.reads, task.writes):
            files.update((file, sizes.get(file, 0.0)) for file in files)
        for file in task.writes:
            writers.setdefault(file, []).append(task)
    for task in tasks:
        for file in task.reads:
            if file not in task.writes:
                task.parents += [writer.id for writer in writers.get(file, ())]
    return ordered(tasks, checked_text(name, None, "name"))


class _Builder(ET.TreeBuilder):
    """Rejects a document type, and with it entities, before any of it is read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InputError(
            "has a document type (DOCTYPE), which may define entities",
            remedy="remove it: a DAX needs none",
        )


def _parse_xml(data: bytes) -> ET.Element:
    try:
        return ET.fromstring(data, parser=ET.XMLParser(target=_Builder()))
    except InputError:
        raise
    except (ET.ParseError, ValueError, LookupError) as error:
        raise InputError(
            f"not valid XML ({error})", remedy="check that the file is complete"
        ) from None


def _tag(element: ET.Element) -> str:
    """Return the name of an element without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _xml_job(element: ET.Element, number: int, sizes: dict[str, float]) -> Task:
    key = checked_text(element.get("id"), f"job #{number}", "id")
    item = f"job {key!a}"
    task = Task(key, checked_text(element.get("name"), item, "name"), item)
    runtime = element.get("runtime") or _metadata(element, "time")
    for inner in element:
        if _tag(inner) == "profile" and inner.get("key") == "runtime" and inner.text:
            runtime = runtime or inner.text
        if _tag(inner) == "uses":
            file = checked_text(inner.get("name") or inner.get("file"), item, "uses.name")
            _use(task, file, inner.get("link", "none"), "uses.link")
            _note_size(sizes, file, _xml_size(inner, item))
    if runtime:
        task.seconds = number_from_text(runtime, item, "runtime", MOST_SECONDS)
    return task


def _xml_size(element: ET.Element, item: str) -> float:
    size = element.get("size") or _metadata(element, "size")
    return number_from_text(size, item, "size", MOST_BYTES) if size else 0.0


def _metadata(element: ET.Element, key: str) -> str | None:
    found = (e.text for e in element if _tag(e) == "metadata" and e.get("key") == key)
    return next(found, None)


def _yaml_job(row: Fields, sizes: dict[str, float]) -> Task:
    row = Fields(row.values, row.item)
    key = row.text("id", "nodeLabel")
    row = Fields(row.values, f"job {key!a}")
    if row.values.get("type", "job") != "job":
        raise _sub_workflow(f"job {key!a}")
    task = Task(key, row.text("name"), f"job {key!a}")
    for use in row.objects("uses", []):
        file = use.text("lfn")
        _use(task, file, use.values.get("type"), "uses.type")
        _note_size(sizes, file, _yaml_size(Fields(use.values, task.item, "uses")))
    pegasus = row.object("profiles", {}).object("pegasus", {})
    runtime = pegasus.values.get("runtime")
    if runtime is None:
        runtime = row.object("metadata", {}).values.get("time")
    task.seconds = _number(runtime, task.item, "runtime", MOST_SECONDS)
    return task


def _yaml_size(row: Fields) -> float:
    size = row.values.get("size")
    if size is None:
        size = row.object("metadata", {}).values.get("size")
    return _number(size, row.item, row.at("size"), MOST_BYTES)


def _number(value: Any, item: str | None, field: str, most: float) -> float:
    """Return a number, which may be given as text; 0 if there is none."""
    if value is None:
        return 0.0
    if isinstance(value, str):
        return number_from_text(value, item, field, most)
    return checked_number(value, item, field, most)


def _use(task: Task, file: str, link: Any, field: str) -> None:
    if not isinstance(link, str) or link not in _LINKS:
        raise InputError(
            f"file {file!a} is linked as {short(link)}",
            item=task.item,
            field=field,
            remedy=f"use one of {', '.join(_LINKS)}",
        )
    reads, writes = _LINKS[link]
    if reads:
        task.reads[file] = 0.0
    if writes:
        task.writes[file] = 0.0


def _note_size(sizes: dict[str, float], file: str, size: float) -> None:
    """Keep the largest size given for a file, as not every mention of it gives one."""
    sizes[file] = max(size, sizes.get(file, 0.0))


def _sub_workflow(item: str) -> InputError:
    return InputError(
        "is a workflow of its own",
        item=item,
        remedy="import the file of that workflow, and put a job in its place here",
    )
