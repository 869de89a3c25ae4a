"""The offline search, its stored results, and headroom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fate_gym.metrics.bounds import problem_bounds
from fate_gym.sim import Simulator, compile_problem
from fate_gym.validator import assert_valid
from fate_gym.workloads import build_suite, load_cluster, load_suite
from policies import make_policy
from policies.references.best_known import headroom_captured
from policies.references.kept import Entry, kept_schedule, load_best_known, problem_key
from tests.policies.fate.test_policy import BASES, REAL


def test_more_work_is_never_worse() -> None:
    problem = REAL[1]
    simulator = Simulator(problem)
    last = min(simulator.run(make_policy(base)).makespan for base in BASES)
    for work in (0, 20_000):
        trace = simulator.run(make_policy("best_known", work=work, rounds=1, kept=False))
        assert_valid(trace)
        assert trace.makespan <= last * (1 + 1e-9)
        assert trace.makespan == pytest.approx(trace.counters["best_known_value"])
        last = trace.makespan


def test_the_key_is_of_the_content() -> None:
    a, b = REAL[0], REAL[1]
    assert problem_key(compile_problem(a)) == problem_key(compile_problem(a))
    assert problem_key(compile_problem(a)) != problem_key(compile_problem(b))
    slower = a.model_copy(update={"cluster": a.cluster.model_copy(update={"load_init_s": 9.0})})
    assert problem_key(compile_problem(slower)) != problem_key(compile_problem(a))


def test_entries_are_read_back(tmp_path: Path) -> None:
    entry = Entry(
        problem="p",
        cluster="c",
        makespan=2.0,
        found_by="clairvoyant",
        work=9,
        order=[0],
        devices=[[1]],
    )
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"0123": entry}), encoding="utf-8")
    assert load_best_known(file) == {"0123": entry}
    assert load_best_known(tmp_path / "none.json") == {}


def test_headroom() -> None:
    strongest = {"a": 10.0, "b": 10.0, "c": 10.0, "d": 10.0}
    policy = {"a": 9.0, "b": 10.0, "c": 8.0, "d": 9.99, "e": 1.0}
    best = {"a": 8.0, "b": 9.95, "c": 9.0, "d": 8.0}
    # b has less than 1 % of room; the policy itself is the best known of c; e has no baseline.
    assert headroom_captured(policy, strongest, best) == pytest.approx(
        {"a": 0.5, "c": 1.0, "d": 0.005}
    )


def test_what_is_kept_is_possible_and_better_than_list_scheduling() -> None:
    """By name: digests are of floats, whose last bits may differ between machines."""
    kept: dict[str, list[Entry]] = {}
    for entry in load_best_known().values():
        kept.setdefault(f"{entry['cluster']} {entry['problem']}", []).append(entry)
    assert kept
    spec = load_suite("real_dag_test")
    for cluster in ("mixed_12", "homogeneous_8"):
        for problem in build_suite(spec, load_cluster(cluster), 0):
            compiled = compile_problem(problem)
            for entry in kept.get(f"{cluster} {problem.id}", []):
                heft = Simulator(compiled).run(make_policy("heft_boosted")).makespan
                value = float(kept_schedule(compiled, entry).best.value)
                assert value == pytest.approx(entry["makespan"])
                assert problem_bounds(compiled).makespan * (1 - 1e-6) <= value <= heft * (1 + 1e-6)


@pytest.mark.parametrize("cluster", ["mixed_12", "homogeneous_8"])
def test_kept_schedules_are_of_the_problems_as_they_are_now(cluster: str) -> None:
    """A change that moves their keys would silently replace them by short searches."""
    kept = load_best_known()
    for problem in build_suite(load_suite("real_dag_test"), load_cluster(cluster), seed=0):
        compiled = compile_problem(problem)
        entry = kept[problem_key(compiled)]
        assert (entry["problem"], entry["cluster"]) == (problem.id, cluster)
        makespan = kept_schedule(compiled, entry).best.value - problem.workflows[0].arrival
        assert makespan == pytest.approx(entry["makespan"])
