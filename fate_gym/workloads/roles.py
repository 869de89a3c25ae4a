"""Assign the attributes of an LLM application to the tasks of a real topology.

Each task type of a workflow draws a role from the role table (`fate_gym.catalog.roles`) by its
position in the DAG. All tasks of a type share role, model, queries and prefix; lengths vary from
task to task. See docs/workloads.md.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fate_gym import catalog
from fate_gym.catalog.limits import MOST_SEED
from fate_gym.catalog.roles import (
    Lengths,
    ModelCall,
    Position,
    Role,
    Rules,
    Span,
    Tool,
    ToolCall,
    role_rules,
    roles,
    tools,
)
from fate_gym.errors import InputError
from fate_gym.problem import Edge, Stage, Workflow
from fate_gym.workloads.topology import Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TypeUse:
    """What a task type does in one workflow. A tool has no model and one query.

    ``group`` names the prefix within its application; types of one group share it.
    """

    part: ModelCall | ToolCall
    model: str | None = None
    queries: int = 1
    prefix_tokens: int = 0
    group: str = ""

    @classmethod
    def of(cls, part: ModelCall, model: str, queries: int, at_prefix: float, group: str) -> TypeUse:
        """Return a model call with the prefix length at the share ``at_prefix`` of its span."""
        prefix = whole(part.prefix, at_prefix) if part.prefix else 0
        return cls(part, model, queries, prefix, group)


def assign_roles(
    topology: Topology,
    seed: int,
    *,
    arrival: float = 0.0,
    workflow_id: str | None = None,
    tenant: str = "default",
    most_models: int | None = None,
) -> Workflow:
    """Return a workflow with the topology's DAG and modelled attributes.

    Roles depend on (seed, family, task type), so that workflows of one family and seed are runs of
    one application; with the same tenant they share their prefix groups. Lengths depend on
    (seed, topology). The result is the same in every process.

    Args:
        topology: the typed DAG.
        seed: seed of roles and lengths.
        arrival: seconds.
        workflow_id: name of the workflow; None: made from the topology and the seed.
        tenant: owner of the workflow.
        most_models: limit the application to this many models, see `keep_models`; None: as drawn.

    Raises:
        InputError: the seed is negative or too large.
    """
    uses = draw_uses(topology, seed)
    return build_workflow(
        topology,
        uses if most_models is None else keep_models(uses, most_models),
        seed,
        application=f"{tenant}/{topology.family}/{seed}",
        arrival=arrival,
        workflow_id=workflow_id or f"{topology.name}/s{seed}",
        tenant=tenant,
    )


def build_workflow(
    topology: Topology,
    uses: Sequence[TypeUse],
    seed: int,
    *,
    application: str,
    workflow_id: str,
    arrival: float = 0.0,
    tenant: str = "default",
) -> Workflow:
    """Build a workflow from a topology and what each of its types does; lengths are drawn.

    Args:
        topology: the typed DAG.
        uses: one for each of ``topology.type_names``.
        seed: seed of the lengths, together with the topology's family and name.
        application: name within which workflows share prefix groups.
        workflow_id: name of the workflow.
        arrival: seconds.
        tenant: owner of the workflow.
    """
    draws = _draw_lengths(topology, uses, seed)
    inherited, payload = _draw_edges(topology, uses, draws, role_rules())
    return Workflow(
        id=workflow_id,
        stages=_stages(topology, uses, draws, inherited, application),
        edges=edges_of(topology, payload.tolist(), inherited.tolist()),
        arrival=arrival,
        tenant=tenant,
        family=topology.family,
    )


def edges_of(
    topology: Topology, sizes: Sequence[float], inherited_tokens: Sequence[int]
) -> tuple[Edge, ...]:
    """Return the topology's edges with their bytes and inherited tokens."""
    ids = topology.task_ids
    return tuple(
        Edge(parent=ids[parent], child=ids[child], bytes=size, inherited_tokens=tokens)
        for (parent, child), size, tokens in zip(
            topology.edges.tolist(), sizes, inherited_tokens, strict=True
        )
    )


def positions(topology: Topology) -> tuple[Position, ...]:
    """Return the position in the DAG of each type of ``topology.type_names``."""
    counts = np.bincount(topology.type_of)
    fan_in = np.bincount(topology.type_of, topology.fan_in) / counts
    fan_out = np.bincount(topology.type_of, topology.fan_out) / counts
    found: list[Position] = []
    for parents, children in zip(fan_in.tolist(), fan_out.tolist(), strict=True):
        if parents == 0:
            found.append("source")
        elif children == 0:
            found.append("sink")
        else:
            found.append("merge" if parents >= role_rules().merge_fan_in else "middle")
    return tuple(found)


def draw_uses(topology: Topology, seed: int) -> tuple[TypeUse, ...]:
    """Draw what each type of ``topology.type_names`` does: role, model, queries and prefix."""
    rules = role_rules()
    places = positions(topology)
    counts = np.bincount(topology.type_of).tolist()
    parents = _parent_types(topology)
    chosen_tools = _draw_tools(topology, places, seed, rules)
    uses: list[TypeUse] = []
    for number, name in enumerate(topology.type_names):
        if number in chosen_tools:
            uses.append(TypeUse(chosen_tools[number]))
            continue
        at_role, at_model, at_queries, at_prefix = seeded(seed, topology.family, name).random(4)
        wide = counts[number] > rules.wide_tasks
        candidates = {
            role.name: models
            for role in roles().values()
            if (models := _models(role, rules.wide_params_b if wide else math.inf))
        }
        place = places[number]
        role = roles()[pick({key: roles()[key].positions[place] for key in candidates}, at_role)]
        # A type's parents come before it in `type_names` unless levels overlap.
        before = [uses[parent] for parent in parents[number] if parent < number]
        weights = _model_weights(candidates[role.name], uses, before, rules)
        most = max(1, rules.queries_per_type // counts[number])
        queries = min(whole(role.queries, at_queries), most)
        model = pick(weights, at_model)
        uses.append(TypeUse.of(role, model, queries, at_prefix, f"{name}/{role.name}"))
    return tuple(uses)


def keep_models(uses: Sequence[TypeUse], most: int) -> tuple[TypeUse, ...]:
    """Return the same uses on at most ``most`` models.

    The models that most task types use are kept, ties to the first. Models that only embed or
    transcribe come last, since they cannot stand in for one that writes. A type of another model
    gets the kept model whose number of parameters is nearest, as a ratio. Roles, queries, prefixes
    and lengths stay.

    Args:
        uses: what each task type does, from `draw_uses`.
        most: 1 or more.
    """
    counts = Counter(use.model for use in uses if use.model is not None)
    writing = {use.model for use in uses if isinstance(use.part, ModelCall) and use.part.inherits}
    kept = sorted(counts, key=lambda model: (model not in writing, -counts[model]))[:most]
    sizes = {model: math.log(catalog.model(model).params_b) for model in counts}
    nearest = {
        model: min(kept, key=lambda other: abs(sizes[other] - sizes[model])) for model in counts
    }
    return tuple(
        use if use.model is None else replace(use, model=nearest[use.model]) for use in uses
    )


def _parent_types(topology: Topology) -> list[list[int]]:
    pairs = np.unique(topology.type_of[topology.edges], axis=0)
    parents: list[list[int]] = [[] for _ in topology.type_names]
    for parent, child in pairs.tolist():
        parents[child].append(parent)
    return parents


def _draw_tools(
    topology: Topology, places: Sequence[Position], seed: int, rules: Rules
) -> dict[int, Tool]:
    """Draw the types that are tools: at most one in ``types_per_tool``, so never all."""
    kinds = len(places)
    generator = seeded(seed, topology.family, "/tools")
    drawn: dict[int, Tool] = {}
    for _ in range(kinds // rules.types_per_tool):
        taken, which, kind = generator.random(3)
        number = int(which * kinds)
        weights = {tool.name: tool.positions[places[number]] for tool in tools().values()}
        if taken < rules.tool_share and sum(weights.values()) > 0:
            drawn[number] = tools()[pick(weights, kind)]
    return drawn


def _models(role: Role, most_params_b: float) -> dict[str, float]:
    """Return the models of a role that are small enough, with their weights."""
    sizes = catalog.models()
    return {m: w for m, w in role.models.items() if sizes[m].params_b <= most_params_b}


def _model_weights(
    models: Mapping[str, float], uses: Sequence[TypeUse], parents: Sequence[TypeUse], rules: Rules
) -> dict[str, float]:
    """Return weights that favour models already used by the application or the session."""
    used = {use.model for use in uses}
    sessions = {use.model for use in parents if use.part.edge.kind == "kv"}
    return {
        model: weight
        * (rules.session_reuse if model in sessions else rules.model_reuse if model in used else 1)
        for model, weight in models.items()
    }


@dataclass(frozen=True)
class _Draws:
    """What varies from task to task; each of shape (tasks,)."""

    prompt: Ints  # tokens
    output: Ints  # tokens
    payload: Floats  # bytes of media or artefacts
    seconds: Floats  # of tools


def _draw_lengths(topology: Topology, uses: Sequence[TypeUse], seed: int) -> _Draws:
    normal = seeded(seed, topology.family, topology.name, "/lengths").standard_normal(
        (4, len(topology))
    )
    kind = topology.type_of
    parts = [use.part for use in uses]
    prompts = [part.prompt if isinstance(part, ModelCall) else None for part in parts]
    seconds = [part.seconds if isinstance(part, ToolCall) else None for part in parts]
    queries = np.array([use.queries for use in uses])[kind]
    megabytes = _sample([part.edge.mb for part in parts], kind, normal[2])
    return _Draws(
        prompt=_sample(prompts, kind, normal[0]).round().astype(np.int64),
        output=_sample([part.output for part in parts], kind, normal[1]).round().astype(np.int64),
        payload=(megabytes * 1e6 * queries).round(),
        seconds=_sample(seconds, kind, normal[3]).round(3),
    )


def _draw_edges(
    topology: Topology, uses: Sequence[TypeUse], draws: _Draws, rules: Rules
) -> tuple[Ints, Floats]:
    """Draw the inherited tokens and bytes of every edge, each of shape (edges,)."""
    kind = topology.type_of
    parent, child = topology.edges[:, 0], topology.edges[:, 1]
    parent_type, child_type = kind[parent], kind[child]
    models = {use.model: number for number, use in enumerate(uses)}
    model = np.array([models[use.model] for use in uses])
    queries = np.array([use.queries for use in uses])
    inherits = np.array([isinstance(use.part, ModelCall) and use.part.inherits for use in uses])
    session = np.array([use.part.edge.kind == "kv" for use in uses])
    kv_bytes = np.array(
        [catalog.model(use.model).kv_bytes_per_token if use.model else 0.0 for use in uses]
    )

    # A child with fewer queries than its parent gathers several outputs in each query.
    continues = session[parent_type] & (model[parent_type] == model[child_type])
    gathered = -(-queries[parent_type] // queries[child_type])
    tokens = draws.output[parent] + np.where(continues, draws.prompt[parent], 0)
    tokens = np.where(inherits[child_type], tokens * gathered, 0)
    total = np.bincount(child, tokens, minlength=len(topology))
    share = np.minimum(1.0, rules.inherited_tokens / np.maximum(total, 1))
    tokens = np.floor(tokens * share[child]).astype(np.int64)

    fan_out = topology.fan_out[parent]
    text = rules.text_bytes_per_token * draws.output[parent] * queries[parent_type]
    payload = draws.payload[parent] / np.where(fan_out > rules.scatter_fan_out, fan_out, 1)
    contexts = np.minimum(queries[parent_type], queries[child_type])
    context = np.where(continues, tokens * contexts * kv_bytes[parent_type], 0.0)
    return tokens, np.round(text + payload + context)


def _stages(
    topology: Topology,
    uses: Sequence[TypeUse],
    draws: _Draws,
    inherited: Ints,
    application: str,
) -> tuple[Stage, ...]:
    kind = topology.type_of
    prefix = np.array([use.prefix_tokens for use in uses])[kind]
    context = np.bincount(topology.edges[:, 1], inherited, minlength=len(topology)).astype(np.int64)
    room = role_rules().context_tokens - prefix - context - draws.output
    prompt = np.clip(draws.prompt, 1, np.maximum(room, 1))
    groups = [f"{application}/{use.group}" if use.prefix_tokens else None for use in uses]
    stages = []
    for i, (name, number) in enumerate(zip(topology.task_ids, kind.tolist(), strict=True)):
        use = uses[number]
        label = f"{topology.type_names[number]}/{use.part.name}"
        if use.model is None:
            stages.append(Stage(id=name, label=label, tool_seconds=float(draws.seconds[i])))
            continue
        stages.append(
            Stage(
                id=name,
                label=label,
                model=use.model,
                queries=use.queries,
                prefix_group=groups[number],
                prefix_tokens=use.prefix_tokens,
                prompt_tokens=int(prompt[i]),
                output_tokens=int(draws.output[i]),
            )
        )
    return tuple(stages)


def seeded(seed: int, *names: str) -> np.random.Generator:
    """Return a generator that depends on the seed and the names alone, in every process.

    Raises:
        InputError: the seed is negative, or larger than `MOST_SEED`.
    """
    if seed < 0:
        raise InputError("the seed is negative", field="seed", remedy="use 0 or more")
    if seed > MOST_SEED:
        raise InputError("the seed is too large", field="seed", remedy=f"use {MOST_SEED} or less")
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def pick(weights: Mapping[str, float], at: float) -> str:
    """Return the name at the share ``at`` of the cumulative weights, ``0 <= at < 1``."""
    left = at * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    # Rounding can leave a remainder of zero.
    return max(weights, key=lambda name: weights[name])


def whole(span: Span, at: float) -> int:
    """Return the whole number at the share ``at`` of a log-uniform span."""
    low, high = math.log(span.low), math.log(span.high + 1)
    return min(span.high, int(math.exp(low + at * (high - low))))


def _sample(by_type: Sequence[Lengths | None], kind: Ints, normal: Floats) -> Floats:
    """Return lognormal values per task from standard normal ones; 0 for types without lengths."""
    rows = [
        (math.log(row.p50), row.sigma, row.min, row.max) if row else (0.0, 0.0, 0.0, 0.0)
        for row in by_type
    ]
    mu, sigma, low, high = np.array(rows).T[:, kind]
    values: Floats = np.clip(np.exp(mu + sigma * normal), low, high)
    return values
