"""Measurements of one problem."""

from __future__ import annotations

from fate_gym.lab.jobs.instances import Instance, draw_seed
from fate_gym.lab.jobs.measure import measure
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy


def test_problems_of_one_seed_meet_luck_of_their_own() -> None:
    """And each the same luck whoever plays it."""
    spec = load_suite("uncertain")
    problem, other = build_suite(spec, load_cluster(spec.cluster), 0)[:2]
    noise = [
        measure(Instance(one, 3), make_policy("eft")).trace.shards["noise"][:1].tolist()
        for one in (problem, other)
    ]
    assert noise[0] != noise[1]
    first = measure(Instance(problem, 3), make_policy("eft"))
    again = measure(Instance(problem, 3), make_policy("round_robin"))
    assert first.instance.reference.makespan == again.trace.makespan
    assert len({draw_seed(problem.id, seed) for seed in range(100)}) == 100
