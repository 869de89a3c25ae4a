"""Shapes that are hard to schedule: synthetic DAGs with attributes from the role table.

Each shape is a function of its size and returns a graph whose task types are names of roles, so
that shapes differ in the graph and not in the lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from fate_gym.catalog.roles import Role, role_rules, roles
from fate_gym.errors import InputError, check_known
from fate_gym.problem import Workflow
from fate_gym.workloads.roles import TypeUse, build_workflow, pick, seeded, whole
from fate_gym.workloads.topology import Topology

Graph = tuple[list[str], list[tuple[int, int]]]

_FORK = 8
_STEPS = ("extract", "summarise", "code", "judge")
_LARGE = {"judge": "Llama-3.1-70B-AWQ"}


def chain(size: int) -> Graph:
    """Return a deep chain that cycles through four roles."""
    return [_STEPS[i % len(_STEPS)] for i in range(size)], [(i, i + 1) for i in range(size - 1)]


def fan_out(size: int) -> Graph:
    """Return one plan, followed by all other stages at once."""
    return ["plan"] + ["summarise"] * (size - 1), [(0, i) for i in range(1, size)]


def fork_join(size: int) -> Graph:
    """Return repetitions of a plan, eight extractions and a judgement."""
    types: list[str] = []
    edges: list[tuple[int, int]] = []
    while len(types) < size:
        start = len(types)
        if start:
            edges.append((start - 1, start))
        types += ["plan", *["extract"] * _FORK, "judge"]
        edges += [(start, start + 1 + i) for i in range(_FORK)]
        edges += [(start + 1 + i, start + 1 + _FORK) for i in range(_FORK)]
    return types, edges


def in_tree(size: int) -> Graph:
    """Return a binary tree of summaries from the leaves to one report."""
    leaves = (size + 1) // 2
    total = 2 * leaves - 1
    types = ["extract"] * leaves + ["summarise"] * (leaves - 2) + ["write"] * (leaves > 1)
    return types, [(i, leaves + i // 2) for i in range(total - 1)]


def bottleneck(size: int) -> Graph:
    """Return many short chains that all pass through a model that few devices can host."""
    many = max(1, size // 3)
    edges = [(i, many + i) for i in range(many)] + [(many + i, 2 * many + i) for i in range(many)]
    return ["extract"] * many + ["judge"] * many + ["answer"] * many, edges


def scarce(size: int) -> Graph:
    """Return as many stages that need a large device as can run anywhere, then a report."""
    many = max(1, (size - 1) // 2)
    types = ["summarise"] * many + ["judge"] * many + ["write"]
    return types, [(i, 2 * many) for i in range(2 * many)]


def layered(size: int) -> Graph:
    """Return a square of layers; every stage has two parents in the layer before."""
    width = max(1, math.isqrt(size))
    types = [_STEPS[i // width % len(_STEPS)] for i in range(size)]
    edges = []
    for stage in range(width, size):
        above = stage // width * width - width
        edges += sorted({(above + (stage + i) % width, stage) for i in range(2)})
    return types, edges


SHAPES: dict[str, tuple[Callable[[int], Graph], Mapping[str, str]]] = {
    "chain": (chain, {}),
    "fan_out": (fan_out, {}),
    "fork_join": (fork_join, {}),
    "in_tree": (in_tree, {}),
    "bottleneck": (bottleneck, _LARGE),
    "scarce": (scarce, _LARGE | {"summarise": "Llama-3.1-8B"}),
    "layered": (layered, {}),
}
"""Each shape with the models that it fixes."""


def build_shape(shape: str, size: int, seed: int) -> Workflow:
    """Build a workflow of a shape with about ``size`` stages, named ``<shape>-<size>/s<seed>``.

    Raises:
        InputError: for an unknown shape, or a size below 3.
    """
    check_known("unknown shape", shape, SHAPES, field="shapes")
    if size < 3:
        raise InputError(f"a size of {size}", field="sizes", remedy="use 3 or more")
    graph, fixed = SHAPES[shape]
    types, edges = graph(size)
    name = f"{shape}-{size}"
    topology = Topology.of(shape, name, types, edges)
    return build_workflow(
        topology,
        [
            _use(roles()[kind], types.count(kind), fixed, seed, shape)
            for kind in topology.type_names
        ],
        seed,
        application=f"default/{shape}/{seed}",
        workflow_id=f"{name}/s{seed}",
    )


def _use(role: Role, count: int, fixed: Mapping[str, str], seed: int, shape: str) -> TypeUse:
    at_model, at_queries, at_prefix = seeded(seed, shape, role.name).random(3)
    most = max(1, role_rules().queries_per_type // count)
    model = fixed.get(role.name) or pick(role.models, at_model)
    return TypeUse.of(role, model, min(whole(role.queries, at_queries), most), at_prefix, role.name)
