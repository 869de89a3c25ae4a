"""The numbered stages and devices of a problem, with every default filled in.

Re-implements the numbering and the section "Where things run" of docs/execution-model.md, and the
bandwidths and latencies of its section "Time".
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from fate_gym import catalog
from fate_gym.catalog import GB, Execution, Gpu, Model, Own
from fate_gym.problem import Device, Edge, Prefix, Problem, Stage, Workflow

PREFIX, CONTEXT, WEIGHTS = 0, 1, 2
"""Kinds of evicted objects."""
TOLERANCE = 1e-9
"""Relative difference that counts as rounding."""

HOST = -1
"""Device number of a tool stage."""


@dataclass(frozen=True)
class Node:
    """A stage with its number and its edges."""

    number: int
    workflow: int
    name: str
    stage: Stage
    model: Model | None
    parents: tuple[tuple[int, Edge], ...]
    has_heirs: bool
    """Whether a child with the same model inherits tokens."""

    @property
    def inherited(self) -> int:
        return sum(edge.inherited_tokens for _, edge in self.parents)

    @property
    def query_tokens(self) -> int:
        """Tokens of one query beyond its prefix: u + sum of h + o."""
        return self.stage.prompt_tokens + self.inherited + self.stage.output_tokens


@dataclass(frozen=True)
class Machine:
    """A device; memory limit in bytes, bandwidths in bytes/s.

    ``gpus`` equal GPUs work as one: ``gpu`` describes one, ``limit`` and ``load`` all of them.
    """

    name: str
    node: str
    gpu: Gpu | None
    gpus: int
    facts: Execution
    """The constants of execution, measured on this GPU or shared by all GPUs."""
    limit: float
    pcie: float
    peer: float
    network: float
    load: float

    @classmethod
    def of(cls, problem: Problem, device: Device, facts: Execution) -> Machine:
        cluster = problem.cluster
        gpu = problem.gpu_facts[device.gpu] if device.gpu else None
        network = (device.network_gb_s or cluster.network_gb_s) * GB
        pcie = peer = network
        limit = 0.0
        if gpu:
            measured = gpu.own or Own()
            pcie = (measured.pcie_gb_s or getattr(facts, f"pcie{gpu.pcie}_gb_s")) * GB
            if measured.peer_gb_s:
                peer = measured.peer_gb_s * GB
            elif gpu.nvlink_gb_s:
                peer = facts.nvlink_efficiency * gpu.nvlink_gb_s * GB
            else:
                peer = facts.pcie_peer_efficiency * pcie
            share = cluster.memory_utilisation or facts.memory_utilisation
            limit = device.tensor_parallel * gpu.memory_gb * GB * share
        if device.peer_gb_s:
            peer = device.peer_gb_s * GB
        load_gb_s = device.load_gb_s or cluster.load_gb_s
        load = load_gb_s * GB if load_gb_s else device.tensor_parallel * pcie
        return cls(
            device.id,
            device.node,
            gpu,
            device.tensor_parallel,
            facts.model_copy(update=gpu.own.constants if gpu and gpu.own else {}),
            limit=limit,
            pcie=pcie,
            peer=peer,
            network=network,
            load=load,
        )


@dataclass(frozen=True)
class Link:
    """The link that data take to a device; ``key`` tells the links into a device apart."""

    key: tuple[str, str]
    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Piece:
    """The part of a prefix path in one entry: the tokens from its start to ``need``."""

    key: tuple[int, int]
    start: int
    need: int


def _from_the_root(branches: dict[str, Prefix], group: str) -> list[str]:
    """Return a group after its ancestors, without those that start no earlier than their child."""
    path: list[str] = []
    start = math.inf
    name: str | None = group
    while name is not None:
        branch = branches.get(name)
        own = branch.shared_tokens if branch else 0
        if own < start:
            path.insert(0, name)
            start = own
        name = branch.parent if branch else None
    return path


def _prefix_keys(
    branches: dict[str, Prefix], stages: list[Stage]
) -> tuple[dict[tuple[str, str], int], dict[int, int]]:
    """Return the numbers of prefix keys by model and group, and the key each branches off."""
    numbers: dict[tuple[str, str], int] = {}
    parents: dict[int, int] = {}
    for stage in stages:
        above = None
        if stage.model and stage.prefix_group:
            for group in _from_the_root(branches, stage.prefix_group):
                number = numbers.setdefault((stage.model, group), len(numbers))
                if above is not None:
                    parents[number] = above
                above = number
    return numbers, parents


@dataclass(frozen=True)
class World:
    """Everything that is fixed before a run starts."""

    problem: Problem
    facts: Execution
    nodes: list[Node]
    stages: list[range]
    """The numbers of the stages of each workflow."""
    before: list[int | None]
    """The workflow that has to end before each can arrive."""
    machines: list[Machine]
    models: list[str]
    prefixes: dict[tuple[str, str], int]
    """The number of each prefix key, by model and group."""
    parents: dict[int, int]
    """The key that each prefix key branches off, by number; roots are left out."""
    branches: dict[str, Prefix]
    """Where groups branch off others; roots are left out."""
    overrides: dict[frozenset[str], tuple[float, float]]
    """Bandwidth and latency between two devices, where the cluster's ``links`` give them."""

    @classmethod
    def of(cls, problem: Problem) -> World:
        facts, cluster = catalog.execution(), problem.cluster
        nodes: list[Node] = []
        stages: list[range] = []
        for number, workflow in enumerate(problem.workflows):
            stages.append(range(len(nodes), len(nodes) + len(workflow.stages)))
            nodes.extend(_nodes_of(problem, number, workflow, first=len(nodes)))
        models = [node.stage.model for node in nodes if node.stage.model]
        branches = {prefix.group: prefix for flow in problem.workflows for prefix in flow.prefixes}
        prefixes, parents = _prefix_keys(branches, [node.stage for node in nodes])
        names = {workflow.id: number for number, workflow in enumerate(problem.workflows)}
        return cls(
            problem,
            facts,
            nodes,
            stages,
            before=[names.get(w.follows or "") for w in problem.workflows],
            machines=[Machine.of(problem, device, facts) for device in cluster.devices],
            models=list(dict.fromkeys(models)),
            prefixes=prefixes,
            parents=parents,
            branches=branches,
            overrides={
                frozenset((link.a, link.b)): (link.gb_s * GB, link.latency_s)
                for link in cluster.links
            },
        )

    def path(self, stage: Stage, tokens: int) -> list[Piece]:
        """Return the pieces of the first ``tokens`` tokens of a stage's prefix, the last first."""
        pieces: list[Piece] = []
        group = stage.prefix_group
        while group is not None and stage.model is not None and tokens > 0:
            branch = self.branches.get(group)
            start = branch.shared_tokens if branch else 0
            if tokens > start:
                number = self.prefixes[stage.model, group]
                pieces.append(Piece((PREFIX, number), start, tokens))
            tokens = min(tokens, start)
            group = branch.parent if branch else None
        return pieces

    def can_host(self, node: Node, machine: Machine) -> bool:
        """Return whether a device may run a stage."""
        stage = node.stage
        if stage.allowed_devices is not None and machine.name not in stage.allowed_devices:
            return False
        if stage.seconds_on is not None:
            return machine.name in stage.seconds_on
        if node.model is None or machine.gpu is None:
            return False
        context = stage.prefix_tokens + node.query_tokens
        need = node.model.weight_bytes + context * node.model.kv_bytes_per_token
        return need <= machine.limit * (1 + TOLERANCE)

    def load_seconds(self, model: Model, machine: Machine) -> float:
        """Return the seconds to load a model's weights on a device."""
        init = self.problem.cluster.load_init_s
        init = machine.facts.load_init_s if init is None else init
        return init + model.weight_bytes / machine.load

    def link(self, source: int, target: int) -> Link:
        """Return the link from one device, or the host, into another device."""
        there = self.machines[target]
        if source == HOST:
            return Link(("host", ""), there.pcie, self.facts.peer_latency_s)
        here = self.machines[source]
        override = self.overrides.get(frozenset((here.name, there.name)))
        if override:
            return Link(("own", here.name), *override)
        if here.node == there.node:
            bandwidth = min(here.peer, there.peer)
            return Link(("peer", here.name), bandwidth, self.facts.peer_latency_s)
        latency = self.problem.cluster.network_latency_s
        return Link(("node", here.node), min(here.network, there.network), latency)

    def link_to_host(self, source: int) -> Link:
        """Return the link from a device to a tool."""
        here = self.machines[source]
        return Link(("from", here.name), here.pcie, self.facts.peer_latency_s)


def _nodes_of(problem: Problem, number: int, workflow: Workflow, *, first: int) -> Iterator[Node]:
    place = {stage.id: first + i for i, stage in enumerate(workflow.stages)}
    model_of = {stage.id: stage.model for stage in workflow.stages}
    for stage in workflow.stages:
        heirs = [e.child for e in workflow.edges if e.parent == stage.id and e.inherited_tokens > 0]
        yield Node(
            place[stage.id],
            number,
            f"workflow '{workflow.id}', stage '{stage.id}'",
            stage,
            problem.model_facts[stage.model] if stage.model else None,
            tuple((place[e.parent], e) for e in workflow.edges if e.child == stage.id),
            stage.model is not None and any(model_of[heir] == stage.model for heir in heirs),
        )
