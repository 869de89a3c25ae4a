"""A problem: workflows on a cluster, checked as a whole before anything runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeFloat, ValidationError

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu, Model
from fate_gym.errors import InputError, near_matches
from fate_gym.problem.cluster import Cluster
from fate_gym.problem.faults import from_pydantic
from fate_gym.problem.workflow import Frozen, Stage, Workflow, topological_order

SCHEMA_VERSION = 1


class Options(Frozen):
    """Rules of execution that belong to the problem, not to a policy."""

    max_shards: int = Field(4, ge=1, le=16, description="devices that may share one stage")
    eager_transfers: bool = Field(
        False,
        description="outputs leave for the child's device when the parent ends, side by side "
        "and without contention (the model of classical DAG scheduling); otherwise they are "
        "fetched when the child's turn on its device comes",
    )
    uncertainty: NonNegativeFloat = Field(
        0.0, le=2.0, description="sigma of the lognormal noise on actual durations"
    )


class Problem(Frozen):
    """Everything that is fixed before time starts.

    ``gpus`` and ``models`` add to the catalogue, or replace entries of the same name, for this
    problem alone. Construct through `Problem.build`, `Problem.classical` or
    `fate_gym.problem.load_problem`: these raise `InputError`, with one clear message.
    """

    schema_version: int = SCHEMA_VERSION
    id: str = "problem"
    cluster: Cluster
    workflows: tuple[Workflow, ...] = Field(min_length=1)
    options: Options = Options()
    gpus: tuple[Gpu, ...] = ()
    models: tuple[Model, ...] = ()

    @classmethod
    def build(
        cls,
        cluster: Cluster,
        workflows: Iterable[Workflow],
        *,
        id: str = "problem",
        options: Options | None = None,
        gpus: Sequence[Gpu] = (),
        models: Sequence[Model] = (),
    ) -> Problem:
        """Put a problem together and check it as a whole.

        Raises:
            InputError: naming the workflow, the stage and the field at fault.
        """
        try:
            problem = cls(
                id=id,
                cluster=cluster,
                workflows=tuple(workflows),
                options=options or Options(),
                gpus=tuple(gpus),
                models=tuple(models),
            )
        except ValidationError as error:
            raise from_pydantic(error, None, id) from None
        check(problem)
        return problem

    @classmethod
    def classical(
        cls,
        seconds: Mapping[str, Mapping[str, float]],
        edges: Mapping[tuple[str, str], float],
        *,
        id: str = "classical",
        link_bytes_s: float | Mapping[tuple[str, str], float] = 1.0,
    ) -> Problem:
        """A classical instance: unrelated machines, given times, contention-free links.

        Args:
            seconds: seconds of each task on each device, ``{task: {device: seconds}}``.
            edges: bytes from parent to child, ``{(parent, child): bytes}``.
            id: name of the problem and of its one workflow.
            link_bytes_s: bandwidth of every link, or of each pair of devices. With the default
                of 1 byte/s the bytes of an edge are its seconds of communication.

        Raises:
            InputError: naming the stage and the field at fault.
        """
        names = list(dict.fromkeys(device for row in seconds.values() for device in row))
        pairs = link_bytes_s if isinstance(link_bytes_s, Mapping) else {}
        uniform = 1.0 if isinstance(link_bytes_s, Mapping) else link_bytes_s
        cluster = {
            "id": f"{id}-machines",
            "devices": [{"id": name, "node": name} for name in names],
            "links": [{"a": a, "b": b, "gb_s": rate / GB} for (a, b), rate in pairs.items()],
            "network_gb_s": uniform / GB,
            "network_latency_s": 0.0,
        }
        workflow = {
            "id": id,
            "stages": [{"id": task, "seconds_on": dict(row)} for task, row in seconds.items()],
            "edges": [{"parent": a, "child": b, "bytes": size} for (a, b), size in edges.items()],
            "family": "classical",
        }
        options = Options(max_shards=1, eager_transfers=True)
        data = {"id": id, "cluster": cluster, "workflows": [workflow], "options": options}
        return problem_from(data, id)

    @cached_property
    def gpu_facts(self) -> dict[str, Gpu]:
        """The catalogue's GPUs with this problem's own on top, by name."""
        return catalog.gpus() | {gpu.name: gpu for gpu in self.gpus}

    @cached_property
    def model_facts(self) -> dict[str, Model]:
        """The catalogue's models with this problem's own on top, by name."""
        return catalog.models() | {model.name: model for model in self.models}

    @property
    def stage_count(self) -> int:
        return sum(len(workflow.stages) for workflow in self.workflows)

    @cached_property
    def memory_limits(self) -> dict[str, float]:
        """Bytes that weights and KV may take, by device id; 0 without a GPU."""
        share = self.cluster.memory_utilisation or catalog.execution().memory_utilisation
        return {
            device.id: self.gpu_facts[device.gpu].memory_gb * GB * share if device.gpu else 0.0
            for device in self.cluster.devices
        }

    def eligible_devices(self, workflow: Workflow, stage: Stage) -> list[str]:
        """The devices that can ever run a stage, in the order of the cluster.

        A model stage needs its weights and the working KV of one query in memory. A tool stage
        runs on the host: the list is empty.
        """
        if stage.kind == "tool":
            return []
        if stage.seconds_on is not None:
            hosts = [device.id for device in self.cluster.devices if device.id in stage.seconds_on]
        else:
            need = self._memory_of_one_query(workflow, stage)
            hosts = [name for name, limit in self.memory_limits.items() if need <= limit]
        if stage.allowed_devices is None:
            return hosts
        return [name for name in hosts if name in stage.allowed_devices]

    def _memory_of_one_query(self, workflow: Workflow, stage: Stage) -> float:
        assert stage.model is not None
        inherited = sum(edge.inherited_tokens for edge in workflow.parents[stage.id])
        context = stage.prefix_tokens + stage.prompt_tokens + inherited + stage.output_tokens
        model = self.model_facts[stage.model]
        return model.weight_bytes + context * model.kv_bytes_per_token


def problem_from(data: Any, source: str | Path) -> Problem:
    """A checked problem from plain data, as JSON gives it.

    Raises:
        InputError: naming ``source``, the stage and the field at fault.
    """
    try:
        if isinstance(data, dict):
            # First, since another version may have other fields.
            _check_version(data.get("schema_version", SCHEMA_VERSION))
        problem = Problem.model_validate(data)
        check(problem)
    except ValidationError as error:
        raise from_pydantic(error, data, source) from None
    except InputError as error:
        raise error.at(source) from None
    return problem


def check(problem: Problem) -> None:
    """Everything that one object cannot check by itself.

    Raises:
        InputError: the first fault found, naming workflow, stage and field.
    """
    _check_version(problem.schema_version)
    _unique((gpu.name for gpu in problem.gpus), "GPU", None, field="gpus")
    _unique((model.name for model in problem.models), "model", None, field="models")
    _check_cluster(problem)
    _unique((workflow.id for workflow in problem.workflows), "workflow", None)
    for workflow in problem.workflows:
        _check_graph(workflow)
        for stage in workflow.stages:
            _check_stage(problem, workflow, stage)


def _check_version(version: Any) -> None:
    if version != SCHEMA_VERSION:
        raise InputError(
            f"unknown schema version {repr(version)[:80]}",
            field="schema_version",
            remedy=f"this release reads version {SCHEMA_VERSION}",
        )


def _check_cluster(problem: Problem) -> None:
    cluster = problem.cluster
    item = f"cluster '{cluster.id}'"
    _unique((device.id for device in cluster.devices), "device", item)
    known = {device.id for device in cluster.devices}
    for device in cluster.devices:
        if device.gpu is not None and device.gpu not in problem.gpu_facts:
            raise InputError(
                f"unknown GPU {device.gpu!r}",
                item=f"{item}, device '{device.id}'",
                field="gpu",
                remedy=near_matches(device.gpu, problem.gpu_facts),
            )
    for link in cluster.links:
        for name in (link.a, link.b):
            if name not in known:
                raise InputError(
                    f"link to unknown device {name!r}",
                    item=item,
                    field="links",
                    remedy=near_matches(name, known),
                )
        if link.a == link.b:
            raise InputError(
                f"link from device {link.a!r} to itself",
                item=item,
                field="links",
                remedy="remove the link: nothing moves within a device",
            )
    pairs = Counter(frozenset((link.a, link.b)) for link in cluster.links)
    twice = next((pair for pair, count in pairs.items() if count > 1), None)
    if twice:
        raise InputError(
            f"two links between devices {' and '.join(map(repr, sorted(twice)))}",
            item=item,
            field="links",
            remedy="keep one: a link goes both ways",
        )


def _check_graph(workflow: Workflow) -> None:
    item = f"workflow '{workflow.id}'"
    _unique((stage.id for stage in workflow.stages), "stage", item)
    known = {stage.id for stage in workflow.stages}
    for edge in workflow.edges:
        for field in ("parent", "child"):
            name = getattr(edge, field)
            if name not in known:
                raise InputError(
                    f"edge {edge.parent!r} -> {edge.child!r} names unknown stage {name!r}",
                    item=item,
                    field=f"edges.{field}",
                    remedy=near_matches(name, known),
                )
    pairs = Counter((edge.parent, edge.child) for edge in workflow.edges)
    twice = next((pair for pair, count in pairs.items() if count > 1), None)
    if twice:
        raise InputError(
            f"edge {twice[0]!r} -> {twice[1]!r} stands twice",
            item=item,
            field="edges",
            remedy="merge the two into one edge with the sum of their bytes",
        )
    order = topological_order(workflow)
    if len(order) < len(workflow.stages):
        behind = sorted(known.difference(order))
        raise InputError(
            f"the edges form a cycle; stages on or behind it: {', '.join(behind[:5])}"
            + (" …" if len(behind) > 5 else ""),
            item=item,
            field="edges",
            remedy="remove an edge of the cycle: a workflow is a DAG",
        )


def _check_stage(problem: Problem, workflow: Workflow, stage: Stage) -> None:
    item = f"workflow '{workflow.id}', stage '{stage.id}'"
    if stage.model is not None and stage.model not in problem.model_facts:
        raise InputError(
            f"unknown model {stage.model!r}",
            item=item,
            field="model",
            remedy=near_matches(stage.model, problem.model_facts),
        )
    known = {device.id for device in problem.cluster.devices}
    for field in ("allowed_devices", "seconds_on"):
        for name in getattr(stage, field) or ():
            if name not in known:
                raise InputError(
                    f"unknown device {name!r}",
                    item=item,
                    field=field,
                    remedy=near_matches(name, known),
                )
    if stage.kind != "tool" and not problem.eligible_devices(workflow, stage):
        raise InputError(
            "no device can host the stage",
            item=item,
            field="model" if stage.allowed_devices is None else "allowed_devices",
            remedy="use a quantised variant, a shorter context, or a device with more memory",
        )


def _unique(names: Iterable[str], kind: str, item: str | None, *, field: str = "id") -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise InputError(
            f"duplicate {kind} {'id ' if field == 'id' else ''}{twice!r}",
            item=item,
            field=field,
            remedy="make ids unique" if field == "id" else "keep one of the two",
        )
