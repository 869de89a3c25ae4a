"""Workflows of agentic applications from templates: shape × lengths × models.

A template (`fate_gym.catalog.agentic`) describes the calls that an application makes. A tenant's
deployment of it fixes the models of its roles and their system prompts, which are the shared
prefixes; a run fixes the counts that vary, the batch and the lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product

from fate_gym.catalog.agentic import Link, Step, Template
from fate_gym.catalog.roles import ModelCall, Span
from fate_gym.problem import Workflow
from fate_gym.workloads.roles import TypeUse, build_workflow, pick, seeded, whole
from fate_gym.workloads.topology import Topology
from fate_gym.workloads.uncertain import draw_template


def build_template(
    template: Template,
    seed: int,
    *,
    run: int = 0,
    tenant: str = "default",
    arrival: float = 0.0,
    branches: bool = False,
) -> Workflow:
    """Build one run of a template's application, named ``<template>/<tenant>/<run>/s<seed>``.

    With ``branches``, which steps occur and how often is not known beforehand: the problem gives
    the probabilities, see `fate_gym.workloads.uncertain`.

    Models and system prompts depend on (seed, tenant, template); what varies from run to run
    depends on (seed, tenant, template, run). Runs of one tenant share a prefix group for each role.

    Raises:
        InputError: if the seed is negative.
    """
    name = f"{template.name}/{tenant}/{run}"
    at_batch, *at_chances = seeded(seed, name, "/run").random(1 + len(template.chances))
    occurs = dict(zip(template.chances, at_chances, strict=True))
    steps = {
        key: step
        for key, step in template.steps.items()
        if branches or step.when is None or occurs[step.when] < template.chances[step.when]
    }
    topology = _expand(template, name, steps, _counts(steps, seed, name, most=branches))
    deployment = _deploy(template, seed, tenant)
    batch = whole(template.batch, at_batch)
    workflow = build_workflow(
        topology,
        [_use(steps[key], deployment[steps[key].role], batch) for key in topology.type_names],
        seed,
        application=f"{tenant}/{template.name}/{seed}",
        workflow_id=f"{name}/s{seed}",
        arrival=arrival,
        tenant=tenant,
    )
    if not branches:
        return workflow
    stages: dict[str, list[str]] = {}
    for task, key in zip(topology.task_ids, topology.types, strict=True):
        stages.setdefault(key, []).append(task)
    return draw_template(workflow, template, stages)


def _counts(steps: Mapping[str, Step], seed: int, name: str, *, most: bool) -> dict[str, int]:
    """Return the number of parallel chains of each step in this run; with ``most``, at most."""
    counts: dict[str, int] = {}
    for key, step in steps.items():
        if most and isinstance(step.count, Span):
            counts[key] = step.count.high
        elif isinstance(step.count, Span):
            counts[key] = whole(step.count, seeded(seed, name, key, "/count").random())
        else:
            counts[key] = counts[step.count] if isinstance(step.count, str) else step.count
    return counts


def _expand(
    template: Template, name: str, steps: Mapping[str, Step], counts: Mapping[str, int]
) -> Topology:
    """Return the DAG of a run; stages of a step are numbered chain by chain."""
    types: list[str] = []
    edges: list[tuple[int, int]] = []
    first: dict[str, list[int]] = {}
    last: dict[str, list[int]] = {}
    for key, step in steps.items():
        start, chain = len(types), step.chain
        heads = [start + number * chain for number in range(counts[key])]
        first[key], last[key] = heads, [head + chain - 1 for head in heads]
        types += [key] * (counts[key] * chain)
        edges += [(head + i, head + i + 1) for head in heads for i in range(chain - 1)]
        for before, link in step.after.items():
            if before in last:
                edges += _join(last[before], heads, link)
    return Topology.of(template.family, name, types, edges)


def _join(parents: list[int], children: list[int], link: Link) -> Iterator[tuple[int, int]]:
    """Yield the edges between two steps; ``each`` spreads the longer list over the shorter."""
    if link == "all":
        yield from product(parents, children)
        return
    many = max(len(parents), len(children))
    for place in range(many):
        yield parents[place * len(parents) // many], children[place * len(children) // many]


def _deploy(template: Template, seed: int, tenant: str) -> dict[str, TypeUse]:
    """Return model and system prompt of each role, the same in all runs of a tenant."""
    uses: dict[str, TypeUse] = {}
    for name, part in template.roles.items():
        if isinstance(part, ModelCall):
            at_model, at_prefix = seeded(seed, template.name, tenant, name).random(2)
            uses[name] = TypeUse.of(part, pick(part.models, at_model), 1, at_prefix, group=name)
        else:
            uses[name] = TypeUse(part)
    return uses


def _use(step: Step, deployed: TypeUse, batch: int) -> TypeUse:
    return replace(deployed, queries=step.queries * batch if deployed.model is not None else 1)
