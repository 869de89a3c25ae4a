"""A hook of mkdocs: pages that are made from what the code says.

The command line, every key of a configuration, and catalogues of policies, suites, clusters and
experiments. They are written in memory, at each build.
"""

from __future__ import annotations

import ast
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import yaml
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

VERB = re.compile(r"^ {2,4}([a-z][a-z-]+)(?: {2,}|$)", flags=re.MULTILINE)
"""A verb in the help of the command, with whatever stands behind it."""
OPTION = "Options are written `NAME=VALUE`, those of a group `GROUP.NAME=VALUE`."


def on_files(found: Files, config: Any) -> Files:
    """Add the pages."""
    for path, text in pages().items():
        found.append(File.generated(config, path, content=text))
    return found


def pages() -> dict[str, str]:
    """By path, the text of each page."""
    return {
        "reference/cli.md": command_line(),
        "reference/configuration.md": configuration(),
        "catalogue/policies.md": policies(),
        "catalogue/suites.md": choices(
            "Suites", "suite", "Which problems are played: `fate-gym evaluate suite=NAME`."
        ),
        "catalogue/clusters.md": choices(
            "Clusters", "cluster", "The devices: `fate-gym evaluate suite=NAME cluster=NAME`."
        ),
        "catalogue/experiments.md": choices(
            "Experiments", "experiment", "Sweeps by name: `fate-gym evaluate experiment=NAME`."
        ),
    }


# --- the command line ----------------------------------------------------------------------------


def command_line() -> str:
    """The help of the command and of its verbs."""
    whole = _help([])
    verbs = [
        verb for verb in dict.fromkeys(VERB.findall(whole)) if verb not in ("evaluate", "train")
    ]
    lead = (
        "`fate-gym evaluate` and `fate-gym train` take "
        "[options of the configuration](configuration.md)."
    )
    parts = ["# Command line", lead, _code("text", whole)]
    for verb in verbs:
        parts += [f"## fate-gym {verb}", _code("text", _help([verb]))]
    return "\n\n".join(parts) + "\n"


def _help(words: Sequence[str]) -> str:
    from fate_gym.lab.cli import main

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "96"
    said = io.StringIO()
    try:
        with redirect_stdout(said), suppress(SystemExit):
            main([*words, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return said.getvalue().rstrip()


# --- the keys of a configuration -----------------------------------------------------------------


def configuration() -> str:
    """Every key, with type, default and meaning."""
    from fate_gym.lab.jobs.config import EvaluateConfig
    from fate_gym.lab.training.config import TrainConfig
    from fate_gym.workloads import ClusterSpec, SuiteSpec

    lead = (
        f"{OPTION} Files of `conf/` give them values; [suites](../catalogue/suites.md), "
        "[clusters](../catalogue/clusters.md), [policies](../catalogue/policies.md) and "
        "[experiments](../catalogue/experiments.md) are their names."
    )
    sources = (
        "Keys of `conf/suite/*.yaml`; on the command line `suite.KEY=VALUE`. Which there are "
        "depends on the `source`."
    )
    parts = [
        "# Configuration",
        lead,
        "## Evaluations",
        "Options of `fate-gym evaluate`.",
        _keys(EvaluateConfig, leave_out=("suite", "cluster", "policy")),
        "## Clusters",
        "Keys of `conf/cluster/*.yaml`; on the command line `cluster.KEY=VALUE`.",
        _keys(ClusterSpec),
        "## Suites",
        sources,
    ]
    for suite in _members(SuiteSpec):
        source = suite.model_fields["source"].annotation
        parts += [f"### {', '.join(get_args(source))}", _first_line(suite), _keys(suite)]
    parts += ["## Trainings", "Options of `fate-gym train`.", _keys(TrainConfig)]
    return "\n\n".join(parts) + "\n"


def _members(union: Any) -> list[type[BaseModel]]:
    """The classes of a union, which may be annotated."""
    if isinstance(union, type) and issubclass(union, BaseModel):
        return [union]
    return [one for inner in get_args(union) for one in _members(inner)]


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _keys(model: type[BaseModel], leave_out: Iterable[str] = ()) -> str:
    schema = model.model_json_schema()
    found = schema["properties"]
    kept = {name: one for name, one in found.items() if name not in set(leave_out)}
    rows = list(_rows(kept, schema.get("$defs", {}), set(schema.get("required", ())), ""))
    return _table(("key", "type", "default", "meaning"), rows)


def _rows(
    properties: Mapping[str, Any], known: Mapping[str, Any], required: set[str], prefix: str
) -> Iterator[tuple[str, str, str, str]]:
    """The keys of an object, with those of the objects inside."""
    for name, one in properties.items():
        inner = _inside(one, known)
        if inner is not None and len(prefix) < 40:
            needed = set(inner.get("required", ()))
            yield from _rows(inner["properties"], known, needed, f"{prefix}{name}.")
            continue
        default = "required" if name in required else f"`{_plain(one.get('default'))}`"
        kind, text = _kind(one, known), str(one.get("description", ""))
        yield f"`{prefix}{name}`", kind, default, text.replace("\n", " ")


def _inside(one: Mapping[str, Any], known: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The one object that a key holds; None if it holds something else, or one of several."""
    refs = [part["$ref"] for part in (one, *one.get("anyOf", ())) if "$ref" in part]
    if len(refs) != 1:
        return None
    found: Mapping[str, Any] = known[refs[0].rpartition("/")[2]]
    return found if found.get("properties") else None


def _kind(one: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if "$ref" in one:
        name = one["$ref"].rpartition("/")[2]
        return _kind(known[name], known) if "enum" in known[name] else name
    if "enum" in one:
        return " or ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    parts = one.get("anyOf") or one.get("oneOf")
    if parts:
        return " or ".join(dict.fromkeys(_kind(part, known) for part in parts))
    if one.get("type") == "array":
        return f"list of {_kind(one.get('items', {}), known)}"
    return {"object": "mapping", "null": "none", "string": "text"}.get(
        str(one.get("type", "any")), str(one.get("type", "any"))
    )


# --- catalogues ----------------------------------------------------------------------------------


def policies() -> str:
    """Every policy, by family."""
    from fate_gym.sim.groups import ALL, GROUPS
    from policies.registry import policy_specs

    specs = list(policy_specs().values())
    families = sorted({spec.family for spec in specs})
    lead = (
        f"{len(specs)} policies, by family: `fate-gym evaluate suite=NAME policy=NAME`. "
        "[How they compare](../results.md); [how to add one](../add-a-policy.md)."
    )
    parts = [
        "# Policies",
        lead,
        _table(
            ("policy", "family", "source"),
            [
                (f"[{spec.name}](#{spec.name})", spec.family, spec.source)
                for spec in sorted(specs, key=lambda one: (one.family, one.name))
            ],
        ),
        "What a policy *sees* beside the ready stages, enforced by tests:",
        _table(("group", "what it is"), [(name, text) for name, text in GROUPS.items()]),
    ]
    for family in families:
        parts.append(f"## Family: {family}")
        for spec in specs:
            if spec.family != family:
                continue
            sees = "everything" if ALL in spec.sees else ", ".join(spec.sees) or "requests only"
            text = [f"### {spec.name} {{#{spec.name}}}", _docstring(spec.target)]
            text += [f"Source: {spec.source}. Sees: {sees}. Code: `{spec.target}`."]
            if spec.params:
                text.append(_code("yaml", _yaml({"params": spec.params})))
            parts += text
    return "\n\n".join(part for part in parts if part) + "\n"


def _docstring(target: str) -> str:
    """The first paragraph of a class's docstring, without importing what it needs."""
    module, _, name = target.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    return ""


def choices(title: str, group: str, lead: str) -> str:
    """The files of a group of the configuration, each with what its first comment says."""
    entries = []
    for path in sorted(files("conf").joinpath(group).iterdir(), key=lambda one: one.name):
        if path.name.endswith(".yaml"):
            lines = path.read_text(encoding="utf-8").strip().splitlines()
            # Hydra's own comment, and then ours.
            comments = [line[1:].strip() for line in lines if line.startswith("#")]
            said = " ".join(line for line in comments if not line.startswith("@package"))
            body = "\n".join(line for line in lines if not line.startswith("#"))
            entries.append((path.name.removesuffix(".yaml"), said, body.strip()))
    index = [(f"[{name}](#{name})", said) for name, said, _ in entries]
    parts = [f"# {title}", lead, _table(("name", "what it is"), index)]
    for name, said, body in entries:
        parts += [f"## {name} {{#{name}}}", said, _code("yaml", body)]
    return "\n\n".join(part for part in parts if part) + "\n"


# --- text ----------------------------------------------------------------------------------------


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, sort_keys=False, default_flow_style=False, width=90)).strip()


def _plain(value: Any) -> str:
    """A default as it is written on a command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
