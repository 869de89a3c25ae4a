"""Nominal work of a workflow on a cluster, to express arrival rates as a load factor.

At a load of 1, work arrives as fast as all devices together can do it if every stage runs whole on
the average of the devices that can host it, with its model resident and nothing else cached.
In a prefix tree, what an earlier call of the same session left counts as cached: agents send their
whole context with every call, and no engine recomputes it each time. Weight loads, transfers and
idle devices add to this, prefixes shared with others reduce it: the rate that a cluster sustains
depends on the policy, the load factor does not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fate_gym import catalog
from fate_gym.catalog import GB, Model
from fate_gym.errors import InputError
from fate_gym.problem import Device, Prefix, Problem, Stage, Workflow
from fate_gym.problem.sessions import prefix_branches

_OF_NO_MATTER = ("id", "node", "load_gb_s", "network_gb_s")
"""Device fields that do not affect nominal work."""


def capacity_per_s(problem: Problem, arrivals: int | None = None) -> float:
    """Return the arrivals per second that are a load of 1 on the problem's cluster.

    Args:
        problem: the workflows that arrive.
        arrivals: number of arrivals that they make, if sessions of several workflows arrive as one;
            None: one for each workflow.

    Raises:
        InputError: if no stage takes time on a device, for example because all are tools.
    """
    seconds = sum(device_seconds(problem))
    if seconds <= 0:
        raise InputError(
            "the workflows do no work on devices",
            field="arrivals.load",
            remedy="give arrivals.rate_per_s",
        )
    if arrivals is None:
        arrivals = len(problem.workflows)
    return len(problem.cluster.devices) * arrivals / seconds


def own_reuse(workflows: Sequence[Workflow]) -> list[dict[str, int]]:
    """Return, by stage id, the prefix tokens that an earlier stage of the session has left.

    A workflow without a session is a session of its own; if none of its prefixes branches and no
    stage extends its prefix, its prefixes count in full.
    """
    branches = prefix_branches(workflows)
    left: dict[str, dict[str, int]] = defaultdict(dict)
    found = []
    for workflow in workflows:
        cached = left[workflow.session or workflow.id]
        reused = {}
        extends = any(stage.extends_prefix for stage in workflow.stages)
        if workflow.session is not None or workflow.prefixes or extends:
            for stage in workflow.stages:
                if stage.prefix_group is not None and stage.model is not None:
                    reused[stage.id] = _use_path(stage, cached, branches)
        found.append(reused)
    return found


def _use_path(stage: Stage, cached: dict[str, int], branches: Mapping[str, Prefix]) -> int:
    """Return how much of a stage's prefix is cached; mark it and its extension as cached."""
    end = stage.prefix_tokens
    if stage.extends_prefix:
        end += stage.prompt_tokens + stage.output_tokens
    key: str | None = stage.prefix_group
    wanted, reused = stage.prefix_tokens, None
    while key is not None:
        branch = branches.get(key)
        if reused is None and key in cached:
            reused = min(wanted, cached[key])
        cached[key] = max(cached.get(key, 0), end)
        key = None if branch is None else branch.parent
        if branch is not None:
            end = min(end, branch.shared_tokens)
            wanted = min(wanted, branch.shared_tokens)
    return reused or 0


def device_seconds(problem: Problem) -> list[float]:
    """Return the nominal seconds of work of each workflow, summed over stages.

    The seconds of a stage are the mean over its eligible devices of prefill and decode by
    docs/execution-model.md, with all weights of a mixture read and all waves full. Batching devices
    count as exclusive ones, so that the same workflows arrive at the same times on both.
    """
    devices = {device.id: device for device in problem.cluster.devices}
    hosts: dict[tuple[str, tuple[str, ...] | None], list[tuple[_Rates, float]]] = {}
    totals = []
    for workflow, reused in zip(problem.workflows, own_reuse(problem.workflows), strict=True):
        total = 0.0
        for stage in workflow.stages:
            if stage.seconds_on is not None:
                total += sum(stage.seconds_on.values()) / len(stage.seconds_on)
            elif stage.model is not None:
                key = (stage.model, stage.allowed_devices)
                if key not in hosts:
                    model = problem.model_facts[stage.model]
                    names = problem.eligible_devices(workflow, stage)
                    # Equal devices are computed once.
                    alike = Counter(
                        devices[name].model_copy(update=dict.fromkeys(_OF_NO_MATTER))
                        for name in names
                    )
                    hosts[key] = [
                        (_Rates.of(model, problem, device), count / len(names))
                        for device, count in alike.items()
                    ]
                tokens = sum(edge.inherited_tokens for edge in workflow.parents[stage.id])
                cached = reused.get(stage.id, 0)
                total += sum(
                    share * rates.seconds(stage, tokens, cached) for rates, share in hosts[key]
                )
        totals.append(total)
    return totals


@dataclass(frozen=True)
class _Rates:
    """The costs of a model on a GPU, in seconds per token, token pair, and weight read."""

    layers_s: float  # products of a token with all layers
    head_s: float  # product with the output projection
    reading_s: float  # product of a token with the output projection
    pair_s: float  # prefill attention of a token to one other
    context_s: float  # the same in decode
    traffic_s: float
    fixed_s: float  # per prefill or step
    launch_s: float
    ramp: float
    room: float  # bytes beside the weights
    kv: float
    most: int

    @classmethod
    def of(cls, model: Model, problem: Problem, device: Device) -> _Rates:
        assert device.gpu is not None
        gpu = problem.gpu_facts[device.gpu].times(device.tensor_parallel)
        facts = catalog.execution().on(gpu)
        peak, memory_rate = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
        flops = gpu.mfu * peak
        width = 4.0 * model.layers * model.attention_width
        traffic_s = facts.traffic_bytes(model) / memory_rate
        fixed_s = facts.layer_seconds(model)
        if device.tensor_parallel > 1:
            peer = device.peer_gb_s or facts.peer_gb_s(gpu)
            reduce_rate = facts.reduce_gb_s(peer, device.tensor_parallel) * GB
            traffic_s += facts.all_reduce_bytes(model) / reduce_rate
            fixed_s += facts.all_reduces(model) * facts.all_reduce_s
        return cls(
            layers_s=2.0 * model.layer_params / flops,
            head_s=2.0 * model.head_params / flops,
            reading_s=model.read_bytes / (gpu.mbu * memory_rate),
            pair_s=width / (facts.attention_mfu(gpu) * peak),
            context_s=model.kv_bytes_per_token / (facts.attention_mbu(gpu) * memory_rate),
            traffic_s=traffic_s,
            fixed_s=fixed_s,
            launch_s=facts.prefill_launch_s,
            ramp=facts.mfu_ramp_tokens,
            room=gpu.memory_gb * GB * facts.memory_utilisation - model.weight_bytes,
            kv=model.kv_bytes_per_token,
            most=facts.max_batch,
        )

    def seconds(self, stage: Stage, inherited: int, cached: int) -> float:
        queries, prefix, own = stage.queries, stage.prefix_tokens, stage.prompt_tokens + inherited
        tokens = prefix - cached + queries * own
        products = self.layers_s * tokens + self.head_s * queries
        prefill = max(products * (1 + self.ramp / max(1, tokens)), self.reading_s)
        prefill += self.pair_s * ((prefix**2 - cached**2) / 2 + queries * own * (prefix + own / 2))
        prefill += tokens * self.traffic_s + self.fixed_s + self.launch_s
        context = (own + stage.output_tokens) * self.kv
        room = self.room - prefix * self.kv
        batch = max(1, min(self.most, queries, int(room / context) if context else 10**9))
        waves = -(-queries // batch)
        step = max((self.layers_s + self.head_s) * (batch + self.ramp), self.reading_s)
        step += batch * (prefix + own + stage.output_tokens / 2) * self.context_s
        step += batch * self.traffic_s + self.fixed_s
        return prefill + waves * stage.output_tokens * step
