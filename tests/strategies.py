"""Hypothesis strategies for random valid problems, for every test that needs one.

`problems` mixes all features of the execution model: GPUs and models of the catalogue, prefix
groups with several lengths, edges with bytes and inherited tokens, tools, fixed stages,
allow-lists, arrivals, turns that follow others, links, uncertainty. Problems are small (1-12
stages, 1-4 devices) and always valid: each stage is reduced to fit on some device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from hypothesis import strategies as st

from fate_gym import catalog
from fate_gym.catalog import GB, Model
from fate_gym.problem import (
    Branch,
    Choice,
    Cluster,
    Device,
    Edge,
    Failures,
    FanOut,
    Link,
    Options,
    Outage,
    Prefix,
    Problem,
    Stage,
    Workflow,
)
from fate_gym.problem.sessions import apart

Kind = Literal["any", "llm", "pressure", "mixed", "classical"]
"""The features of a problem.

``llm``: model and tool stages; ``pressure``: the same on one or two devices, with contexts so long
that caches and weights are evicted and stages take several waves; ``mixed``: fixed stages and
devices without a GPU besides; ``classical``: `Problem.classical`; ``any``: one of these.
"""

GPUS = ("A10G", "L40S", "A100-80", "H100-SXM")
SMALL_GPUS = ("T4", "A10G", "A100-40")
MODELS = (
    "bge-large", "Phi-3-mini", "Qwen2.5-7B", "Llama-3.1-8B", "Gemma-2-9B", "Qwen2.5-14B",
    "Llama-3.1-70B-AWQ", "Tiny-MoE",
)  # fmt: skip

TINY_MOE = Model(
    name="Tiny-MoE", params_b=6.0, active_b=1.5, layers=16, hidden=1024, kv_heads=4, head_dim=64,
    weight_gb=12.0, experts=16, experts_per_token=2,
)  # fmt: skip
"""A mixture of experts small enough for a 16 GB GPU, in every problem with models."""

_MOST_TOKENS = 60_000


def _model(name: str) -> Model:
    return TINY_MOE if name == TINY_MOE.name else catalog.model(name)


def _positive(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_infinity=False)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def clusters(
    draw: st.DrawFn,
    *,
    gpus: Sequence[str] = GPUS,
    most: int = 4,
    without_gpu: bool = False,
) -> Cluster:
    """Draw clusters of 1 to ``most`` devices on up to 3 nodes; the first always has a GPU.

    With ``without_gpu`` the other devices may have none.
    """
    count = draw(st.integers(1, most))
    kinds = st.sampled_from(gpus)
    types = [draw(_maybe(kinds) if without_gpu and i else kinds) for i in range(count)]
    devices = tuple(
        Device(
            id=f"d{i}",
            gpu=types[i],
            tensor_parallel=draw(st.sampled_from([1, 1, 1, 2, 4])) if types[i] else 1,
            node=f"n{draw(st.integers(0, 2))}",
            load_gb_s=draw(_maybe(_positive(0.5, 60))),
            peer_gb_s=draw(_maybe(_positive(1, 500))),
            network_gb_s=draw(_maybe(_positive(0.1, 50))),
        )
        for i in range(count)
    )
    pairs = [(i, j) for i in range(count) for j in range(count) if i < j]
    linked = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2)) if pairs else []
    return Cluster(
        id="random",
        devices=devices,
        links=tuple(
            Link(
                a=f"d{pair[0]}",
                b=f"d{pair[1]}",
                gb_s=draw(_positive(0.1, 500)),
                latency_s=draw(st.sampled_from([0.0, 1e-5, 0.01])),
            )
            for pair in linked
        ),
        network_gb_s=draw(_positive(0.1, 50)),
        network_latency_s=draw(st.sampled_from([0.0, 3e-5, 1e-3])),
        load_gb_s=draw(_maybe(_positive(0.5, 60))),
        load_init_s=draw(_maybe(st.sampled_from([0.0, 0.3, 10.0]))),
        memory_utilisation=draw(_maybe(_positive(0.85, 1.0))),
    )


@st.composite
def workflows(
    draw: st.DrawFn,
    cluster: Cluster | None = None,
    *,
    id: str = "w0",
    kind: Kind = "llm",
    most: int = 12,
    branches: tuple[Prefix, ...] = (),
) -> Workflow:
    """Draw workflows of 1 to ``most`` stages that fit on ``cluster`` (default: a random one).

    Parents may stand behind their children in the file. Stages of different workflows share the
    prefix groups ``g0`` and ``g1``, and those of ``branches``.
    """
    if cluster is None:
        cluster = draw(clusters())
    stages: list[Stage] = []
    edges: list[Edge] = []
    for i in range(draw(st.integers(1, most))):
        parents = draw(
            st.lists(st.integers(0, i - 1), unique=True, max_size=3) if i else st.just([])
        )
        stage, tokens = draw(_stages(cluster, stages, parents, kind, branches))
        edges += [
            Edge(
                parent=stages[parent].id,
                child=stage.id,
                bytes=draw(st.sampled_from([0.0, 0.0, 2e3, 3e8]) | _positive(0, 5e9)),
                inherited_tokens=tokens[parent],
            )
            for parent in parents
        ]
        stages.append(stage)
    choices, fan_outs = draw(_choices([stage.id for stage in stages], edges))
    return Workflow(
        id=id,
        choices=choices,
        fan_outs=fan_outs,
        prefixes=branches,
        stages=tuple(draw(st.permutations(stages))),
        edges=tuple(draw(st.permutations(edges))),
        arrival=draw(st.sampled_from([0.0, 0.0, 1.5, 60.0]) | _positive(0, 200)),
        deadline=draw(_maybe(_positive(1, 1000))),
        tenant=draw(st.sampled_from(["default", "other"])),
    )


@st.composite
def _stages(
    draw: st.DrawFn,
    cluster: Cluster,
    before: list[Stage],
    parents: list[int],
    kind: Kind,
    branches: tuple[Prefix, ...],
) -> tuple[Stage, dict[int, int]]:
    """Draw a stage, and the tokens that it inherits from each parent."""
    id = f"s{len(before)}"
    label = draw(st.sampled_from(["", "x", "y"]))
    none = dict.fromkeys(parents, 0)
    forms = ["model"] * 5 + ["tool"] + ["fixed"] * (2 if kind == "mixed" else 0)
    form = draw(st.sampled_from(forms))
    if form == "tool":
        seconds = draw(st.sampled_from([0.0, 0.5]) | _positive(0, 30))
        return Stage(id=id, label=label, tool_seconds=seconds), none
    names = [device.id for device in cluster.devices]
    if form == "fixed":
        hosts = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
        table = {name: draw(st.sampled_from([0.0, 1.0]) | _positive(0, 60)) for name in hosts}
        return Stage(id=id, label=label, seconds_on=table), none

    limits = _limits(cluster)
    largest = max(limits.values())
    # A chain on one model is what makes inherited contexts hit: children often keep the model.
    inherited = [m for m in (before[parent].model for parent in parents) if m is not None]
    fitting = [name for name in MODELS if _model(name).weight_bytes < 0.98 * largest]
    name = draw(st.sampled_from(inherited * 4 + fitting) if inherited else st.sampled_from(fitting))
    kv = _model(name).kv_bytes_per_token
    room = largest - _model(name).weight_bytes
    budget = _MOST_TOKENS if kv == 0 else min(_MOST_TOKENS, math.floor(0.99 * room / kv))
    share = draw(st.sampled_from([0.3, 0.6, 1.0] if kind == "pressure" else [0.02, 0.1, 0.5]))
    budget = max(1, int(budget * share))

    group = draw(_maybe(st.sampled_from(["g0", "g1", *(branch.group for branch in branches)])))
    prefix = draw(st.integers(0, budget // 2)) if group else 0
    left = budget - prefix
    tokens = dict(none)
    for parent in parents:
        if not before[parent].extends_prefix:
            tokens[parent] = draw(st.just(0) | st.integers(0, left // 3))
            left -= tokens[parent]
    # An empty prefill of several GPUs: tests/validator/test_tensor_parallel.py.
    empty = prefix > 0 and all(device.tensor_parallel == 1 for device in cluster.devices)
    prompt = draw(st.integers(0 if empty else 1, max(1, left // 2)))
    output = draw(st.sampled_from([0, 1]) | st.integers(0, max(0, left - prompt)))
    output = max(0, min(output, left - prompt))
    need = _model(name).weight_bytes + (prefix + prompt + sum(tokens.values()) + output) * kv
    hosts = [device for device, limit in limits.items() if need <= limit]
    allowed = None
    if draw(st.integers(0, 4)) == 0:
        kept = draw(st.lists(st.sampled_from(hosts), unique=True, min_size=1))
        others = [device for device in names if device not in hosts]
        allowed = (*others[:1], *kept)
    queries = draw(st.integers(1, 6) | st.sampled_from([1, 17, 64, 300]))
    extends = group is not None and not any(tokens.values()) and draw(st.booleans())
    return (
        Stage(
            id=id,
            label=label,
            model=name,
            queries=1 if extends else queries,
            extends_prefix=extends,
            prefix_group=group,
            prefix_tokens=prefix,
            prompt_tokens=prompt,
            output_tokens=output,
            allowed_devices=allowed,
        ),
        tokens,
    )


def _limits(cluster: Cluster) -> dict[str, float]:
    """Return the bytes for weights and KV, by device."""
    share = cluster.memory_utilisation or catalog.execution().memory_utilisation
    return {
        device.id: device.tensor_parallel * catalog.gpu(device.gpu).memory_gb * GB * share
        for device in cluster.devices
        if device.gpu
    }


@st.composite
def prefix_branches(draw: st.DrawFn) -> tuple[Prefix, ...]:
    """Draw up to four groups, ``b0`` and so on, that branch off ``g0``, ``g1`` or one another."""
    found: list[Prefix] = []
    for i in range(draw(st.sampled_from([0, 0, 2, 4]))):
        parent = draw(st.sampled_from(["g0", "g1", *(branch.group for branch in found)]))
        shared = draw(st.sampled_from([1, 50, 400]) | st.integers(1, 8000))
        found.append(Prefix(group=f"b{i}", parent=parent, shared_tokens=shared))
    return tuple(found)


@st.composite
def _choices(
    draw: st.DrawFn, stages: Sequence[str], edges: Iterable[Edge]
) -> tuple[list[Choice], list[FanOut]]:
    """Draw branches and fan-outs after some stages, which first get parents."""
    choices: list[Choice] = []
    fan_outs: list[FanOut] = []
    taken: set[str] = set()
    behind: dict[str, set[str]] = {stage: set() for stage in stages}
    for stage in reversed(stages):
        for edge in edges:
            if edge.parent == stage:
                behind[stage] |= {edge.child} | behind[edge.child]
    for stage in stages:
        free = sorted(behind[stage] - taken)
        if not free or draw(st.integers(0, 3)) > 0:
            continue
        chosen = draw(st.lists(st.sampled_from(free), unique=True, min_size=1, max_size=4))
        taken.update(chosen)
        cut = draw(st.integers(0, len(chosen)))
        if draw(st.booleans()):
            share = draw(st.sampled_from([0.5, 0.1, 0.9]))
            options = [(share, chosen[:cut]), (1.0 - share, chosen[cut:])]
            choices.append(
                Choice(
                    after=stage,
                    options=[Branch(probability=p, stages=part) for p, part in options],
                )
            )
        else:
            replicas = [part for part in (chosen[:cut], chosen[cut:]) if part]
            weights = [1.0] if len(replicas) == 1 else [0.5, 0.5]
            fan_outs.append(FanOut(after=stage, replicas=replicas, weights=weights))
    return choices, fan_outs


@st.composite
def failures(draw: st.DrawFn, cluster: Cluster) -> Failures:
    """Draw frequent failures, at random or at given times (whole seconds, to make ties)."""
    if draw(st.booleans()):
        mtbf = draw(st.sampled_from([20.0, 200.0]))
        return Failures(mtbf_s=mtbf, mttr_s=draw(_positive(1, 30)), most=3)
    outages = []
    for device in draw(st.lists(st.sampled_from(cluster.devices), unique=True, min_size=1)):
        time = 0.0
        for _ in range(draw(st.integers(1, 3))):
            time += draw(st.integers(0 if time == 0.0 else 1, 20).map(float) | _positive(0.1, 50))
            seconds = draw(st.integers(1, 9).map(float) | _positive(0.1, 30))
            outages.append(Outage(device=device.id, at=time, seconds=seconds))
            time += seconds
    return Failures(outages=tuple(outages))


def options(cluster: Cluster) -> st.SearchStrategy[Options]:
    """Draw execution options; half of them without uncertainty, most without failures."""
    ways = ({}, {"eager_transfers": True}, {"contention": True})
    return st.builds(
        lambda transfers, **rest: Options(**transfers, **rest),
        transfers=st.sampled_from(ways),
        max_shards=st.integers(1, 4),
        uncertainty=st.sampled_from([0.0, 0.0, 0.2, 1.0]),
        length_uncertainty=st.sampled_from([0.0, 0.0, 0.5]),
        failures=st.none() | st.none() | failures(cluster),
    )


@st.composite
def _classical(draw: st.DrawFn, most: int) -> Problem:
    machines = [f"m{i}" for i in range(draw(st.integers(1, 4)))]
    tasks = [f"t{i}" for i in range(draw(st.integers(1, most)))]
    seconds = {}
    for task in tasks:
        able = draw(st.lists(st.sampled_from(machines), unique=True, min_size=1))
        # Whole numbers make ties, which is where event order goes wrong.
        seconds[task] = {m: draw(st.integers(0, 9).map(float) | _positive(0, 9)) for m in able}
    pairs = [(a, b) for i, a in enumerate(tasks) for b in tasks[i + 1 :]]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=14)) if pairs else []
    edges = {pair: draw(st.integers(0, 9).map(float) | _positive(0, 9)) for pair in chosen}
    # Problem.classical makes the machines that the rows name, in the order of first use.
    named = list(dict.fromkeys(m for row in seconds.values() for m in row))
    links = [(a, b) for i, a in enumerate(named) for b in named[i + 1 :]]
    rates: float | dict[tuple[str, str], float] = draw(st.sampled_from([1.0, 2.0]))
    uneven: bool = draw(st.booleans())
    if links and uneven:
        rates = {pair: draw(_positive(0.1, 10)) for pair in links}
    return Problem.classical(seconds, edges, link_bytes_s=rates)


@st.composite
def problems(draw: st.DrawFn, kind: Kind = "any", *, most: int = 12) -> Problem:
    """Draw valid problems of at most ``most`` stages in 1 to 3 workflows (see `Kind`)."""
    if kind == "any":
        kind = draw(st.sampled_from(["llm", "pressure", "mixed", "classical"]))
    if kind == "classical":
        return draw(_classical(most))
    if kind == "pressure":
        cluster = draw(clusters(gpus=SMALL_GPUS, most=2))
    else:
        cluster = draw(clusters(without_gpu=kind == "mixed"))
    flows: list[Workflow] = []
    branches = draw(prefix_branches())
    left = most
    for i in range(draw(st.integers(1, 3))):
        if left > 0:
            flows.append(
                draw(workflows(cluster, id=f"w{i}", kind=kind, most=left, branches=branches))
            )
            left -= len(flows[-1].stages)
    flows = draw(_turns(flows))
    return Problem.build(
        cluster, flows, id=f"random-{kind}", options=draw(options(cluster)), models=[TINY_MOE]
    )


@st.composite
def _turns(draw: st.DrawFn, flows: Sequence[Workflow]) -> list[Workflow]:
    """Let some of the workflows follow others, in any order of the file."""
    turned = {flow.id: flow for flow in flows}
    order = draw(st.permutations([flow.id for flow in flows]))
    for i, name in enumerate(order):
        session = draw(_maybe(st.sampled_from(["a", "b"])))
        before = draw(_maybe(st.sampled_from(order[:i]))) if i else None
        think = draw(st.sampled_from([0.0, 0.0, 1.5]) | _positive(0, 60)) if before else 0.0
        change = {"session": session, "follows": before, "think_seconds": think}
        turned[name] = turned[name].model_copy(update=change)
    return list(turned.values())


def untied(problem: Problem) -> Problem:
    """Return the problem with workflows that do not follow others."""
    workflows = tuple(apart(workflow) for workflow in problem.workflows)
    return problem.model_copy(update={"workflows": workflows})


def certain(problem: Problem) -> Problem:
    """Return the problem without noise, failures, choices and fan-outs: estimates are exact."""
    options = problem.options.model_copy(
        update={"uncertainty": 0.0, "length_uncertainty": 0.0, "failures": None}
    )
    workflows = tuple(
        workflow.model_copy(update={"choices": (), "fan_outs": ()})
        for workflow in problem.workflows
    )
    return problem.model_copy(update={"options": options, "workflows": workflows})
