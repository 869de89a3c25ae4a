"""What the observation needs to know of a problem, worked out once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fate_gym.compiled import compiled, plain
from fate_gym.env.features import (
    DEVICES,
    HALF_DEGREE,
    HALF_FLOPS,
    HALF_HOST_RATE,
    HALF_LINK_RATE,
    HALF_MEMORY,
    HALF_MEMORY_RATE,
    HALF_OUTPUT_TOKENS,
    HALF_QUERIES,
    HALF_TOKENS,
    HALF_TRANSFER,
    LONG,
    STAGE_WIDTH,
    STAGES,
)
from fate_gym.env.layout import FACTS_HEAD, FACTS_HEAD_BYTES, FactsView, facts_bytes, facts_view
from fate_gym.sim import CompiledProblem
from fate_gym.sim.cost import batch_limit
from fate_gym.sim.layout import (
    MODEL_STAGE,
    TOOL_STAGE,
    Array,
    Buffer,
    ProblemView,
    problem_view,
)

Floats = NDArray[np.float64]


def _window_order(p: ProblemView) -> NDArray[np.int64]:
    """(S,) stages by the latest start with which their workflow takes twice as long as alone.

    Inside a workflow that is the order of upward ranks. Over workflows ranks alone would let a long
    one that has just arrived fill the window.
    """
    ranks, flows = p.stages["upward_rank"], p.workflows
    alone = np.maximum.reduceat(ranks, flows["stages_from"])
    latest = (flows["arrival"] + 2.0 * alone)[p.stages["workflow"]] - ranks
    return p.by_rank[np.argsort(latest[p.by_rank], kind="stable")]


def problem_facts(compiled: CompiledProblem, models: int, time_scale: float) -> Buffer:
    """The facts buffer of a problem (`fate_gym.env.layout`).

    Args:
        compiled: the problem.
        models: L, the number of models that features tell apart.
        time_scale: seconds at which a time is 0.5.
    """
    p = compiled.view
    s, d, m = compiled.shape[:3]
    buffer = np.zeros(facts_bytes(s, d, m, models), np.uint8)
    buffer[:FACTS_HEAD_BYTES].view(FACTS_HEAD)["models"] = models
    facts: FactsView = plain(facts_view)(buffer, p)
    eligible = np.isfinite(p.clean_seconds)
    best = np.where(eligible.any(axis=1), p.clean_seconds.min(axis=1), p.stages["tool_seconds"])
    facts.stages["best"] = best
    facts.stages["position"][_window_order(p)] = np.arange(s)
    facts.stages["eligible"] = eligible.sum(axis=1)
    with np.errstate(invalid="ignore"):
        facts.pairs["speed"] = np.where(p.clean_seconds > 0, best[:, None] / p.clean_seconds, 1.0)
    facts.pairs["speed"][~eligible] = 0.0
    facts.pairs["can"] = eligible
    _trace_paths(compiled.buffer, buffer)
    _fill_children(facts, p, eligible)
    facts.head["scale"] = _scale(facts, p)
    facts.head["first_arrival"] = p.workflows["arrival"].min()
    _fill_stage_rows(facts, p, models, time_scale)
    _fill_device_rows(facts, p, eligible)
    return buffer


def _scale(facts: FactsView, p: ProblemView) -> float:
    """The longest path or the mean work of a device, whichever is more; seconds, positive."""
    path = np.maximum.reduceat(facts.stages["path"], p.workflows["stages_from"]).max()
    on_device = p.stages["kind"] != TOOL_STAGE
    work = facts.stages["best"][on_device].sum() / p.devices.size
    return float(max(path, work)) or 1.0


@compiled
def _trace_paths(problem: Buffer, facts: Buffer) -> None:
    p = problem_view(problem)
    f = facts_view(facts, p)
    for i in range(p.topological.size - 1, -1, -1):
        s = p.topological[i]
        stage = p.stages[s]
        tail = 0.0
        for e in range(stage.children_from, stage.children_to):
            tail = max(tail, f.stages[p.edges[p.out_edges[e]].child].path)
        f.stages[s].path = f.stages[s].best + tail
        if stage.kind == MODEL_STAGE:
            tokens = stage.prompt_tokens + stage.inherited_tokens + stage.output_tokens
            f.stages[s].context = tokens * p.models[stage.model].kv
            for d in range(p.devices.size):
                f.pairs[s, d].batch = batch_limit(p, s, d)


def _fill_children(facts: FactsView, p: ProblemView, eligible: Array) -> None:
    parent, child = p.edges["parent"], p.edges["child"]
    children = np.maximum(1, p.stages["children_to"] - p.stages["children_from"])
    model = p.stages["model"]
    with_model = model[child] >= 0
    shares = np.zeros(facts.child_models.shape)
    np.add.at(shares, (parent[with_model], model[child][with_model]), 1.0)
    facts.child_models[:] = shares / children[:, None]
    fit = np.zeros(eligible.shape)
    np.add.at(fit, parent, eligible[child])
    facts.pairs["fit"] = fit / children[:, None]
    inherits = (p.edges["same_model"] > 0) & (p.edges["inherited_tokens"] > 0)
    to = child[inherits]
    tokens = p.stages["queries"][to] * p.edges["inherited_tokens"][inherits]
    flops = 2.0 * p.models["active"][model[to]] * tokens
    saved = np.zeros(eligible.shape)
    np.add.at(saved, parent[inherits], eligible[to] * flops[:, None] / p.devices["flops"])
    facts.pairs["saved"] = saved


def _half(x: Any, half: float) -> Floats:
    return np.asarray(1.0 - half / (np.asarray(x, np.float64) + half))


def _fill_stage_rows(facts: FactsView, p: ProblemView, models: int, time_scale: float) -> None:
    stages, edges = p.stages, p.edges
    count, long = stages.size, LONG * time_scale
    upward = stages["upward_rank"]
    first = p.workflows["stages_from"][stages["workflow"]]
    longest = np.maximum.reduceat(upward, p.workflows["stages_from"])[stages["workflow"]]
    model = stages["model"]
    has_model = model >= 0
    kv = np.where(has_model, p.models["kv"][model], 0.0) if p.models.size else np.zeros(count)
    weights = np.where(has_model, p.models["weight_bytes"][model], 0.0) if p.models.size else kv
    context = stages["queries"] * facts.stages["context"] + stages["prefix_tokens"] * kv
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
        "queries": _half(stages["queries"], HALF_QUERIES),
        "prefix": _half(stages["prefix_tokens"], HALF_TOKENS),
        "prompt": _half(stages["prompt_tokens"], HALF_TOKENS),
        "inherited": _half(stages["inherited_tokens"], HALF_TOKENS),
        "output": _half(stages["output_tokens"], HALF_OUTPUT_TOKENS),
        "best_seconds": _half(facts.stages["best"], time_scale),
        "mean_seconds": _half(stages["mean_seconds"], time_scale),
        "upward_rank": _half(upward, long),
        "criticality": np.divide(upward, longest, out=np.ones(count), where=longest > 0),
        "slack": _half(np.maximum(0.0, longest - stages["downward_rank"] - upward), long),
        "reachability": facts.stages["eligible"] / p.devices.size,
        "weights": _half(weights, HALF_MEMORY),
        "context": _half(context, HALF_MEMORY),
        "parents": _half(stages["parents_to"] - stages["parents_from"], HALF_DEGREE),
        "children": _half(children, HALF_DEGREE),
        "input": _half(arriving, HALF_TRANSFER),
        "result": _half(leaving, HALF_TRANSFER),
        "children_same_model": same / np.maximum(1, children),
        "prefix_peers": _half(peers, HALF_DEGREE),
        "chooses": stages["chooses"],
    }
    for name, value in values.items():
        facts.stage_rows[:, STAGES.index(name)] = value
    numbers = np.flatnonzero(has_model)
    facts.stage_rows[numbers, STAGE_WIDTH + model[numbers]] = 1.0
    at = STAGE_WIDTH + models
    facts.stage_rows[:, at : at + p.models.size] = facts.child_models


def _fill_device_rows(facts: FactsView, p: ProblemView, eligible: Array) -> None:
    devices = p.devices
    count = devices.size
    others = ~np.eye(count, dtype=np.bool_)
    rate = (p.link_bandwidth * others).sum(axis=0) / max(1, count - 1)
    peers = (devices["node"][:, None] == devices["node"][None, :]).sum(axis=0) - 1
    model = p.stages["model"]
    hosted = np.zeros((p.models.size + 1, count))
    np.maximum.at(hosted, model, eligible)
    # A device without a GPU has no memory, and no rates: tasks bring their own seconds.
    gpu = devices["memory"] > 0
    values = {
        "present": np.ones(count),
        "memory": _half(devices["memory"], HALF_MEMORY),
        "flops": _half(devices["flops"], HALF_FLOPS) * gpu,
        "bandwidth": _half(devices["bandwidth"], HALF_MEMORY_RATE) * gpu,
        "host_rate": _half(devices["host_bandwidth"], HALF_HOST_RATE),
        "link_rate": _half(rate, HALF_LINK_RATE),
        "node_peers": peers / count,
        "hosts_models": hosted[: p.models.size].sum(axis=0) / max(1, p.models.size),
    }
    for name, value in values.items():
        facts.device_rows[:, DEVICES.index(name)] = value


__all__ = ["problem_facts"]
