"""Searches for small problems on which one policy loses most against another.

    python scripts/adversarial.py fate peft_boosted -o docs/examples/adversarial/loses_to_peft.json
    python scripts/adversarial.py fate heft --workflows 2 -o worst.json

Simulated annealing over problems, after PISA (Coleman & Krishnamachari, arXiv 2403.07120): change
the lengths, models, prefixes, edges or arrivals of a small problem, and keep changes that raise the
ratio of mean latencies (makespans for one workflow), first policy / second policy.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from fate_gym.metrics.outcome import workflow_outcomes
from fate_gym.problem import Cluster, Device, Edge, Problem, Stage, Workflow, dump_problem
from fate_gym.sim import Simulator, compile_problem
from policies import make_policy
from policies.base import Policy

MODELS = ("Llama-3.1-8B", "Qwen2.5-7B", "Phi-3-mini", "Llama-3.1-70B-AWQ")
CLUSTER = Cluster(
    id="three-kinds",
    devices=(
        Device(id="h100", gpu="H100-SXM", node="a"),
        Device(id="a100", gpu="A100-80", node="b"),
        Device(id="l40s", gpu="L40S", node="c"),
        Device(id="a10g", gpu="A10G", node="c"),
    ),
    network_gb_s=2.8,
)
LATEST = 10.0
"""Latest arrival, seconds."""


def random_stage(rng: np.random.Generator, number: int) -> Stage:
    """Make a stage with token counts typical of agents."""
    group = int(rng.integers(0, 3))
    return Stage(
        id=f"s{number:02}",
        model=MODELS[int(rng.integers(0, len(MODELS)))],
        queries=int(rng.choice([1, 2, 4, 8])),
        prefix_group=f"g{group}",
        prefix_tokens=int(rng.integers(0, 4)) * 500,
        prompt_tokens=int(rng.integers(1, 20)) * 100,
        output_tokens=int(rng.integers(1, 12)) * 40,
    )


def random_workflow(rng: np.random.Generator, number: int, stages: int) -> Workflow:
    """Make a random graph with edges from lower to higher numbers, with a random arrival."""
    nodes = tuple(random_stage(rng, i) for i in range(stages))
    edges = [
        Edge(parent=nodes[int(rng.integers(0, j))].id, child=nodes[j].id, bytes=1e6)
        for j in range(1, stages)
        if rng.random() < 0.8
    ]
    arrival = float(rng.uniform(0.0, LATEST)) if number else 0.0
    return Workflow(id=f"w{number}", stages=nodes, edges=tuple(edges), arrival=arrival)


def build(workflows: list[Workflow]) -> Problem:
    """Make a problem on the fixed cluster."""
    return Problem.build(CLUSTER, workflows, id="adversarial")


def changed(problem: Problem, rng: np.random.Generator) -> Problem:
    """Change one workflow at random: a stage, an edge (added, removed, resized) or its arrival."""
    workflows = list(problem.workflows)
    chosen = int(rng.integers(0, len(workflows)))
    workflow = workflows[chosen]
    stages, edges, arrival = list(workflow.stages), list(workflow.edges), workflow.arrival
    move = rng.random()
    if chosen > 0 and move < 0.2:
        arrival = float(rng.uniform(0.0, LATEST))
    elif move < 0.5:
        number = int(rng.integers(0, len(stages)))
        stages[number] = random_stage(rng, number)
    elif move < 0.7 and edges:
        number = int(rng.integers(0, len(edges)))
        size = float(10.0 ** rng.uniform(4, 10))
        edges[number] = edges[number].model_copy(update={"bytes": size})
    elif move < 0.85 and edges:
        del edges[int(rng.integers(0, len(edges)))]
    else:
        a, b = sorted(rng.choice(len(stages), size=2, replace=False).tolist())
        pairs = {(edge.parent, edge.child) for edge in edges}
        if (stages[a].id, stages[b].id) not in pairs:
            edges.append(Edge(parent=stages[a].id, child=stages[b].id, bytes=1e6))
    workflows[chosen] = workflow.model_copy(
        update={"stages": tuple(stages), "edges": tuple(edges), "arrival": arrival}
    )
    return build(workflows)


def ratio(problem: Problem, first: Policy, second: Policy) -> float:
    """Compute the mean latency of the first policy / that of the second."""
    simulator = Simulator(compile_problem(problem))
    means = []
    for policy in (first, second):
        outcomes = workflow_outcomes(simulator.run(policy))
        means.append(float(np.mean([outcome["latency"] for outcome in outcomes])))
    return means[0] / means[1]


def search(
    first: Policy, second: Policy, *, workflows: int, stages: int, steps: int, seed: int
) -> tuple[Problem, float]:
    """Return the problem with the largest ratio that annealing finds, and the ratio."""
    rng = np.random.default_rng(seed)
    current = build([random_workflow(rng, i, stages // workflows) for i in range(workflows)])
    value = ratio(current, first, second)
    best, best_value = current, value
    for step in range(steps):
        heat = 0.05 * (1.0 - step / steps)
        trial = changed(current, rng)
        found = ratio(trial, first, second)
        if found > value or rng.random() < math.exp((found - value) / max(heat, 1e-9)):
            current, value = trial, found
        if value > best_value:
            best, best_value = current, value
    return best, best_value


def main() -> None:
    """Search from several starts; write the worst problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("first", help="policy that is to lose")
    parser.add_argument("second", help="policy that is to win")
    parser.add_argument("--workflows", type=int, default=1, help="all but the first arrive later")
    parser.add_argument("--stages", type=int, default=12, help="of all workflows together")
    parser.add_argument("--steps", type=int, default=300, help="of each start")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="write the problem as JSON")
    options = parser.parse_args()
    if options.stages < 2 * options.workflows:
        parser.error("--stages: needs at least two a workflow")
    first, second = make_policy(options.first), make_policy(options.second)
    size = {name: getattr(options, name) for name in ("workflows", "stages", "steps")}
    seeds = range(options.seed, options.seed + options.starts)
    found = [search(first, second, seed=seed, **size) for seed in seeds]
    problem, value = max(found, key=lambda pair: pair[1])
    print(f"latency({options.first}) / latency({options.second}) = {value:.4f}")
    if options.output is not None:
        dump_problem(problem, options.output)
        print(f"problem: {options.output}")


if __name__ == "__main__":
    main()
