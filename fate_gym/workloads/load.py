"""Nominal work of a workflow on a cluster, to state arrival rates as a load factor.

A load of 1 means that work arrives as fast as all devices together do it when every stage runs on
the mean of the devices that can host it, whole, with its model resident and nothing else cached.
Loads of weights, transfers and idle devices come on top, cached prefixes come off: what a cluster
sustains depends on the policy, the load factor does not.
"""

from __future__ import annotations

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu, Model
from fate_gym.errors import InputError
from fate_gym.problem import Problem, Stage


def capacity_per_s(problem: Problem) -> float:
    """Workflows a second that are a load of 1 on the problem's cluster.

    Raises:
        InputError: if no stage takes time on a device, as when all are tools.
    """
    seconds = sum(device_seconds(problem))
    if seconds <= 0:
        raise InputError(
            "the workflows do no work on devices",
            field="arrivals.load",
            remedy="give arrivals.rate_per_s",
        )
    return len(problem.cluster.devices) * len(problem.workflows) / seconds


def device_seconds(problem: Problem) -> list[float]:
    """Nominal seconds of work of each workflow, summed over stages.

    The seconds of a stage are the mean over its eligible devices of prefill and decode by
    docs/execution-model.md, with all weights of a mixture read and all waves full.
    """
    gpu_of = {device.id: device.gpu for device in problem.cluster.devices}
    hosts: dict[tuple[str | None, tuple[str, ...] | None], tuple[str, ...]] = {}
    totals = []
    for workflow in problem.workflows:
        inherited = dict.fromkeys((stage.id for stage in workflow.stages), 0)
        for edge in workflow.edges:
            inherited[edge.child] += edge.inherited_tokens
        total = 0.0
        for stage in workflow.stages:
            if stage.seconds_on is not None:
                total += sum(stage.seconds_on.values()) / len(stage.seconds_on)
            elif stage.model is not None:
                key = (stage.model, stage.allowed_devices)
                if key not in hosts:
                    hosts[key] = tuple(problem.eligible_devices(workflow, stage))
                model = problem.model_facts[stage.model]
                gpus = [gpu_of[name] for name in hosts[key]]
                total += sum(
                    stage_seconds(stage, inherited[stage.id], model, problem.gpu_facts[gpu])
                    for gpu in gpus
                    if gpu is not None
                ) / len(gpus)
        totals.append(total)
    return totals


def stage_seconds(stage: Stage, inherited: int, model: Model, gpu: Gpu) -> float:
    """Seconds of prefill and decode of all queries of a stage on one GPU, nothing cached."""
    facts = catalog.execution()
    peak, memory_rate = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
    flops, reading = gpu.mfu * peak, model.read_bytes / (gpu.mbu * memory_rate)
    queries, prefix, own = stage.queries, stage.prefix_tokens, stage.prompt_tokens + inherited
    tokens = prefix + queries * own
    fixed, traffic = facts.layer_seconds(model), facts.traffic_bytes(model) / memory_rate
    pairs = prefix**2 / 2 + queries * own * (prefix + own / 2)
    products = model.layer_params * tokens + model.head_params * queries
    prefill = max(2.0 * products * (1 + facts.mfu_ramp_tokens / max(1, tokens)) / flops, reading)
    prefill += (
        4.0 * model.layers * model.attention_width * pairs / (facts.attention_mfu(gpu) * peak)
    )
    prefill += tokens * traffic + fixed + facts.prefill_launch_s
    room = gpu.memory_gb * GB * facts.memory_utilisation - model.weight_bytes
    context = (own + stage.output_tokens) * model.kv_bytes_per_token
    room -= prefix * model.kv_bytes_per_token
    batch = max(1, min(facts.max_batch, queries, int(room / context) if context else 10**9))
    waves = -(-queries // batch)
    params = model.layer_params + model.head_params
    step = max(2.0 * params * (batch + facts.mfu_ramp_tokens) / flops, reading)
    attended = batch * (prefix + own + stage.output_tokens / 2) * model.kv_bytes_per_token
    step += attended / (facts.attention_mbu(gpu) * memory_rate) + batch * traffic + fixed
    return prefill + waves * stage.output_tokens * step
