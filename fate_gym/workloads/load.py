"""Nominal work of a workflow on a cluster, to state arrival rates as a load factor.

A load of 1 means that work arrives as fast as all devices together do it when every stage runs on
the mean of the devices that can host it, whole, with its model resident and nothing else cached.
Loads of weights, transfers and idle devices come on top, cached prefixes come off: what a cluster
sustains depends on the policy, the load factor does not.
"""

from __future__ import annotations

from collections import Counter

from fate_gym import catalog
from fate_gym.catalog import GB, Gpu, Model
from fate_gym.errors import InputError
from fate_gym.problem import Problem, Stage


def capacity_per_s(problem: Problem) -> float:
    """Workflows per second that are a load of 1 on the problem's cluster.

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
    hosts: dict[tuple[str, tuple[str, ...] | None], dict[str, float]] = {}
    totals = []
    for workflow in problem.workflows:
        total = 0.0
        for stage in workflow.stages:
            if stage.seconds_on is not None:
                total += sum(stage.seconds_on.values()) / len(stage.seconds_on)
            elif stage.model is not None:
                key = (stage.model, stage.allowed_devices)
                if key not in hosts:
                    names = [gpu_of[name] for name in problem.eligible_devices(workflow, stage)]
                    hosts[key] = {gpu: n / len(names) for gpu, n in Counter(names).items() if gpu}
                tokens = sum(edge.inherited_tokens for edge in workflow.parents[stage.id])
                model = problem.model_facts[stage.model]
                total += sum(
                    share * _stage_seconds(stage, tokens, model, problem.gpu_facts[gpu])
                    for gpu, share in hosts[key].items()
                )
        totals.append(total)
    return totals


def _stage_seconds(stage: Stage, inherited: int, model: Model, gpu: Gpu) -> float:
    """Seconds of prefill and decode of all queries of a stage on one GPU, nothing cached."""
    facts, kv = catalog.execution(), model.kv_bytes_per_token
    peak, bandwidth = gpu.tflops * 1e12, gpu.bandwidth_gb_s * GB
    layers_s = 2.0 * model.layer_params / (gpu.mfu * peak)  # products of a token with all layers
    head_s = 2.0 * model.head_params / (gpu.mfu * peak)  # and with the output projection
    reading_s = model.read_bytes / (gpu.mbu * bandwidth)
    pair_s = 4.0 * model.layers * model.attention_width / (facts.attention_mfu(gpu) * peak)
    context_s = kv / (facts.attention_mbu(gpu) * bandwidth)
    traffic_s = facts.traffic_bytes(model) / bandwidth
    fixed_s, ramp = facts.layer_seconds(model), facts.mfu_ramp_tokens

    queries, prefix, own = stage.queries, stage.prefix_tokens, stage.prompt_tokens + inherited
    tokens = prefix + queries * own
    products = layers_s * tokens + head_s * queries
    prefill = max(products * (1 + ramp / max(1, tokens)), reading_s)
    prefill += pair_s * (prefix**2 / 2 + queries * own * (prefix + own / 2))
    prefill += tokens * traffic_s + fixed_s + facts.prefill_launch_s

    context = (own + stage.output_tokens) * kv
    room = gpu.memory_gb * GB * facts.memory_utilisation - model.weight_bytes - prefix * kv
    batch = max(1, min(facts.max_batch, queries, int(room / context) if context else 10**9))
    step = max((layers_s + head_s) * (batch + ramp), reading_s)
    step += batch * (prefix + own + stage.output_tokens / 2) * context_s
    step += batch * traffic_s + fixed_s
    return prefill + -(-queries // batch) * stage.output_tokens * step
