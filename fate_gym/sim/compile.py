"""From a problem to arrays: the facts of the catalogue become coefficients of the cost model."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu
from fate_gym.compiled import compiled, plain
from fate_gym.problem import Device, Problem, Stage, Workflow, topological_order
from fate_gym.sim import layout
from fate_gym.sim.cost import batch_limit, decode_seconds, prefill_seconds
from fate_gym.sim.graph import downward_ranks, upward_ranks
from fate_gym.sim.layout import (
    FIXED_STAGE,
    MODEL_STAGE,
    TOOL_STAGE,
    Array,
    Buffer,
    ProblemView,
    problem_bytes,
    problem_view,
    state_bytes,
)

Floats = NDArray[np.float64]
_KINDS = {"model": MODEL_STAGE, "fixed": FIXED_STAGE, "tool": TOOL_STAGE}


class CompiledProblem:
    """A problem as arrays. Immutable; shared by any number of simulators.

    Attributes:
        problem: what was compiled.
        buffer: the arrays, one after the other (`fate_gym.sim.layout`).
        view: the same arrays by name.
        stage_ids: (workflow id, stage id) by stage number.
        device_ids, model_names, prefix_keys: names by number; a prefix key is (model, group).
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.stage_ids = [(w.id, stage.id) for w in problem.workflows for stage in w.stages]
        self.device_ids = [device.id for device in problem.cluster.devices]
        stages = [stage for workflow in problem.workflows for stage in workflow.stages]
        self.model_names = list(dict.fromkeys(s.model for s in stages if s.model is not None))
        self.prefix_keys = list(
            dict.fromkeys(
                (s.model, s.prefix_group)
                for s in stages
                if s.model is not None and s.prefix_group is not None
            )
        )
        self.buffer = _fill(self)
        self.view: ProblemView = plain(problem_view)(self.buffer)
        _price(self.view, problem)

    @property
    def shape(self) -> tuple[int, int, int, int, int, int]:
        """(stages, devices, models, prefix keys, nodes, max shards)."""
        head = self.view.head[0]
        return (
            int(head["stages"]),
            int(head["devices"]),
            int(head["models"]),
            int(head["prefixes"]),
            int(head["nodes"]),
            int(head["max_shards"]),
        )

    @property
    def state_bytes(self) -> int:
        """Size of one state."""
        return state_bytes(*self.shape, contention=bool(self.view.head[0]["contention"]))

    @property
    def exec_seconds(self) -> Floats:
        """(S, D) clean prefill + decode of the whole stage, nothing cached; inf: not eligible."""
        return self.view.clean_seconds

    @cached_property
    def exec_floor_seconds(self) -> Floats:
        """(S, D) the same with everything cached that could be; a lower bound of any run."""
        floor = np.full(self.view.clean_seconds.shape, np.inf)
        _floors(self.view, floor)
        return floor

    @cached_property
    def prefix_seconds(self) -> Floats:
        """(S, D) what a cached prefix saves; 0 where the stage cannot run."""
        saved = np.zeros(self.view.clean_seconds.shape)
        _prefix_savings(self.view, saved)
        return saved

    @property
    def tool_seconds(self) -> Floats:
        """(S,) seconds of tool stages, 0 elsewhere."""
        return self.view.stages["tool_seconds"]

    @property
    def load_seconds(self) -> Floats:
        """(M, D) seconds to load a model that is not resident."""
        return self.view.load_seconds

    @property
    def model_of(self) -> NDArray[np.int32]:
        """(S,) model number, -1 without."""
        return self.view.stages["model"]

    @property
    def workflow_of(self) -> NDArray[np.int32]:
        """(S,) workflow number."""
        return self.view.stages["workflow"]

    @property
    def edge_parent(self) -> NDArray[np.int32]:
        """(E,) parent stage; edges are sorted by child."""
        return self.view.edges["parent"]

    @property
    def edge_child(self) -> NDArray[np.int32]:
        """(E,) child stage."""
        return self.view.edges["child"]

    @property
    def edge_bytes(self) -> Floats:
        """(E,) bytes to move."""
        return self.view.edges["bytes"]

    @property
    def bandwidth(self) -> Floats:
        """(D, D) bytes/s from the row's device to the column's."""
        return self.view.link_bandwidth


def compile_problem(problem: Problem | CompiledProblem) -> CompiledProblem:
    """Arrays for a problem; one that is compiled already comes back as it is."""
    return problem if isinstance(problem, CompiledProblem) else CompiledProblem(problem)


def _fill(compiled: CompiledProblem) -> Buffer:
    problem = compiled.problem
    cluster = problem.cluster
    nodes = {name: i for i, name in enumerate(dict.fromkeys(d.node for d in cluster.devices))}
    edges = sum(len(workflow.edges) for workflow in problem.workflows)
    counts = {
        "stages": len(compiled.stage_ids),
        "devices": len(cluster.devices),
        "models": len(compiled.model_names),
        "prefixes": len(compiled.prefix_keys),
        "workflows": len(problem.workflows),
        "edges": edges,
    }
    failures = problem.options.failures
    counts["outages"] = len(failures.outages) if failures else 0
    size = problem_bytes(*counts.values())
    # numpy aligns large allocations on 16 bytes at least; records need 8.
    buffer = np.zeros(size, np.uint8)
    constants = catalog.execution()
    head = buffer[: layout.PROBLEM_HEAD_BYTES].view(layout.PROBLEM_HEAD)
    for name, count in counts.items():
        head[name] = count
    head["nodes"] = len(nodes)
    head["max_shards"] = min(problem.options.max_shards, len(cluster.devices))
    head["eager"] = problem.options.eager_transfers
    head["contention"] = problem.options.contention
    head["max_batch"] = constants.max_batch
    head["uncertainty"] = problem.options.uncertainty
    head["length_uncertainty"] = problem.options.length_uncertainty
    if failures is not None:
        head["failing"] = 1
        head["mtbf_s"] = failures.mtbf_s or 0.0
        head["mttr_s"] = failures.mean_repair_s
        head["most_failures"] = failures.most
    head["choosers"] = sum(len(w.choices) + len(w.fan_outs) for w in problem.workflows)
    head["gather_s"] = constants.gather_s
    head["ramp_tokens"] = constants.mfu_ramp_tokens
    head["launch_s"] = constants.prefill_launch_s
    view: ProblemView = plain(problem_view)(buffer)
    _fill_devices(view, problem, nodes)
    _fill_outages(view, problem)
    _fill_models(view, compiled)
    _fill_workflows(view, compiled)
    return buffer


def _fill_devices(view: ProblemView, problem: Problem, nodes: dict[str, int]) -> None:
    cluster = problem.cluster
    constants = catalog.execution()
    peers, networks = [], []
    for i, device in enumerate(cluster.devices):
        row = view.devices[i]
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
        gpu = problem.gpu_facts[device.gpu]
        peers.append(device.peer_gb_s or _peer_gb_s(gpu))
        row["memory"] = problem.memory_limits[device.id]
        peak, memory_rate = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
        row["flops"] = gpu.mfu * peak
        row["bandwidth"] = gpu.mbu * memory_rate
        row["attention_flops"] = constants.attention_mfu(gpu) * peak
        row["attention_bandwidth"] = constants.attention_mbu(gpu) * memory_rate
        row["memory_rate"] = memory_rate
        row["host_bandwidth"] = constants.pcie_gb_s(gpu.pcie) * GB
    node = view.devices["node"]
    same = node[:, None] == node[None, :]
    peer, network_rate = np.array(peers) * GB, np.array(networks) * GB
    view.link_bandwidth[:] = np.where(
        same, np.minimum.outer(peer, peer), np.minimum.outer(network_rate, network_rate)
    )
    view.link_latency[:] = np.where(same, constants.peer_latency_s, cluster.network_latency_s)
    count = len(cluster.devices)
    view.link[:] = np.where(same, np.arange(count)[:, None], count + node[:, None])
    number = {device.id: i for i, device in enumerate(cluster.devices)}
    for link in cluster.links:
        for a, b in ((number[link.a], number[link.b]), (number[link.b], number[link.a])):
            view.link_bandwidth[a, b] = link.gb_s * GB
            view.link_latency[a, b] = link.latency_s
            view.link[a, b] = a


def _fill_outages(view: ProblemView, problem: Problem) -> None:
    failures = problem.options.failures
    number = {device.id: i for i, device in enumerate(problem.cluster.devices)}
    outages = failures.outages if failures is not None else ()
    rows = sorted((number[one.device], one.at, one.at + one.seconds) for one in outages)
    view.outages["start"] = [start for _, start, _ in rows]
    view.outages["end"] = [end for _, _, end in rows]
    devices = [device for device, _, _ in rows]
    every = np.arange(view.devices.size)
    view.devices["outages_from"] = np.searchsorted(devices, every)
    view.devices["outages_to"] = np.searchsorted(devices, every, side="right")


def _peer_gb_s(gpu: Gpu) -> float:
    constants = catalog.execution()
    if gpu.nvlink_gb_s is not None:
        return constants.nvlink_efficiency * gpu.nvlink_gb_s
    return constants.pcie_peer_efficiency * constants.pcie_gb_s(gpu.pcie)


def _fill_models(view: ProblemView, compiled: CompiledProblem) -> None:
    problem = compiled.problem
    cluster = problem.cluster
    constants = catalog.execution()
    init = constants.load_init_s if cluster.load_init_s is None else cluster.load_init_s
    for i, name in enumerate(compiled.model_names):
        model = problem.model_facts[name]
        row = view.models[i]
        row["active"] = model.layer_params
        row["head"] = model.head_params
        row["weight_bytes"] = model.weight_bytes
        row["read_bytes"] = model.read_bytes
        row["kv"] = model.kv_bytes_per_token
        row["attention"] = 4.0 * model.layers * model.attention_width
        row["traffic"] = constants.traffic_bytes(model)
        row["layers_s"] = constants.layer_seconds(model)
        row["expert_bytes"] = model.expert_weight_share * model.weight_bytes
        if model.experts:
            row["expert_miss"] = 1.0 - model.experts_per_token / model.experts
        for d, device in enumerate(cluster.devices):
            rate = _load_gb_s(problem, device)
            view.load_seconds[i, d] = init + model.weight_bytes / (rate * GB)
    number = {name: i for i, name in enumerate(compiled.model_names)}
    for q, (name, _) in enumerate(compiled.prefix_keys):
        view.prefix_model[q] = number[name]


def _load_gb_s(problem: Problem, device: Device) -> float:
    given = device.load_gb_s or problem.cluster.load_gb_s
    if given is not None:
        return given
    if device.gpu is None:
        return device.network_gb_s or problem.cluster.network_gb_s
    return catalog.execution().pcie_gb_s(problem.gpu_facts[device.gpu].pcie)


def _fill_workflows(view: ProblemView, compiled: CompiledProblem) -> None:
    problem = compiled.problem
    model = {name: i for i, name in enumerate(compiled.model_names)}
    prefix = {key: i for i, key in enumerate(compiled.prefix_keys)}
    first, first_edge = 0, 0
    for w, workflow in enumerate(problem.workflows):
        number = {stage.id: first + i for i, stage in enumerate(workflow.stages)}
        row = view.workflows[w]
        row["arrival"] = workflow.arrival
        row["stages_from"], row["stages_to"] = first, first + len(workflow.stages)
        view.topological[first : first + len(number)] = [
            number[name] for name in topological_order(workflow)
        ]
        _fill_stages(view, workflow, w, first, model, prefix)
        _fill_edges(view, workflow, number, first_edge)
        _fill_lives(view, workflow, number)
        first += len(workflow.stages)
        first_edge += len(workflow.edges)
    view.arrivals[:] = np.argsort(view.workflows["arrival"], kind="stable")
    _index_edges(view)


def _fill_stages(
    view: ProblemView,
    workflow: Workflow,
    w: int,
    first: int,
    model: dict[str, int],
    prefix: dict[tuple[str, str], int],
) -> None:
    rows = view.stages[first : first + len(workflow.stages)]
    stages = workflow.stages
    rows["workflow"] = w
    rows["kind"] = [_KINDS[stage.kind] for stage in stages]
    rows["model"] = [-1 if stage.model is None else model[stage.model] for stage in stages]
    rows["queries"] = [stage.queries for stage in stages]
    rows["prefix"] = [_prefix_of(stage, prefix) for stage in stages]
    rows["prefix_tokens"] = [stage.prefix_tokens for stage in stages]
    rows["prompt_tokens"] = [stage.prompt_tokens for stage in stages]
    rows["output_tokens"] = [stage.output_tokens for stage in stages]
    rows["tool_seconds"] = [stage.tool_seconds or 0.0 for stage in stages]


def _prefix_of(stage: Stage, prefix: dict[tuple[str, str], int]) -> int:
    if stage.model is None or stage.prefix_group is None:
        return -1
    return prefix[stage.model, stage.prefix_group]


def _fill_edges(
    view: ProblemView, workflow: Workflow, number: dict[str, int], first_edge: int
) -> None:
    edges = sorted(workflow.edges, key=lambda edge: number[edge.child])
    rows = view.edges[first_edge : first_edge + len(edges)]
    rows["parent"] = [number[edge.parent] for edge in edges]
    rows["child"] = [number[edge.child] for edge in edges]
    rows["inherited_tokens"] = [edge.inherited_tokens for edge in edges]
    rows["bytes"] = [edge.bytes for edge in edges]


def _fill_lives(view: ProblemView, workflow: Workflow, number: dict[str, int]) -> None:
    stages = view.stages
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


def _index_edges(view: ProblemView) -> None:
    edges, stages = view.edges, view.stages
    count = stages.size
    model = stages["model"]
    same = (model[edges["parent"]] == model[edges["child"]]) & (model[edges["child"]] >= 0)
    edges["same_model"] = same
    stages["parents_from"] = np.searchsorted(edges["child"], np.arange(count))
    stages["parents_to"] = np.searchsorted(edges["child"], np.arange(count), side="right")
    view.out_edges[:] = np.argsort(edges["parent"], kind="stable")
    parents = edges["parent"][view.out_edges]
    stages["children_from"] = np.searchsorted(parents, np.arange(count))
    stages["children_to"] = np.searchsorted(parents, np.arange(count), side="right")
    stages["inherited_tokens"] = np.bincount(
        edges["child"], weights=edges["inherited_tokens"], minlength=count
    )
    keeps = np.zeros(count, np.int32)
    keeps[edges["parent"][same & (edges["inherited_tokens"] > 0)]] = 1
    stages["keeps_context"] = keeps


def _price(view: ProblemView, problem: Problem) -> None:
    """Clean seconds, mean seconds and ranks."""
    eligible = np.zeros(view.clean_seconds.shape, np.bool_)
    number = {device.id: i for i, device in enumerate(problem.cluster.devices)}
    s = 0
    for workflow in problem.workflows:
        for stage in workflow.stages:
            columns = [number[name] for name in problem.eligible_devices(workflow, stage)]
            eligible[s, columns] = True
            if stage.seconds_on is not None:
                seconds = [stage.seconds_on[problem.cluster.devices[c].id] for c in columns]
                view.decode_seconds[s, columns] = seconds
            s += 1
    _clean(view, eligible)
    finite = np.where(eligible, view.clean_seconds, 0.0)
    width = np.maximum(1, eligible.sum(axis=1))
    view.stages["mean_seconds"] = finite.sum(axis=1) / width + view.stages["tool_seconds"]
    count = view.devices.size
    pairs = ~np.eye(count, dtype=np.bool_)
    if count > 1:
        latency = view.link_latency[pairs].mean()
        slowness = (1.0 / view.link_bandwidth[pairs]).mean()
        moved = view.edges["bytes"] > 0
        view.edges["mean_seconds"] = moved * (latency + view.edges["bytes"] * slowness)
    upward_ranks(view)
    downward_ranks(view)
    view.by_rank[:] = np.argsort(-view.stages["upward_rank"], kind="stable")


@compiled
def _clean(p: ProblemView, eligible: Array) -> None:
    for s in range(p.stages.size):
        stage = p.stages[s]
        for d in range(p.devices.size):
            if not eligible[s, d]:
                p.clean_seconds[s, d] = np.inf
            elif stage.kind == FIXED_STAGE:
                p.clean_seconds[s, d] = p.decode_seconds[s, d]
            else:
                p.decode_seconds[s, d] = decode_seconds(p, s, d, int(stage.queries))
                prefill = prefill_seconds(p, s, d, int(stage.queries), 0.0, 0.0)
                p.clean_seconds[s, d] = prefill + p.decode_seconds[s, d]


@compiled
def _floors(p: ProblemView, floor: Array) -> None:
    for s in range(p.stages.size):
        stage = p.stages[s]
        cacheable = 0.0
        for e in range(stage.parents_from, stage.parents_to):
            # What a parent that vanishes would have passed on needs no prefill either.
            if p.edges[e].same_model or p.stages[p.edges[e].parent].chooser >= 0:
                cacheable += p.edges[e].inherited_tokens
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] == np.inf:
                continue
            floor[s, d] = p.decode_seconds[s, d]
            if stage.kind == MODEL_STAGE:
                # A shard of one full wave is the cheapest way to decode a query: all N at once may
                # need a second, nearly empty wave.
                wave = min(int(stage.queries), batch_limit(p, s, d))
                if p.head[0].max_shards > 1:
                    floor[s, d] = stage.queries / wave * decode_seconds(p, s, d, wave)
                floor[s, d] += prefill_seconds(
                    p, s, d, int(stage.queries), float(stage.prefix_tokens), cacheable
                )


@compiled
def _prefix_savings(p: ProblemView, saved: Array) -> None:
    for s in range(p.stages.size):
        stage = p.stages[s]
        if stage.prefix_tokens == 0:
            continue
        for d in range(p.devices.size):
            if p.clean_seconds[s, d] < np.inf:
                cold = p.clean_seconds[s, d] - p.decode_seconds[s, d]
                prefix = float(stage.prefix_tokens)
                warm = prefill_seconds(p, s, d, int(stage.queries), prefix, 0.0)
                saved[s, d] = max(0.0, cold - warm)  # not below 0 by rounding


def new_state(compiled: CompiledProblem) -> Buffer:
    """A zeroed state buffer for the problem."""
    return np.zeros(compiled.state_bytes, np.uint8)


__all__ = ["CompiledProblem", "compile_problem", "new_state"]
