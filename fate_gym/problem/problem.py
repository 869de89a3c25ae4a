"""Problems: workflows on a cluster, checked as a whole before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, ValidationError, model_validator

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu, Model
from fate_gym.catalog.limits import MOST_FAILURES, MOST_TOKENS, PositiveSeconds, Seconds
from fate_gym.errors import InputError, check_known
from fate_gym.problem.cluster import Cluster
from fate_gym.problem.faults import first_repeated, from_pydantic
from fate_gym.problem.sessions import check_turns, prefix_branches
from fate_gym.problem.workflow import Frozen, Name, Stage, Workflow, topological_order

SCHEMA_VERSION = 1

MOST_CONTENDED_NODES = 62
"""The sending nodes of a transfer are bits of one integer."""


class Outage(Frozen):
    """A device that is down for ``seconds`` from ``at`` on."""

    device: Name
    at: Seconds
    seconds: PositiveSeconds


class Failures(Frozen):
    """Devices fail and are repaired: at random by the seed, or at given times.

    Random times are exponential and independent for each device. Policies know the mean time to
    repair (of given outages: their mean length), never the time of the next failure.
    """

    mtbf_s: PositiveSeconds | None = Field(None, description="mean time from repair to failure")
    mttr_s: PositiveSeconds | None = Field(None, description="mean time from failure to repair")
    most: int = Field(
        100,
        ge=1,
        le=MOST_FAILURES,
        description="failures of a device, where they are drawn: long stages have to end",
    )
    outages: tuple[Outage, ...] = Field((), description="in place of drawn failures")

    @model_validator(mode="after")
    def _one_way(self) -> Failures:
        drawn = self.mtbf_s is not None and self.mttr_s is not None
        if (self.mtbf_s is None) != (self.mttr_s is None) or drawn == bool(self.outages):
            raise ValueError("needs either mtbf_s and mttr_s, or outages")
        return self

    @property
    def mean_repair_s(self) -> float:
        """The time that policies expect a repair to take."""
        if self.mttr_s is not None:
            return self.mttr_s
        return sum(outage.seconds for outage in self.outages) / len(self.outages)


Objective = Literal["makespan", "latency", "slowdown", "p95", "deadlines"]
"""The quantity that planners minimise."""
USUAL_OBJECTIVE: Objective = "slowdown"


def is_usual(objective: Objective) -> bool:
    """Return whether the objective is the default, which is left out so that hashes stay valid."""
    return objective == USUAL_OBJECTIVE


class Options(Frozen):
    """Rules that belong to the problem, not to a policy."""

    max_shards: int = Field(4, ge=1, le=16, description="devices that may share one stage")
    eager_transfers: bool = Field(
        False,
        description="outputs leave for the child's device when the parent ends, side by side "
        "and without contention (the model of classical DAG scheduling); otherwise they are "
        "fetched when the child's turn on its device comes",
    )
    contention: bool = Field(
        False,
        description="transfers between nodes share the nodes' network interfaces: one at a time "
        "into each node, and one out of it; otherwise they run side by side",
        # Results store hashes of problems: those from before there was contention stay valid.
        exclude_if=lambda contention: not contention,
    )
    uncertainty: NonNegativeFloat = Field(
        0.0, le=2.0, description="sigma of the lognormal noise on actual durations"
    )
    length_uncertainty: NonNegativeFloat = Field(
        0.0, le=2.0, description="sigma of the lognormal factor on actual output tokens"
    )
    failures: Failures | None = None
    objective: Objective = Field(
        USUAL_OBJECTIVE,
        description="what planners minimise over the workflows: the last end (makespan), mean "
        "latency, mean slowdown (latency / critical path), the tail of latencies (p95), or mean "
        "lateness behind the deadlines; the same placements make the same schedule whatever it is",
        exclude_if=is_usual,
    )


class Problem(Frozen):
    """Everything that is fixed before a run starts.

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
        """Assemble a problem and check it as a whole.

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
        """Build a classical instance: unrelated machines, given times, contention-free links.

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
        """GPUs by name: the catalogue's, overridden by the cluster's and this problem's own."""
        return catalog.gpus() | {gpu.name: gpu for gpu in (*self.cluster.gpus, *self.gpus)}

    @cached_property
    def model_facts(self) -> dict[str, Model]:
        """Models by name: the catalogue's, overridden by this problem's own."""
        return catalog.models() | {model.name: model for model in self.models}

    @cached_property
    def device_facts(self) -> dict[str, Gpu]:
        """Each device as one equivalent GPU, by device id; devices without a GPU are left out."""
        return {
            device.id: self.gpu_facts[device.gpu].times(device.tensor_parallel)
            for device in self.cluster.devices
            if device.gpu is not None
        }

    @property
    def stage_count(self) -> int:
        return sum(len(workflow.stages) for workflow in self.workflows)

    @cached_property
    def memory_limits(self) -> dict[str, float]:
        """Bytes that weights and KV may take, by device id; 0 without a GPU."""
        share = self.cluster.memory_utilisation or catalog.execution().memory_utilisation
        return {
            device.id: self.device_facts[device.id].memory_gb * GB * share if device.gpu else 0.0
            for device in self.cluster.devices
        }

    def eligible_devices(self, workflow: Workflow, stage: Stage) -> list[str]:
        """Return the devices that can ever run a stage, in the order of the cluster.

        A model stage needs its weights and the working KV of one query in memory. A tool stage
        runs on the host: the list is empty.
        """
        if stage.kind == "tool":
            return []
        if stage.seconds_on is not None:
            hosts = [device.id for device in self.cluster.devices if device.id in stage.seconds_on]
        else:
            need = self.query_bytes(workflow, stage)
            hosts = [name for name, limit in self.memory_limits.items() if need <= limit]
        if stage.allowed_devices is None:
            return hosts
        return [name for name in hosts if name in stage.allowed_devices]

    def query_bytes(self, workflow: Workflow, stage: Stage) -> float:
        """Return the least bytes that a model stage needs: its weights and the KV of one query."""
        assert stage.model is not None
        model = self.model_facts[stage.model]
        context = query_tokens(workflow, stage)
        return model.weight_bytes + context * model.kv_bytes_per_token


def query_tokens(workflow: Workflow, stage: Stage) -> int:
    """Return the tokens of one query at full length: prompt, inherited context and output."""
    inherited = sum(edge.inherited_tokens for edge in workflow.parents[stage.id])
    return stage.prefix_tokens + stage.prompt_tokens + inherited + stage.output_tokens


def problem_from(data: Any, source: str | Path) -> Problem:
    """Return a checked problem from plain data, as JSON gives it.

    Raises:
        InputError: naming ``source``, the stage and the field at fault.
    """
    try:
        if isinstance(data, dict):
            # Check this first: other versions may have other fields.
            _check_version(data.get("schema_version", SCHEMA_VERSION))
            _check_written_out(data.get("cluster"))
        problem = Problem.model_validate(data)
        check(problem)
    except ValidationError as error:
        raise from_pydantic(error, data, source, Problem) from None
    except InputError as error:
        raise error.at(source) from None
    return problem


def _check_written_out(cluster: Any) -> None:
    if isinstance(cluster, str):
        raise InputError(
            f"the cluster is a name, {cluster!a}, which is not looked up here",
            field="cluster",
            remedy="write out its devices, or read the file with "
            "fate_gym.workloads.load_problem_file",
        )


def check(problem: Problem) -> None:
    """Check everything that one object cannot check by itself.

    Raises:
        InputError: the first fault found, naming workflow, stage and field.
    """
    _check_version(problem.schema_version)
    _unique((gpu.name for gpu in problem.gpus), "GPU", None, field="gpus")
    _unique((gpu.name for gpu in problem.cluster.gpus), "GPU", "cluster", field="gpus")
    _unique((model.name for model in problem.models), "model", None, field="models")
    _check_cluster(problem)
    _check_outages(problem)
    _check_contention(problem)
    _check_objective(problem)
    _unique((workflow.id for workflow in problem.workflows), "workflow", None)
    check_turns(problem.workflows)
    prefix_branches(problem.workflows)
    for workflow in problem.workflows:
        _check_graph(workflow)
        _check_choices(workflow)
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
    known = {device.id for device in cluster.devices}
    cluster.check_execution(item)
    _unique((device.id for device in cluster.devices), "device", item)
    for device in cluster.devices:
        if device.gpu is not None:
            at_device = f"{item}, device '{device.id}'"
            check_known("unknown GPU", device.gpu, problem.gpu_facts, item=at_device, field="gpu")
        elif device.tensor_parallel > 1:
            raise InputError(
                f"{device.tensor_parallel} GPUs in parallel on a device without a GPU",
                item=f"{item}, device '{device.id}'",
                field="tensor_parallel",
                remedy="name the device's gpu, or remove tensor_parallel",
            )
    for link in cluster.links:
        for name in (link.a, link.b):
            check_known("link to unknown device", name, known, item=item, field="links")
        if link.a == link.b:
            raise InputError(
                f"link from device {link.a!r} to itself",
                item=item,
                field="links",
                remedy="remove the link: nothing moves within a device",
            )
    twice = first_repeated(frozenset((link.a, link.b)) for link in cluster.links)
    if twice:
        raise InputError(
            f"two links between devices {' and '.join(map(repr, sorted(twice)))}",
            item=item,
            field="links",
            remedy="keep one: a link goes both ways",
        )


def _check_graph(workflow: Workflow) -> None:
    item = f"workflow '{workflow.id}'"
    known = {stage.id for stage in workflow.stages}
    _unique((stage.id for stage in workflow.stages), "stage", item)
    for edge in workflow.edges:
        what = f"edge {edge.parent!r} -> {edge.child!r} names unknown stage"
        check_known(what, edge.parent, known, item=item, field="edges.parent")
        check_known(what, edge.child, known, item=item, field="edges.child")
    twice = first_repeated((edge.parent, edge.child) for edge in workflow.edges)
    if twice:
        raise InputError(
            f"edge {twice[0]!r} -> {twice[1]!r} is listed twice",
            item=item,
            field="edges",
            remedy="merge the two into one edge with the sum of their bytes",
        )
    extending = {stage.id for stage in workflow.stages if stage.extends_prefix}
    for edge in workflow.edges:
        if edge.inherited_tokens and not extending.isdisjoint((edge.parent, edge.child)):
            raise InputError(
                f"edge {edge.parent!r} -> {edge.child!r} passes on {edge.inherited_tokens:,} "
                "tokens, but one of the two extends its prefix",
                item=item,
                field="edges.inherited_tokens",
                remedy="count what the child repeats in its prefix_tokens",
            )
    behind = sorted(known.difference(topological_order(workflow)))
    if behind:
        raise InputError(
            f"the edges form a cycle; stages on or behind it: {', '.join(behind[:5])}"
            + (" …" if len(behind) > 5 else ""),
            item=item,
            field="edges",
            remedy="remove an edge of the cycle: a workflow is a DAG",
        )


def _check_outages(problem: Problem) -> None:
    if problem.options.failures is None:
        return
    up_again = {device.id: -1.0 for device in problem.cluster.devices}
    where = {"item": "options", "field": "failures.outages"}
    for outage in sorted(problem.options.failures.outages, key=lambda outage: outage.at):
        check_known("outage of unknown device", outage.device, up_again, **where)
        if outage.at <= up_again[outage.device]:
            raise InputError(
                f"device {outage.device!r} fails at {outage.at:g} s, when it is not up",
                remedy="merge outages that overlap or touch",
                **where,
            )
        up_again[outage.device] = outage.at + outage.seconds


def _check_contention(problem: Problem) -> None:
    options = problem.options
    if not options.contention:
        return
    nodes = len({device.node for device in problem.cluster.devices})
    if options.eager_transfers:
        fault = "contention together with eager_transfers: eager transfers run side by side"
        remedy = "set eager_transfers or contention to false"
    elif nodes > MOST_CONTENDED_NODES:
        fault = f"contention on {nodes} nodes, of which it knows at most {MOST_CONTENDED_NODES}"
        remedy = "set contention to false, or use a cluster with fewer nodes"
    else:
        return
    raise InputError(fault, item="options", field="contention", remedy=remedy)


def _check_choices(workflow: Workflow) -> None:
    """Check branches and fan-outs: each stage in one, after its chooser; probabilities sum to 1."""
    chosen: set[str] = set()
    choosers: set[str] = set()
    for choice in workflow.choices:
        _check_chooser(workflow, choice.after, "choices", choosers)
        _check_sum(workflow, choice.after, "choices.options.probability", choice.probabilities)
        _check_chosen(workflow, choice.after, "choices.stages", choice.stages, chosen)
    for fan_out in workflow.fan_outs:
        _check_chooser(workflow, fan_out.after, "fan_outs", choosers)
        if len(fan_out.weights) != len(fan_out.replicas):
            raise InputError(
                f"{len(fan_out.weights)} weights for {len(fan_out.replicas)} replicas",
                item=f"workflow '{workflow.id}', fan-out after '{fan_out.after}'",
                field="fan_outs.weights",
                remedy="give the probability of 1, 2, ... replicas, one for each",
            )
        _check_sum(workflow, fan_out.after, "fan_outs.weights", fan_out.weights)
        _check_chosen(workflow, fan_out.after, "fan_outs.stages", fan_out.stages, chosen)


def _check_chooser(workflow: Workflow, after: str, field: str, known: set[str]) -> None:
    item = f"workflow '{workflow.id}'"
    stages = {stage.id for stage in workflow.stages}
    check_known("unknown stage", after, stages, item=item, field=f"{field}.after")
    if after in known:
        raise InputError(
            f"stage {after!r} decides twice",
            item=item,
            field=f"{field}.after",
            remedy="one choice or fan-out a stage: its draw is one number",
        )
    known.add(after)


def _check_sum(workflow: Workflow, after: str, field: str, shares: Sequence[float]) -> None:
    if abs(sum(shares) - 1.0) > 1e-9:
        raise InputError(
            f"the probabilities sum to {sum(shares):.9g}",
            item=f"workflow '{workflow.id}', after stage '{after}'",
            field=field,
            remedy="make the sum 1; a branch may have no stages",
        )


def _check_chosen(
    workflow: Workflow, after: str, field: str, stages: Sequence[str], chosen: set[str]
) -> None:
    behind = {after}
    for stage in topological_order(workflow):
        if any(edge.parent in behind for edge in workflow.parents[stage]):
            behind.add(stage)
    where = {"item": f"workflow '{workflow.id}', after stage '{after}'", "field": field}
    for stage in stages:
        check_known("unknown stage", stage, workflow.parents, **where)
        if stage in chosen:
            raise InputError(
                f"stage {stage!r} is drawn twice",
                remedy="a stage belongs to one branch or replica",
                **where,
            )
        if stage == after or stage not in behind:
            raise InputError(
                f"stage {stage!r} does not come after {after!r}",
                remedy="add an edge: whether a stage lives is drawn before it could start",
                **where,
            )
        chosen.add(stage)


def _check_stage(problem: Problem, workflow: Workflow, stage: Stage) -> None:
    item = f"workflow '{workflow.id}', stage '{stage.id}'"
    if stage.model is not None:
        check_known("unknown model", stage.model, problem.model_facts, item=item, field="model")
        _check_context(workflow, stage, item)
    for field in ("allowed_devices", "seconds_on"):
        for name in getattr(stage, field) or ():
            check_known("unknown device", name, problem.memory_limits, item=item, field=field)
    if stage.kind != "tool" and not problem.eligible_devices(workflow, stage):
        raise _without_host(problem, workflow, stage, item)


def _check_context(workflow: Workflow, stage: Stage, item: str) -> None:
    tokens = query_tokens(workflow, stage)
    if tokens > MOST_TOKENS:
        raise InputError(
            f"a query of {tokens:,} tokens, of {MOST_TOKENS:,} at most",
            item=item,
            field="prompt_tokens",
            remedy="lower prefix_tokens, prompt_tokens, output_tokens or what the stage inherits",
        )


def _without_host(problem: Problem, workflow: Workflow, stage: Stage, item: str) -> InputError:
    """Return the error for a stage that no device can host, with what the nearest one lacks."""
    where = {
        "item": item,
        "field": "model" if stage.allowed_devices is None else "allowed_devices",
    }
    if stage.model is None:
        return InputError(
            "no device can host the stage: none that it allows has seconds for it",
            remedy="allow a device that seconds_on names",
            **where,
        )
    need = problem.query_bytes(workflow, stage)
    fault = (
        f"no device can host the stage: {stage.model} with a context of "
        f"{query_tokens(workflow, stage):,} tokens takes {_gigabytes(need)}"
    )
    allowed = stage.allowed_devices
    limits = {
        name: limit
        for name, limit in problem.memory_limits.items()
        if allowed is None or name in allowed
    }
    nearest = max(limits, key=lambda name: limits[name], default=None)
    if nearest is None or limits[nearest] == 0.0:
        return InputError(
            f"{fault}, and {'no device' if allowed is None else 'none that it allows'} has memory",
            remedy="name a gpu for the device",
            **where,
        )
    missing = _gigabytes(need - limits[nearest])
    return InputError(
        f"{fault}, {missing} more than there is on {nearest!r}, which comes nearest",
        remedy="use a quantised variant, a shorter context, a device with more memory, or several "
        "GPUs as one device (tensor_parallel)",
        **where,
    )


def _gigabytes(size: float) -> str:
    return f"{size / GB:,.2f} GB" if size >= 0.01 * GB else f"{size / GB:.2g} GB"


def _unique(names: Iterable[str], kind: str, item: str | None, *, field: str = "id") -> None:
    twice = first_repeated(names)
    if twice is not None:
        raise InputError(
            f"duplicate {kind} {'id ' if field == 'id' else ''}{twice!r}",
            item=item,
            field=field,
            remedy="make ids unique" if field == "id" else "keep one of the two",
        )


def _check_objective(problem: Problem) -> None:
    if problem.options.objective != "deadlines":
        return
    if all(workflow.deadline is None for workflow in problem.workflows):
        raise InputError(
            "planners are to meet deadlines, but no workflow has one",
            item="options",
            field="objective",
            remedy="give workflows a deadline, or choose another objective",
        )
