"""The facts of a problem that observations need, computed once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.env import features as ft
from fate_gym.env.schema import FactsArrays
from fate_gym.env.spec import Spec
from fate_gym.kernel.ranks import find_tails
from fate_gym.kernel.schema import MODEL_STAGE, TOOL_STAGE, ProblemArrays
from fate_gym.sim import CompiledProblem

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def problem_facts(compiled: CompiledProblem, spec: Spec) -> FactsArrays:
    """Return the facts of a problem for environments with these options and sizes."""
    p = compiled.arrays
    s, d, m = compiled.shape[:3]
    options, models = spec.options, spec.limits.models
    f = FactsArrays.allocate(
        O=len(spec.rewards.objectives),
        S=s,
        D=d,
        M=m,
        W=p.workflows.size,
        STAGE_F=ft.STAGE_WIDTH + 2 * models,
        DEVICE_F=ft.DEVICE_WIDTH + models,
    )
    f.shards, f.positions, f.first_team = options.max_shards, spec.positions, spec.limits.devices
    f.objectives[:], f.discount = spec.rewards.objectives, options.discount
    f.penalty, f.most_invalid = options.invalid_penalty, options.max_invalid_actions
    f.time_scale = options.time_scale
    eligible = np.isfinite(p.clean_seconds)
    best = np.where(eligible.any(axis=1), p.clean_seconds.min(axis=1), p.stages["tool_seconds"])
    f.stages["best"] = best
    f.stages["alone"] = _alone(p)
    f.order[p.by_rank] = np.arange(s)
    f.stages["eligible"] = eligible.sum(axis=1)
    with np.errstate(invalid="ignore"):
        f.pairs["speed"] = np.where(p.clean_seconds > 0, best[:, None] / p.clean_seconds, 1.0)
    f.pairs["speed"][~eligible] = 0.0
    tails = np.empty(s)
    find_tails(p, best, tails)
    f.stages["path"] = best + tails
    _fill_children(f, p, eligible)
    f.scale = _scale(f, p)
    f.unit = options.reward_scale or f.scale
    f.ideal[:] = _ideal(f, p)
    f.latency_unit = options.reward_scale or _latency_unit(f, p)
    f.first_arrival = p.workflows["arrival"][p.arrivals[0]]
    _fill_stage_rows(f, p)
    _fill_device_rows(f, p, eligible)
    return f


def _alone(p: ProblemArrays) -> Floats:
    """Return (S,) the largest upward rank in each stage's workflow, seconds."""
    longest = np.maximum.reduceat(p.stages["upward_rank"], p.workflows["stages_from"])
    return np.asarray(longest[p.stages["workflow"]])


def _scale(f: FactsArrays, p: ProblemArrays) -> float:
    """Return the longest path or the mean work per device, whichever is larger; seconds, > 0."""
    path = f.stages["path"].max()
    on_device = p.stages["kind"] != TOOL_STAGE
    work = f.stages["best"][on_device].sum() / p.devices.size
    return float(max(path, work)) or 1.0


def _ideal(f: FactsArrays, p: ProblemArrays) -> Floats:
    """Return (W,) a workflow's longest path or mean work per device, whichever is larger."""
    first = p.workflows["stages_from"]
    path = np.maximum.reduceat(f.stages["path"], first)
    on_device = np.where(p.stages["kind"] != TOOL_STAGE, f.stages["best"], 0.0)
    return np.asarray(np.maximum(path, np.add.reduceat(on_device, first) / p.devices.size))


def _latency_unit(f: FactsArrays, p: ProblemArrays) -> float:
    """Return the mean least latency / stages, times a hundred; seconds, positive."""
    placed = np.count_nonzero(p.stages["kind"] != TOOL_STAGE)
    return float(f.ideal.mean() * 100.0 / max(1, placed)) or 1.0


def _fill_children(f: FactsArrays, p: ProblemArrays, eligible: Bools) -> None:
    parent, child = p.edges["parent"], p.edges["child"]
    children = np.maximum(1, p.stages["children_to"] - p.stages["children_from"])
    model = p.stages["model"]
    with_model = model[child] >= 0
    shares = np.zeros(f.child_models.shape)
    np.add.at(shares, (parent[with_model], model[child][with_model]), 1.0)
    f.child_models[:] = shares / children[:, None]
    fit = np.zeros(eligible.shape)
    np.add.at(fit, parent, eligible[child])
    f.pairs["fit"] = fit / children[:, None]
    inherits = (p.edges["same_model"] > 0) & (p.edges["inherited_tokens"] > 0)
    to = child[inherits]
    tokens = p.stages["queries"][to] * p.edges["inherited_tokens"][inherits]
    flops = 2.0 * p.models["active"][model[to]] * tokens
    saved = np.zeros(eligible.shape)
    np.add.at(saved, parent[inherits], eligible[to] * flops[:, None] / p.devices["flops"])
    f.pairs["saved"] = saved


def _half(x: Any, half: float) -> Floats:
    return np.asarray(1.0 - half / (np.asarray(x, np.float64) + half))


def _fill_stage_rows(f: FactsArrays, p: ProblemArrays) -> None:
    stages, edges = p.stages, p.edges
    count, scale = stages.size, f.time_scale
    upward = stages["upward_rank"]
    first = p.workflows["stages_from"][stages["workflow"]]
    longest = f.stages["alone"]
    model = stages["model"]
    has_model = model >= 0
    kv = np.where(has_model, p.models["kv"][model], 0.0) if p.models.size else np.zeros(count)
    weights = np.where(has_model, p.models["weight_bytes"][model], 0.0) if p.models.size else kv
    own = stages["prompt_tokens"] + stages["inherited_tokens"] + stages["output_tokens"]
    context = stages["queries"] * (own * kv) + stages["prefix_tokens"] * kv
    children = stages["children_to"] - stages["children_from"]
    arriving = np.bincount(edges["child"], weights=edges["bytes"], minlength=count)
    leaving = np.bincount(edges["parent"], weights=edges["bytes"], minlength=count)
    same = np.bincount(edges["parent"], weights=edges["same_model"], minlength=count)
    prefix = stages["prefix"]
    _, group, size = np.unique(
        np.stack([first, prefix]), axis=1, return_inverse=True, return_counts=True
    )
    peers = np.where(prefix >= 0, size[group.reshape(-1)] - 1, 0)
    values = {
        "present": np.ones(count),
        "is_model": stages["kind"] == MODEL_STAGE,
        "queries": _half(stages["queries"], ft.HALF_QUERIES),
        "prefix": _half(stages["prefix_tokens"], ft.HALF_TOKENS),
        "prompt": _half(stages["prompt_tokens"], ft.HALF_TOKENS),
        "inherited": _half(stages["inherited_tokens"], ft.HALF_TOKENS),
        "output": _half(stages["output_tokens"], ft.HALF_OUTPUT_TOKENS),
        "best_seconds": _half(f.stages["best"], scale),
        "mean_seconds": _half(stages["mean_seconds"], scale),
        "upward_rank": _half(upward, ft.LONG * scale),
        "criticality": np.divide(upward, longest, out=np.ones(count), where=longest > 0),
        "slack": _half(
            np.maximum(0.0, longest - stages["downward_rank"] - upward), ft.LONG * scale
        ),
        "reachability": f.stages["eligible"] / p.devices.size,
        "weights": _half(weights, ft.HALF_MEMORY),
        "context": _half(context, ft.HALF_MEMORY),
        "parents": _half(stages["parents_to"] - stages["parents_from"], ft.HALF_DEGREE),
        "children": _half(children, ft.HALF_DEGREE),
        "input": _half(arriving, ft.HALF_TRANSFER),
        "result": _half(leaving, ft.HALF_TRANSFER),
        "children_same_model": same / np.maximum(1, children),
        "prefix_peers": _half(peers, ft.HALF_DEGREE),
        "chooses": stages["chooses"],
    }
    for name, value in values.items():
        f.stage_rows[:, getattr(ft.STAGE, name)] = value
    numbers = np.flatnonzero(has_model)
    f.stage_rows[numbers, ft.STAGE_WIDTH + model[numbers]] = 1.0
    at = ft.STAGE_WIDTH + (f.stage_rows.shape[1] - ft.STAGE_WIDTH) // 2
    f.stage_rows[:, at : at + p.models.size] = f.child_models


def _fill_device_rows(f: FactsArrays, p: ProblemArrays, eligible: Bools) -> None:
    devices = p.devices
    count = devices.size
    others = ~np.eye(count, dtype=np.bool_)
    rate = (p.link_bandwidth * others).sum(axis=0) / max(1, count - 1)
    peers = (devices["node"][:, None] == devices["node"][None, :]).sum(axis=0) - 1
    model = p.stages["model"]
    hosted = np.zeros((p.models.size + 1, count))
    np.maximum.at(hosted, model, eligible)
    # A device without a GPU has no memory and no rates: tasks come with their own seconds.
    gpu = devices["memory"] > 0
    values = {
        "present": np.ones(count),
        "memory": _half(devices["memory"], ft.HALF_MEMORY),
        "flops": _half(devices["flops"], ft.HALF_FLOPS) * gpu,
        "bandwidth": _half(devices["bandwidth"], ft.HALF_MEMORY_RATE) * gpu,
        "host_rate": _half(devices["host_bandwidth"], ft.HALF_HOST_RATE),
        "link_rate": _half(rate, ft.HALF_LINK_RATE),
        "node_peers": peers / count,
        "hosts_models": hosted[: p.models.size].sum(axis=0) / max(1, p.models.size),
    }
    for name, value in values.items():
        f.device_rows[:, getattr(ft.DEVICE, name)] = value
