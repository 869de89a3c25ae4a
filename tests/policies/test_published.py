"""Published schedules, replayed; and tiny problems whose optimum is found by enumeration."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings

from fate_gym.problem import Problem, Workflow
from fate_gym.sim import Simulator, compile_problem
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.list_scheduling.offline import method_tables
from tests.policies.instances import ARABNEJAD, TOPCUOGLU, Gantt, Published, Replay, gantt
from tests.strategies import problems

# Topcuoglu et al. 2002: the example of section 4.
HEFT: Gantt = [
    [(2, 27, 40), (8, 57, 62)],
    [(4, 18, 26), (6, 26, 42), (9, 56, 68), (10, 73, 80)],
    [(1, 0, 9), (3, 9, 28), (5, 28, 38), (7, 38, 49)],
]
# The same with CPOP.
CPOP: Gantt = [
    [(3, 28, 39), (7, 39, 46)],
    [(1, 0, 16), (2, 16, 35), (5, 35, 48), (9, 65, 77), (10, 79, 86)],
    [(4, 25, 42), (6, 42, 51), (8, 54, 68)],
]
# Arabnejad & Barbosa 2014: the example of section 4.
PEFT: Gantt = [
    [(1, 0, 22), (4, 22, 29), (2, 29, 51), (3, 51, 83), (7, 83, 97)],
    [(6, 29, 46), (8, 54, 77), (10, 106, 122)],
    [(5, 35, 70), (9, 81, 89)],
]


def test_ranks_of_topcuoglu() -> None:
    """The table of ranks in section 4 of the paper."""
    stages = compile_problem(TOPCUOGLU.problem).arrays.stages
    assert stages["upward_rank"] == pytest.approx(
        [108.0, 77.0, 80.0, 80.0, 69.0, 63.333, 42.667, 35.667, 44.333, 14.667], abs=5e-4
    )
    assert stages["downward_rank"] == pytest.approx(
        [0.0, 31.0, 25.0, 22.0, 24.0, 27.0, 62.333, 66.667, 63.667, 93.333], abs=5e-4
    )


@pytest.mark.parametrize(
    ("policy", "example", "makespan"),
    [
        ("heft_offline", TOPCUOGLU, 80.0),
        ("heft_offline", ARABNEJAD, 133.0),
        ("cpop_offline", TOPCUOGLU, 86.0),
        ("peft_offline", ARABNEJAD, 122.0),
    ],
)
def test_published_makespans(policy: str, example: Published, makespan: float) -> None:
    trace = Simulator(example.problem).run(make_policy(policy))
    assert_valid(trace)
    assert trace.makespan == pytest.approx(makespan, rel=1e-12)


@pytest.mark.parametrize(
    ("policy", "example", "chart"),
    [("heft_offline", TOPCUOGLU, HEFT), ("cpop_offline", TOPCUOGLU, CPOP),
     ("peft_offline", ARABNEJAD, PEFT)],
)  # fmt: skip
def test_published_schedules(policy: str, example: Published, chart: Gantt) -> None:
    assert gantt(Simulator(example.problem).run(make_policy(policy))) == chart


def test_optimistic_costs_of_arabnejad() -> None:
    """By hand from equations 6 and 7."""
    problem = compile_problem(ARABNEJAD.problem)
    ranks, table = method_tables(problem.arrays, 0, "peft")
    assert table.tolist() == [
        [64, 68, 86], [42, 39, 42], [27, 41, 43], [42, 39, 50], [28, 37, 28],
        [42, 39, 44], [13, 16, 22], [13, 16, 33], [13, 16, 20], [0, 0, 0],
    ]  # fmt: skip
    assert ranks == pytest.approx(table.mean(axis=1))


@pytest.mark.parametrize(
    ("example", "chart"),
    [(TOPCUOGLU, HEFT), (TOPCUOGLU, CPOP), (ARABNEJAD, PEFT)],
    ids=["heft", "cpop", "peft"],
)
def test_published_schedules_replay_to_the_second(example: Published, chart: Gantt) -> None:
    queues = [[task - 1 for task, _, _ in row] for row in chart]
    trace = Simulator(example.problem).run(Replay(queues))
    assert_valid(trace)
    assert gantt(trace) == chart


def optimum(workflow: Workflow, machines: list[str]) -> tuple[float, list[list[int]]]:
    """Find by enumeration the shortest makespan with links of 1 byte/s, and the machines' queues.

    It tries all topological orders and all assignments, with each stage after the earlier ones of
    its machine: some schedule of that kind is optimal.
    """
    number = {stage.id: i for i, stage in enumerate(workflow.stages)}
    seconds = [
        [(stage.seconds_on or {}).get(machine, math.inf) for machine in machines]
        for stage in workflow.stages
    ]
    parents: list[list[tuple[int, float]]] = [[] for _ in workflow.stages]
    for edge in workflow.edges:
        parents[number[edge.child]].append((number[edge.parent], edge.bytes))
    best, queues = math.inf, [[0]]

    def extend(last: float, ends: dict[int, float], free: list[float], taken: list[int]) -> None:
        nonlocal best, queues
        if last >= best:
            return
        if len(ends) == len(number):
            best = last
            # `ends` remembers the order in which stages were placed.
            queues = [[s for s in ends if taken[s] == m] for m in range(len(machines))]
            return
        for s in range(len(number)):
            if s in ends or any(parent not in ends for parent, _ in parents[s]):
                continue
            for m in range(len(machines)):
                data = max((ends[p] + (taken[p] != m) * c for p, c in parents[s]), default=0.0)
                end = max(data, free[m]) + seconds[s][m]
                if end < best:
                    placed = [*taken[:s], m, *taken[s + 1 :]]
                    later = [*free[:m], end, *free[m + 1 :]]
                    extend(max(last, end), ends | {s: end}, later, placed)

    extend(0.0, {}, [0.0] * len(machines), [0] * len(number))
    return best, queues


@settings(max_examples=40)
@given(problems(kind="classical", most=5))
def test_no_policy_beats_the_optimum_and_its_replay_reaches_it(problem: Problem) -> None:
    (workflow,) = problem.workflows
    machines = [device.id for device in problem.cluster.devices]
    # One link speed for all: the communication seconds are the bytes.
    flat = Problem.classical(
        {stage.id: stage.seconds_on or {} for stage in workflow.stages},
        {(edge.parent, edge.child): edge.bytes for edge in workflow.edges},
    )
    best, queues = optimum(flat.workflows[0], machines)
    simulator = Simulator(flat)
    replayed = simulator.run(Replay(queues))
    assert_valid(replayed)
    assert replayed.makespan == pytest.approx(best, rel=1e-12)
    for name in ("heft_offline", "heft", "min_min", "eft", "round_robin", "fate"):
        assert simulator.run(make_policy(name)).makespan >= best * (1 - 1e-12), name


def test_heft_misses_an_optimum_that_enumeration_finds() -> None:
    """The greedy choice of the first task costs more than it saves."""
    tempting = Problem.classical(
        {"a": {"p": 1.0, "q": 2.0}, "b": {"p": 9.0, "q": 1.0}}, {("a", "b"): 10.0}
    )
    best, queues = optimum(tempting.workflows[0], ["p", "q"])
    assert (best, queues) == (3.0, [[], [0, 1]])
    assert Simulator(tempting).run(make_policy("heft_offline")).makespan == 10.0


def test_the_enumeration_agrees_with_a_formula() -> None:
    """Independent tasks on equal machines: the best partition of the sum."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        sizes = rng.integers(1, 20, 5).tolist()
        problem = Problem.classical(
            {f"t{i}": {"p": float(size), "q": float(size)} for i, size in enumerate(sizes)}, {}
        )
        best, _ = optimum(problem.workflows[0], ["p", "q"])
        splits = itertools.product([0, 1], repeat=5)
        loads = [sum(size for size, side in zip(sizes, split, strict=True) if side)
                 for split in splits]  # fmt: skip
        assert best == min(max(load, sum(sizes) - load) for load in loads)
