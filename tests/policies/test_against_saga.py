"""List schedulers against SAGA's (anrg-saga): independent code, the same makespans.

SAGA 2 has no PEFT; `test_published` and `test_classical` hold ours to the paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fate_gym.problem import Problem
from fate_gym.sim import Simulator, compile_problem
from policies.list_scheduling.offline import plan_workflow
from policies.list_scheduling.policy import ListScheduler, Order
from policies.list_scheduling.rules import NO_PENALTY
from tests.policies.instances import plain_ranks

saga: Any = pytest.importorskip("saga")
heft: Any = pytest.importorskip("saga.schedulers.heft")
minmin: Any = pytest.importorskip("saga.schedulers.minmin")
maxmin: Any = pytest.importorskip("saga.schedulers.maxmin")
sufferage: Any = pytest.importorskip("saga.schedulers.sufferage")
cpop: Any = pytest.importorskip("saga.schedulers.cpop")


class Instance:
    """Related machines: task costs over machine speeds; each pair of machines has its own link."""

    def __init__(self, rng: np.random.Generator, edges: dict[tuple[int, int], float], tasks: int):
        machines = int(rng.integers(2, 6))
        cost = rng.uniform(1, 20, tasks)
        speed = rng.uniform(0.5, 2.0, machines)
        self.links = {
            (i, j): float(rng.uniform(0.2, 5.0)) for j in range(machines) for i in range(j)
        }
        names = [f"m{j}" for j in range(machines)]
        self.problem = Problem.classical(
            {
                f"t{i:03}": {names[j]: float(cost[i] / speed[j]) for j in range(machines)}
                for i in range(tasks)
            },
            {(f"t{a:03}", f"t{b:03}"): size for (a, b), size in edges.items()},
            link_bytes_s={(names[i], names[j]): rate for (i, j), rate in self.links.items()},
        )
        self.network = saga.Network.create(
            nodes=list(zip(names, speed.tolist(), strict=True)),
            edges=[(names[i], names[j], rate) for (i, j), rate in self.links.items()],
        )
        self.graph = saga.TaskGraph.create(
            tasks=[(f"t{i:03}", float(cost[i])) for i in range(tasks)],
            dependencies=[(f"t{a:03}", f"t{b:03}", size) for (a, b), size in edges.items()],
        )


def random_graph(rng: np.random.Generator) -> Instance:
    """Draw a graph in which each task follows one to three earlier ones."""
    tasks = int(rng.integers(5, 30))
    edges = {
        (int(parent), child): float(rng.uniform(1, 20))
        for child in range(1, tasks)
        for parent in rng.choice(child, size=min(child, int(rng.integers(1, 4))), replace=False)
    }
    return Instance(rng, edges, tasks)


@pytest.mark.parametrize("seed", range(16))
def test_heft(seed: int) -> None:
    instance = random_graph(np.random.default_rng(seed))
    machines = len(instance.problem.cluster.devices)
    # SAGA's mean transfer includes the free link of every machine to itself.
    pairs = machines * (machines + 1) / 2
    slowness = sum(1 / rate for rate in instance.links.values()) / pairs
    plan = plan_workflow(
        compile_problem(instance.problem).arrays,
        0,
        plain_ranks(instance.problem, slowness),
        NO_PENALTY,
        available=np.zeros(machines),
        now=0.0,
    )
    theirs = heft.HeftScheduler().schedule(instance.network, instance.graph)
    assert plan.end.max() == pytest.approx(theirs.makespan, rel=1e-9)


@pytest.mark.parametrize("seed", range(16))
def test_cpop(seed: int) -> None:
    """With SAGA's ranks: its downward rank adds the stage's own cost instead of the parent's."""
    instance = random_graph(np.random.default_rng(1000 + seed))
    ranks = cpop.cpop_ranks(instance.network, instance.graph)
    priority = np.array([ranks[stage.id] for stage in instance.problem.workflows[0].stages])
    compiled = compile_problem(instance.problem)
    entries = np.flatnonzero(
        compiled.arrays.stages["parents_from"] == compiled.arrays.stages["parents_to"]
    )
    path = np.isclose(priority, priority[entries].max())
    penalty = np.where(path[:, None], 1e9, np.zeros(compiled.clean_seconds.shape))
    penalty[path, compiled.clean_seconds[path].sum(axis=0).argmin()] = 0.0
    plan = plan_workflow(
        compiled.arrays, 0, priority, penalty, available=np.zeros(penalty.shape[1]), now=0.0
    )
    theirs = cpop.CpopScheduler().schedule(instance.network, instance.graph)
    assert plan.end.max() == pytest.approx(theirs.makespan, rel=1e-9)


SCHEDULERS = {
    "min_min": minmin.MinMinScheduler,
    "max_min": maxmin.MaxMinScheduler,
    "sufferage": sufferage.SufferageScheduler,
}


@pytest.mark.parametrize("seed", range(16))
@pytest.mark.parametrize("order", SCHEDULERS)
def test_renewed_orders(order: Order, seed: int) -> None:
    """On layers, each task needing all of the layer before.

    SAGA takes the tasks in waves, whatever the time; we take those that are ready now. On full
    layers a wave becomes ready as a whole, and the two mean the same.
    """
    rng = np.random.default_rng(seed)
    edges: dict[tuple[int, int], float] = {}
    before: list[int] = []
    tasks = 0
    for size in rng.integers(1, 7, size=int(rng.integers(1, 5))):
        layer = list(range(tasks, tasks + int(size)))
        edges |= {(a, b): float(rng.uniform(1, 20)) for a in before for b in layer}
        before, tasks = layer, tasks + int(size)
    instance = Instance(rng, edges, tasks)
    policy = ListScheduler(name=order, order=order, boosted=False)
    trace = Simulator(instance.problem).run(policy)
    theirs = SCHEDULERS[order]().schedule(instance.network, instance.graph)
    assert trace.makespan == pytest.approx(theirs.makespan, rel=1e-9)
