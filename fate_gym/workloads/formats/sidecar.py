"""Sidecars: LLM attributes by task type, and the workflows made from them and imported files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import yaml
from pydantic import Field, ValidationError, model_validator

from fate_gym import catalog
from fate_gym.catalog.limits import Queries, Seconds, Tokens
from fate_gym.errors import InputError, check_known
from fate_gym.problem import Stage, Workflow
from fate_gym.problem.io import read_bytes
from fate_gym.problem.workflow import Frozen, Name
from fate_gym.workloads.config import parse, parse_yaml
from fate_gym.workloads.formats.agent_traces import ImportedTraces
from fate_gym.workloads.formats.requests import ImportedRequests, Prompt, Request
from fate_gym.workloads.formats.tasks import Call, ImportedDag
from fate_gym.workloads.roles import assign_roles, edges_of
from fate_gym.workloads.sessions import SessionRules, session_workflows

Imported: TypeAlias = ImportedDag | ImportedRequests | ImportedTraces
"""The content of an imported file."""


class TaskAttributes(Frozen):
    """LLM attributes of one task type; a model, or the seconds of a tool."""

    model: Name | None = None
    queries: Queries = 1
    prefix_tokens: Tokens = Field(0, description="shared by all tasks of the type")
    prompt_tokens: Tokens = Field(0, description="where the imported file gives none")
    output_tokens: Tokens = Field(0, description="where the imported file gives none")
    inherited_tokens: Tokens = Field(0, description="taken over from each parent")
    tool_seconds: Seconds | Literal["runtime"] | None = Field(
        None, description="runtime: the seconds of the imported file"
    )


class Sidecar(Frozen):
    """The content of a sidecar file (YAML or JSON): attributes by task type."""

    types: dict[Name, TaskAttributes] = Field(default_factory=dict)
    default: TaskAttributes | None = Field(None, description="of the types that are not listed")

    @model_validator(mode="after")
    def _says_something(self) -> Sidecar:
        if not self.types and self.default is None:
            raise ValueError("needs types, a default or both")
        return self

    def rows(self, kinds: Iterable[str]) -> dict[str, TaskAttributes]:
        """Return the attributes of each type. Raises one `InputError` for all types without any."""
        rows = {kind: self.types.get(kind, self.default) for kind in kinds}
        missing = sorted(kind for kind, row in rows.items() if row is None)
        if missing:
            raise InputError(
                f"no attributes for task type{'s' * (len(missing) > 1)} {_listed(missing)}",
                field=f"types.{missing[0]}" if len(missing) == 1 else "types",
                remedy="add them, or an entry 'default' for all other types",
            )
        known = catalog.models()
        for kind, row in rows.items():
            if row is not None and row.model is not None:
                field = f"types.{kind}.model" if kind in self.types else "default.model"
                check_known("unknown model", row.model, known, field=field)
        return {kind: row for kind, row in rows.items() if row is not None}


def load_sidecar(path: str | Path) -> Sidecar:
    """Read a sidecar file. Raises `InputError`."""
    return parse(parse_yaml(read_bytes(path), path), Sidecar, source=path)


def import_workflows(
    found: Imported,
    seed: int,
    *,
    roles: str | Path | None = None,
    model: str | None = None,
    infer_prefixes: bool = True,
) -> tuple[Workflow, ...]:
    """Build the workflows of an imported file: one per DAG, request, or turn of a session.

    Args:
        found: the content that was read.
        seed: seed of the role mapping, for a DAG without tokens, sidecar and model.
        roles: path of a sidecar file.
        model: instead of a sidecar: the model of every task.
        infer_prefixes: whether prompts in traces without prefix information are assumed to continue
            earlier ones, see `fate_gym.workloads.prefix_tree.with_inferred_sharing`.

    Raises:
        InputError: naming the sidecar file and the field at fault; for types that have no model;
            or for a negative seed.
    """
    if roles is not None and model is not None:
        raise InputError(
            "both a model and a sidecar file are given",
            field="model",
            remedy="leave one out; a sidecar may have a 'default' entry",
        )
    if isinstance(found, ImportedTraces) and not infer_prefixes:
        found = replace(found, infer_prefixes=False)
    if roles is None:
        if model is not None:
            return _apply(found, _one_model(found, model))
        if isinstance(found, ImportedDag) and not any(call.given for call in found.calls):
            return (assign_roles(found.topology, seed),)
        return _apply(found, _own_models(found))
    sidecar = load_sidecar(roles)
    try:
        return _apply(found, sidecar)
    except InputError as error:
        raise error.at(roles) from None


def import_workflow(
    dag: ImportedDag, seed: int, *, roles: str | Path | None = None, model: str | None = None
) -> Workflow:
    """Build the workflow of an imported DAG; see `import_workflows`. Raises `InputError`."""
    return import_workflows(dag, seed, roles=roles, model=model)[0]


def problem_id(found: Imported, workflows: Sequence[Workflow]) -> str:
    """Return the name of the problem made from the workflows of a file."""
    return workflows[0].id if isinstance(found, ImportedDag) else found.name


def apply_sidecar(
    dag: ImportedDag, sidecar: Sidecar, *, workflow_id: str, tenant: str = "default"
) -> Workflow:
    """Return the workflow with the sidecar's attributes; edges carry the bytes of the file.

    Raises:
        InputError: for task types without attributes, or attributes that do not make a stage.
    """
    topology = dag.topology
    rows = sidecar.rows(topology.type_names)
    children = topology.edges[:, 1].tolist()
    tasks = zip(topology.task_ids, topology.types, dag.seconds, dag.calls, strict=True)
    application = f"{tenant}/{topology.name}"
    return Workflow(
        id=workflow_id,
        stages=tuple(
            _Task(task, kind, seconds, call).stage(rows[kind], application)
            for task, kind, seconds, call in tasks
        ),
        edges=edges_of(
            topology,
            dag.edge_bytes,
            [rows[topology.types[child]].inherited_tokens for child in children],
        ),
        tenant=tenant,
        family=topology.family,
    )


def template(found: Imported) -> str:
    """Return a sidecar file with the types of an imported file, to be filled in."""
    facts = list(_facts(found))
    row: dict[str, object] = {"model": "Llama-3.1-8B"}
    if not all(call.prompt_tokens is not None for _, call, _ in facts):
        row |= {"prompt_tokens": 1000, "output_tokens": 200}
    types = {kind: dict(row) for kind, _, _ in facts}
    return "# Attributes by task type: change models and tokens to yours.\n" + yaml.safe_dump(
        {"types": types}, sort_keys=False
    )


@dataclass(frozen=True)
class _Task:
    """A task or request about to become a stage."""

    id: str
    kind: str
    seconds: float
    call: Call
    shared: Prompt | None = None

    def stage(self, row: TaskAttributes, application: str) -> Stage:
        """Return the stage with the attributes of its type, and the tokens of the file."""
        values = row.model_dump(exclude={"inherited_tokens", "tool_seconds"})
        if self.call.given and row.model is None:
            raise self._wrong("the file gives a model call, and the type is a tool", "name a model")
        if self.call.prompt_tokens is not None and row.prefix_tokens:
            raise self._wrong(
                "prefix_tokens are given, and the file gives whole prompts", "leave them out"
            )
        for key in ("prompt_tokens", "output_tokens"):
            if getattr(self.call, key) is not None:
                values[key] = getattr(self.call, key)
        group = f"{application}/{self.kind}" if row.prefix_tokens else None
        if self.shared is not None:
            group = self.shared.group
            values["prefix_tokens"] = self.shared.tokens
            values["prompt_tokens"] -= self.shared.tokens
        try:
            return Stage(
                id=self.id,
                label=self.kind,
                prefix_group=group,
                tool_seconds=self.seconds if row.tool_seconds == "runtime" else row.tool_seconds,
                **values,
            )
        except ValidationError as error:
            fault = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise self._wrong(fault, "correct the attributes") from None

    def _wrong(self, fault: str, remedy: str) -> InputError:
        return InputError(
            fault, item=f"task {self.id!r}", field=f"types.{self.kind}", remedy=remedy
        )


def _apply(found: Imported, sidecar: Sidecar) -> tuple[Workflow, ...]:
    if isinstance(found, ImportedDag):
        return (apply_sidecar(found, sidecar, workflow_id=found.topology.name),)
    rows = sidecar.rows({kind: None for kind, _, _ in _facts(found)})
    if isinstance(found, ImportedTraces):
        return _of_traces(found, rows)
    return tuple(_of_request(request, rows[request.kind], found.name) for request in found.requests)


def _of_traces(found: ImportedTraces, rows: dict[str, TaskAttributes]) -> tuple[Workflow, ...]:
    """Return the turns of all sessions. Traces provide everything except the catalogue's models."""
    models: dict[str, str] = {}
    for kind, row in rows.items():
        if row.model is None or row != TaskAttributes(model=row.model):
            raise InputError(
                "a trace needs a model, and gives everything else itself",
                field=f"types.{kind}",
                remedy="give the model alone",
            )
        models[kind] = row.model
    rules = SessionRules(
        lambda model, role: models[_kind(model, role)], infer_prefixes=found.infer_prefixes
    )
    return tuple(workflow for trace in found.traces for workflow in session_workflows(trace, rules))


def _of_request(request: Request, row: TaskAttributes, name: str) -> Workflow:
    shared = request.prompt
    stage = _Task("request", request.kind, 0.0, request.call, shared).stage(row, name)
    return Workflow(
        id=f"{name}/{request.number}",
        stages=(stage,),
        prefixes=() if shared is None else shared.branches,
        arrival=request.arrival,
        session=request.session,
        family=name,
    )


def _one_model(found: Imported, model: str) -> Sidecar:
    """Return a sidecar with one model; if a file has tokens, types with only seconds are tools."""
    check_known("unknown model", model, catalog.models(), field="model")
    facts = list(_facts(found))
    tokens = any(call.given for _, call, _ in facts)
    tools = {kind for kind, call, seconds in facts if tokens and not call.given and seconds > 0}
    calls = {kind for kind, call, _ in facts if call.given}
    without = sorted(
        {
            kind
            for kind, call, _ in facts
            if call.prompt_tokens is None and kind not in tools - calls
        }
    )
    if without:
        raise InputError(
            f"the file gives no prompt tokens for task type{'s' * (len(without) > 1)} "
            f"{_listed(without)}, which a model alone does not make up for",
            field="model",
            remedy="give models and tokens by type (--roles FILE; --template FILE writes one), or "
            "leave the model out for those of the role mapping",
        )
    return Sidecar(
        types={kind: TaskAttributes(tool_seconds="runtime") for kind in tools - calls},
        default=TaskAttributes(model=model),
    )


def _own_models(found: Imported) -> Sidecar:
    """Return a sidecar with the models that the file names; types with only seconds are tools."""
    models: dict[str, set[str | None]] = {}
    tools: dict[str, bool] = {}
    for kind, call, seconds in _facts(found):
        models.setdefault(kind, set()).add(call.model)
        tools[kind] = tools.get(kind, True) and not call.given and seconds > 0
    mixed = sorted(kind for kind, names in models.items() if len(names) > 1)
    if mixed:
        raise InputError(
            f"the tasks of one type name several models, or none: {_listed(mixed)}",
            field="type",
            remedy="give tasks of different models different types",
        )
    own = {kind: next(iter(names)) for kind, names in models.items() if not tools[kind]}
    known = catalog.models()
    unknown = sorted(kind for kind, model in own.items() if model not in known)
    if unknown:
        raise InputError(
            f"the file gives tokens, but no model of the catalogue, for task type"
            f"{'s' * (len(unknown) > 1)} {_listed(unknown)}",
            field="model",
            remedy="say which: --model NAME (suite.model=NAME) for all, or --roles FILE "
            "(suite.roles=FILE) by type; fate-gym import FILE --template FILE writes one",
        )
    return Sidecar(
        types={
            kind: TaskAttributes(tool_seconds="runtime")
            if tools[kind]
            else TaskAttributes(model=own[kind])
            for kind in models
        }
    )


def _facts(found: Imported) -> Iterable[tuple[str, Call, float]]:
    """Yield type, call and seconds of each task or request."""
    if isinstance(found, ImportedDag):
        return zip(found.topology.types, found.calls, found.seconds, strict=True)
    if isinstance(found, ImportedTraces):
        return (
            (_kind(call.model, call.role), Call(call.model, call.prompt, call.output), 0.0)
            for trace in found.traces
            for call in trace.calls
            if call.is_llm
        )
    return ((request.kind, request.call, 0.0) for request in found.requests)


def _kind(model: str | None, role: str | None) -> str:
    """Return the type of a call in a sidecar: the source's name of the model, else the role."""
    return model or role or "call"


def _listed(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(ascii(name) for name in names[:most]) + more
