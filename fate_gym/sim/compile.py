"""Compile a problem to arrays: catalogue facts become coefficients of the cost model."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym import catalog
from fate_gym.catalog import GB
from fate_gym.kernel.pricing import floor_seconds, prefix_savings, price
from fate_gym.kernel.ranks import downward_ranks, upward_ranks
from fate_gym.kernel.schema import FIXED_STAGE, MODEL_STAGE, TOOL_STAGE, ProblemArrays
from fate_gym.problem import Device, Problem, Workflow, topological_order
from fate_gym.problem.sessions import ancestry, branch_starts, end_of_path
from fate_gym.sim.prefix_paths import PrefixPaths

Floats = NDArray[np.float64]
_KINDS = {"model": MODEL_STAGE, "fixed": FIXED_STAGE, "tool": TOOL_STAGE}


class CompiledProblem:
    """A problem as arrays. Immutable; shared by any number of simulators.

    Attributes:
        problem: the problem that was compiled.
        arrays: the tables of compiled code (`fate_gym.kernel.schema`).
        stage_ids: (workflow id, stage id) by stage number.
        device_ids, model_names, prefix_keys: names by number; a prefix key is (model, group).
        branches: where each prefix group branches off another, by group; roots are left out.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.stage_ids = [(w.id, stage.id) for w in problem.workflows for stage in w.stages]
        self.device_ids = [device.id for device in problem.cluster.devices]
        stages = [stage for workflow in problem.workflows for stage in workflow.stages]
        self.model_names = list(dict.fromkeys(s.model for s in stages if s.model is not None))
        self.branches = branch_starts(problem.workflows)
        self.prefix_keys = list(
            dict.fromkeys(
                (s.model, group)
                for s in stages
                if s.model is not None and s.prefix_group is not None
                for group in reversed(list(ancestry(self.branches, s.prefix_group)))
            )
        )
        self.arrays = _fill(self)
        _price(self.arrays, problem)

    @property
    def shape(self) -> tuple[int, int, int, int, int, int]:
        """(stages, devices, models, prefix keys, nodes, max shards)."""
        p = self.arrays
        return (
            p.stages.size,
            p.devices.size,
            p.models.size,
            p.prefixes.size,
            p.nodes,
            p.max_shards,
        )

    @property
    def clean_seconds(self) -> Floats:
        """(S, D) prefill + decode of the whole stage, nothing cached; inf: not eligible."""
        return self.arrays.clean_seconds

    @cached_property
    def floor_seconds(self) -> Floats:
        """(S, D) like `clean_seconds` with everything possible cached: a lower bound."""
        floor = np.full(self.clean_seconds.shape, np.inf)
        floor_seconds(self.arrays, floor)
        return floor

    @cached_property
    def prefix_seconds(self) -> Floats:
        """(S, D) seconds that a cached prefix saves; 0 where the stage cannot run."""
        saved = np.zeros(self.clean_seconds.shape)
        prefix_savings(self.arrays, saved)
        return saved

    @cached_property
    def prefix_paths(self) -> PrefixPaths:
        """The tree of prefix keys."""
        return PrefixPaths.of(self.arrays)

    @property
    def tool_seconds(self) -> Floats:
        """(S,) seconds of tool stages, 0 elsewhere."""
        return self.arrays.stages["tool_seconds"]

    @property
    def load_seconds(self) -> Floats:
        """(M, D) seconds to load a model that is not resident."""
        return self.arrays.load_seconds

    @property
    def model_of(self) -> NDArray[np.int32]:
        """(S,) model number, -1 if the stage has none."""
        return self.arrays.stages["model"]

    @property
    def workflow_of(self) -> NDArray[np.int32]:
        """(S,) workflow number."""
        return self.arrays.stages["workflow"]

    @property
    def follows(self) -> NDArray[np.int64]:
        """(W,) the workflow that has to end before this one can arrive, -1 if there is none."""
        p = self.arrays
        before = np.full(p.workflows.size, -1)
        for w, row in enumerate(p.workflows):
            before[p.followers[row["followers_from"] : row["followers_to"]]] = w
        return before

    @property
    def edge_parent(self) -> NDArray[np.int32]:
        """(E,) parent stage; edges are sorted by child."""
        return self.arrays.edges["parent"]

    @property
    def edge_child(self) -> NDArray[np.int32]:
        """(E,) child stage."""
        return self.arrays.edges["child"]

    @property
    def edge_bytes(self) -> Floats:
        """(E,) bytes to move."""
        return self.arrays.edges["bytes"]

    @property
    def bandwidth(self) -> Floats:
        """(D, D) bytes/s from the row's device to the column's."""
        return self.arrays.link_bandwidth


def compile_problem(problem: Problem | CompiledProblem) -> CompiledProblem:
    """Compile a problem; one that is compiled already is returned as it is."""
    return problem if isinstance(problem, CompiledProblem) else CompiledProblem(problem)


def _fill(compiled: CompiledProblem) -> ProblemArrays:
    problem = compiled.problem
    cluster = problem.cluster
    nodes = {name: i for i, name in enumerate(dict.fromkeys(d.node for d in cluster.devices))}
    failures = problem.options.failures
    arrays = ProblemArrays.allocate(
        S=len(compiled.stage_ids),
        E=sum(len(workflow.edges) for workflow in problem.workflows),
        D=len(cluster.devices),
        M=len(compiled.model_names),
        Q=len(compiled.prefix_keys),
        W=len(problem.workflows),
        A=sum(workflow.follows is None for workflow in problem.workflows),
        T=sum(workflow.follows is not None for workflow in problem.workflows),
        O=len(failures.outages) if failures else 0,
    )
    constants = catalog.execution()
    arrays.nodes = len(nodes)
    arrays.max_shards = min(problem.options.max_shards, len(cluster.devices))
    arrays.eager = problem.options.eager_transfers
    arrays.contention = problem.options.contention
    serving = cluster.serving
    arrays.max_batch = serving.max_sequences
    if serving.batching:
        # These stay 0 otherwise: unused values must not change digests of the arrays.
        arrays.batching = 1
        arrays.prefill_first = serving.prefill_first
        arrays.token_budget = serving.token_budget
    arrays.uncertainty = problem.options.uncertainty
    arrays.length_uncertainty = problem.options.length_uncertainty
    if failures is not None:
        arrays.failing = 1
        arrays.mtbf_s = failures.mtbf_s or 0.0
        arrays.mttr_s = failures.mean_repair_s
        arrays.most_failures = failures.most
    arrays.choosers = sum(len(w.choices) + len(w.fan_outs) for w in problem.workflows)
    arrays.gather_s = constants.gather_s
    _fill_devices(arrays, problem, nodes)
    _fill_outages(arrays, problem)
    _fill_models(arrays, compiled)
    _fill_workflows(arrays, compiled)
    return arrays


def _fill_devices(p: ProblemArrays, problem: Problem, nodes: dict[str, int]) -> None:
    cluster = problem.cluster
    shared = catalog.execution()
    peers, networks = [], []
    for i, device in enumerate(cluster.devices):
        row = p.devices[i]
        row["node"] = nodes[device.node]
        network = device.network_gb_s or cluster.network_gb_s
        networks.append(network)
        if device.gpu is None:
            peers.append(device.peer_gb_s or network)
            row["host_bandwidth"] = network * GB
            for name in ("flops", "bandwidth", "attention_flops", "attention_bandwidth"):
                row[name] = 1.0
            row["memory_rate"] = 1.0
            continue
        gpu = problem.device_facts[device.id]
        constants = shared.on(gpu)
        peer = device.peer_gb_s or constants.peer_gb_s(gpu)
        peers.append(peer)
        row["memory"] = problem.memory_limits[device.id]
        peak, memory_rate = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
        row["flops"] = gpu.mfu * peak
        row["bandwidth"] = gpu.mbu * memory_rate
        row["attention_flops"] = constants.attention_mfu(gpu) * peak
        row["attention_bandwidth"] = constants.attention_mbu(gpu) * memory_rate
        row["memory_rate"] = memory_rate
        fill_constants(row, constants)
        row["host_bandwidth"] = constants.pcie_gb_s(gpu) * GB
        if device.tensor_parallel > 1:
            row["reduce_s"] = constants.all_reduce_s
            row["reduce_bandwidth"] = constants.reduce_gb_s(peer, device.tensor_parallel) * GB
    node = p.devices["node"]
    same = node[:, None] == node[None, :]
    peer_rate, network_rate = np.array(peers) * GB, np.array(networks) * GB
    p.link_bandwidth[:] = np.where(
        same,
        np.minimum.outer(peer_rate, peer_rate),
        np.minimum.outer(network_rate, network_rate),
    )
    p.link_latency[:] = np.where(same, shared.peer_latency_s, cluster.network_latency_s)
    count = len(cluster.devices)
    p.link[:] = np.where(same, np.arange(count)[:, None], count + node[:, None])
    number = {device.id: i for i, device in enumerate(cluster.devices)}
    for link in cluster.links:
        for a, b in ((number[link.a], number[link.b]), (number[link.b], number[link.a])):
            p.link_bandwidth[a, b] = link.gb_s * GB
            p.link_latency[a, b] = link.latency_s
            p.link[a, b] = a


def fill_constants(row: Any, constants: catalog.Execution) -> None:
    """Write the constants that do not depend on the model into a row of ``devices``."""
    row["ramp_tokens"] = constants.mfu_ramp_tokens
    row["linear_passes"] = constants.linear_passes
    row["attention_passes"] = constants.attention_passes
    row["layer_s"] = constants.linear_layer_s + constants.attention_layer_s
    row["launch_s"] = constants.prefill_launch_s


def _fill_outages(p: ProblemArrays, problem: Problem) -> None:
    failures = problem.options.failures
    number = {device.id: i for i, device in enumerate(problem.cluster.devices)}
    outages = failures.outages if failures is not None else ()
    rows = sorted((number[one.device], one.at, one.at + one.seconds) for one in outages)
    p.outages["start"] = [start for _, start, _ in rows]
    p.outages["end"] = [end for _, _, end in rows]
    devices = [device for device, _, _ in rows]
    every = np.arange(p.devices.size)
    p.devices["outages_from"] = np.searchsorted(devices, every)
    p.devices["outages_to"] = np.searchsorted(devices, every, side="right")


def _fill_models(p: ProblemArrays, compiled: CompiledProblem) -> None:
    problem = compiled.problem
    cluster = problem.cluster
    constants = catalog.execution()
    for i, name in enumerate(compiled.model_names):
        model = problem.model_facts[name]
        row = p.models[i]
        row["active"] = model.layer_params
        row["head"] = model.head_params
        row["weight_bytes"] = model.weight_bytes
        row["read_bytes"] = model.read_bytes
        row["kv"] = model.kv_bytes_per_token
        row["attention"] = 4.0 * model.layers * model.attention_width
        row["layers"] = model.layers
        row["hidden"] = model.hidden
        row["attended"] = 2 * (model.attention_width + model.kv_width)
        if any(device.tensor_parallel > 1 for device in cluster.devices):
            row["reduces"] = constants.all_reduces(model)
            row["reduce_bytes"] = constants.all_reduce_bytes(model)
        row["expert_bytes"] = model.expert_weight_share * model.weight_bytes
        if model.experts:
            row["expert_miss"] = 1.0 - model.experts_per_token / model.experts
        for d, device in enumerate(cluster.devices):
            rate = _load_gb_s(problem, device)
            p.load_seconds[i, d] = _load_init_s(problem, device) + model.weight_bytes / (rate * GB)
    number = {name: i for i, name in enumerate(compiled.model_names)}
    key = {name: q for q, name in enumerate(compiled.prefix_keys)}
    for q, (name, group) in enumerate(compiled.prefix_keys):
        branch = compiled.branches.get(group)
        parent = -1 if branch is None else key[name, branch.parent]
        p.prefixes[q] = number[name], parent, branch.shared_tokens if branch else 0


def _load_init_s(problem: Problem, device: Device) -> float:
    if problem.cluster.load_init_s is not None:
        return problem.cluster.load_init_s
    constants = catalog.execution()
    if device.gpu is not None:
        constants = constants.on(problem.gpu_facts[device.gpu])
    return constants.load_init_s


def _load_gb_s(problem: Problem, device: Device) -> float:
    given = device.load_gb_s or problem.cluster.load_gb_s
    if given is not None:
        return given
    if device.gpu is None:
        return device.network_gb_s or problem.cluster.network_gb_s
    pcie = catalog.execution().pcie_gb_s(problem.gpu_facts[device.gpu])
    return device.tensor_parallel * pcie  # each GPU loads its part


def _fill_workflows(p: ProblemArrays, compiled: CompiledProblem) -> None:
    problem = compiled.problem
    model = {name: i for i, name in enumerate(compiled.model_names)}
    first, first_edge = 0, 0
    for w, workflow in enumerate(problem.workflows):
        number = {stage.id: first + i for i, stage in enumerate(workflow.stages)}
        row = p.workflows[w]
        row["arrival"] = workflow.arrival
        row["stages_from"], row["stages_to"] = first, first + len(workflow.stages)
        p.topological[first : first + len(number)] = [
            number[name] for name in topological_order(workflow)
        ]
        _fill_stages(p, workflow, w, first, model)
        _fill_prefixes(p, compiled, workflow, first)
        _fill_edges(p, workflow, number, first_edge)
        _fill_lives(p, workflow, number)
        first += len(workflow.stages)
        first_edge += len(workflow.edges)
    _fill_sessions(p, problem)
    _index_edges(p)


def _fill_sessions(p: ProblemArrays, problem: Problem) -> None:
    """Fill which workflows follow which, and when those that follow none arrive."""
    flows = problem.workflows
    number = {workflow.id: w for w, workflow in enumerate(flows)}
    before = np.array([-1 if w.follows is None else number[w.follows] for w in flows])
    p.workflows["think_s"] = [workflow.think_seconds for workflow in flows]
    firsts, others = np.flatnonzero(before < 0), np.flatnonzero(before >= 0)
    p.arrivals[:] = firsts[np.argsort(p.workflows["arrival"][firsts], kind="stable")]
    p.followers[:] = others[np.argsort(before[others], kind="stable")]
    every, ends = np.arange(len(flows)), before[p.followers]
    p.workflows["followers_from"] = np.searchsorted(ends, every)
    p.workflows["followers_to"] = np.searchsorted(ends, every, side="right")
    names = dict.fromkeys(workflow.session for workflow in flows if workflow.session is not None)
    sessions = {name: i for i, name in enumerate(names, start=1)}
    p.workflows["session"] = [sessions.get(w.session, 0) if w.session else 0 for w in flows]
    over = before.copy()
    while (over >= 0).any():
        p.workflows["turn"] += over >= 0
        over = np.where(over >= 0, before[over], -1)


def _fill_stages(
    p: ProblemArrays,
    workflow: Workflow,
    w: int,
    first: int,
    model: dict[str, int],
) -> None:
    rows = p.stages[first : first + len(workflow.stages)]
    stages = workflow.stages
    rows["workflow"] = w
    rows["kind"] = [_KINDS[stage.kind] for stage in stages]
    rows["model"] = [-1 if stage.model is None else model[stage.model] for stage in stages]
    rows["queries"] = [stage.queries for stage in stages]
    rows["prefix_tokens"] = [stage.prefix_tokens for stage in stages]
    rows["prompt_tokens"] = [stage.prompt_tokens for stage in stages]
    rows["output_tokens"] = [stage.output_tokens for stage in stages]
    rows["tool_seconds"] = [stage.tool_seconds or 0.0 for stage in stages]


def _fill_prefixes(p: ProblemArrays, compiled: CompiledProblem, flow: Workflow, first: int) -> None:
    """Fill the ends of the prefix paths that stages read and leave."""
    key = {name: q for q, name in enumerate(compiled.prefix_keys)}
    for row, stage in zip(p.stages[first : first + len(flow.stages)], flow.stages, strict=True):
        row["prefix"] = row["written"] = -1
        row["written_tokens"] = stage.prefix_tokens
        if stage.model is None or stage.prefix_group is None:
            continue
        if stage.extends_prefix:
            row["written_tokens"] += stage.prompt_tokens + stage.output_tokens
        for end, tokens in (("prefix", "prefix_tokens"), ("written", "written_tokens")):
            group = end_of_path(compiled.branches, stage.prefix_group, int(row[tokens]))
            row[end] = key[stage.model, group]


def _fill_edges(
    p: ProblemArrays, workflow: Workflow, number: dict[str, int], first_edge: int
) -> None:
    edges = sorted(workflow.edges, key=lambda edge: number[edge.child])
    rows = p.edges[first_edge : first_edge + len(edges)]
    rows["parent"] = [number[edge.parent] for edge in edges]
    rows["child"] = [number[edge.child] for edge in edges]
    rows["inherited_tokens"] = [edge.inherited_tokens for edge in edges]
    rows["bytes"] = [edge.bytes for edge in edges]


def _fill_lives(p: ProblemArrays, workflow: Workflow, number: dict[str, int]) -> None:
    stages = p.stages
    stages["chooser"][list(number.values())] = -1
    cuts: dict[str, set[float]] = {}
    for stage, life in workflow.lives.items():
        row = stages[number[stage]]
        row["chooser"] = number[life.after]
        row["lives_from"], row["lives_to"] = life.low, life.high
        cuts.setdefault(life.after, {0.0, 1.0}).update((life.low, min(life.high, 1.0)))
    for after, ends in cuts.items():
        borders = np.array(sorted(ends))
        widest = int(np.diff(borders).argmax())
        stages["chooses"][number[after]] = 1
        stages["likely"][number[after]] = borders[widest : widest + 2].mean()


def _index_edges(p: ProblemArrays) -> None:
    edges, stages = p.edges, p.stages
    count = stages.size
    model = stages["model"]
    same = (model[edges["parent"]] == model[edges["child"]]) & (model[edges["child"]] >= 0)
    edges["same_model"] = same
    stages["parents_from"] = np.searchsorted(edges["child"], np.arange(count))
    stages["parents_to"] = np.searchsorted(edges["child"], np.arange(count), side="right")
    p.out_edges[:] = np.argsort(edges["parent"], kind="stable")
    parents = edges["parent"][p.out_edges]
    stages["children_from"] = np.searchsorted(parents, np.arange(count))
    stages["children_to"] = np.searchsorted(parents, np.arange(count), side="right")
    stages["inherited_tokens"] = np.bincount(
        edges["child"], weights=edges["inherited_tokens"], minlength=count
    )
    keeps = np.zeros(count, np.int32)
    keeps[edges["parent"][same & (edges["inherited_tokens"] > 0)]] = 1
    stages["keeps_context"] = keeps


def _price(p: ProblemArrays, problem: Problem) -> None:
    """Fill clean seconds, mean seconds and ranks."""
    p.clean_seconds[:] = np.inf
    number = {device.id: i for i, device in enumerate(problem.cluster.devices)}
    s = 0
    for workflow in problem.workflows:
        for stage in workflow.stages:
            columns = [number[name] for name in problem.eligible_devices(workflow, stage)]
            p.clean_seconds[s, columns] = 0.0
            if stage.seconds_on is not None:
                seconds = [stage.seconds_on[problem.cluster.devices[c].id] for c in columns]
                p.decode_seconds[s, columns] = seconds
            s += 1
    price(p)
    eligible = np.isfinite(p.clean_seconds)
    finite = np.where(eligible, p.clean_seconds, 0.0)
    width = np.maximum(1, eligible.sum(axis=1))
    p.stages["mean_seconds"] = finite.sum(axis=1) / width + p.stages["tool_seconds"]
    count = p.devices.size
    pairs = ~np.eye(count, dtype=np.bool_)
    if count > 1:
        latency = p.link_latency[pairs].mean()
        slowness = (1.0 / p.link_bandwidth[pairs]).mean()
        moved = p.edges["bytes"] > 0
        p.edges["mean_seconds"] = moved * (latency + p.edges["bytes"] * slowness)
    upward_ranks(p)
    downward_ranks(p)
    p.by_rank[:] = np.argsort(-p.stages["upward_rank"], kind="stable")
