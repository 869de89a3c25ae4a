"""The rules of the classical schedulers, on cases small enough to compute by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from fate_gym.errors import InputError
from fate_gym.problem import Failures, Outage, Problem
from fate_gym.sim import Simulator, compile_problem
from policies import make_policy
from policies.list_scheduling.offline import Method, method_tables, plan_workflow
from policies.list_scheduling.tables import dynamic_levels
from tests.strategies import problems


def several(*problems: Problem, arrivals: tuple[float, ...] | None = None) -> Problem:
    """Combine the workflows of classical problems, on the machines of the first."""
    workflows = [
        problem.workflows[0].model_copy(
            update={"id": f"w{i}", "arrival": arrivals[i] if arrivals else 0.0}
        )
        for i, problem in enumerate(problems)
    ]
    return problems[0].model_copy(update={"workflows": tuple(workflows)})


def run_order(policy: str, problem: Problem, **params: object) -> list[int]:
    """Return the stages in the order in which they start."""
    rows = Simulator(problem).run(make_policy(policy, **params)).shards
    return [int(stage) for stage in rows["stage"][np.argsort(rows["start"], kind="stable")]]


def test_sufferage_gives_way_to_who_would_lose_most() -> None:
    """t0 loses 1 second on its second-best machine, t1 loses 7: t1 takes the contested machine."""
    problem = Problem.classical({"t0": {"a": 2.0, "b": 3.0}, "t1": {"a": 3.0, "b": 10.0}}, {})
    by_policy = {
        name: Simulator(problem).run(make_policy(name)).makespan
        for name in ("sufferage", "min_min")
    }
    # Min-Min: t0 on a until 2, then t1 on a until 5.
    assert by_policy == {"sufferage": 3.0, "min_min": 5.0}


def test_max_min_starts_with_the_longest() -> None:
    problem = Problem.classical(
        {f"t{i}": {"a": seconds, "b": seconds} for i, seconds in enumerate((2.0, 2.0, 4.0))}, {}
    )
    # Longest first: 4 | 2 + 2. Shortest first: 2 + 4 | 2.
    assert Simulator(problem).run(make_policy("max_min")).makespan == 4.0
    assert Simulator(problem).run(make_policy("min_min")).makespan == 6.0


def test_dynamic_levels() -> None:
    """Medians: head 2, tail 6; the tail's level is 6, the head's 8."""
    problem = compile_problem(
        Problem.classical(
            {"head": {"a": 1.0, "b": 2.0, "c": 9.0}, "tail": {"a": 6.0}}, {("head", "tail"): 5.0}
        )
    )
    priority = np.zeros(2)
    dynamic_levels(problem.arrays, 0, priority)
    # Level plus median, from which the finish is taken.
    assert priority.tolist() == [8.0 + 2.0, 6.0 + 6.0]


def test_dls_weighs_level_against_start() -> None:
    """First the head of the long chain (level 9), although `short` would end first."""
    problem = Problem.classical(
        {"short": {"a": 1.0}, "head": {"a": 2.0}, "tail": {"a": 7.0}}, {("head", "tail"): 0.0}
    )
    assert run_order("dls", problem) == [1, 2, 0]


def test_cpop_keeps_the_critical_path_on_one_machine() -> None:
    """The path x-z takes 10 seconds on b, 12 on a; x alone would be faster on a."""
    seconds = {"x": {"a": 2.0, "b": 4.0}, "y": {"a": 1.0, "b": 1.0}, "z": {"a": 10.0, "b": 6.0}}
    problem = Problem.classical(seconds, {("x", "z"): 1.0, ("x", "y"): 0.0})
    compiled = compile_problem(problem)
    _, penalty = method_tables(compiled.arrays, 0, "cpop")
    assert (penalty > 0).tolist() == [[True, False], [False, False], [True, False]]
    rows = Simulator(problem).run(make_policy("cpop")).shards
    assert dict(zip(rows["stage"].tolist(), rows["device"].tolist(), strict=True))[0] == 1
    assert dict(zip(rows["stage"].tolist(), rows["device"].tolist(), strict=True))[2] == 1


def test_cpop_path_without_a_common_machine() -> None:
    """b hosts one stage of the path as a does, in less time; the other goes where it can."""
    seconds = {"x": {"a": 5.0}, "z": {"b": 4.0}}
    problem = Problem.classical(seconds, {("x", "z"): 1.0})
    compiled = compile_problem(problem)
    _, penalty = method_tables(compiled.arrays, 0, "cpop")
    assert (penalty > 0).tolist() == [[False, False], [True, False]]
    assert Simulator(problem).run(make_policy("cpop")).makespan == 10.0


def test_peft_sees_what_comes_after() -> None:
    """x ends first on a, but y has to run on b behind a transfer of 10."""
    problem = Problem.classical({"x": {"a": 1.0, "b": 2.0}, "y": {"b": 3.0}}, {("x", "y"): 10.0})
    assert Simulator(problem).run(make_policy("heft")).makespan == 14.0
    assert Simulator(problem).run(make_policy("peft")).makespan == 5.0
    assert Simulator(problem).run(make_policy("lookahead_heft")).makespan == 5.0


def test_lookahead_lets_children_compete() -> None:
    """x on a (1 s): y on b until 1 + 4 + 3 = 8, z on c until 1 + 4 + 5 = 10.

    x on c (2.5 s): y on b until 2.5 + 1 + 3 = 6.5, z on c until 7.5. HEFT sees x alone.
    """
    problem = Problem.classical(
        {"x": {"a": 1.0, "c": 2.5}, "y": {"b": 3.0, "c": 5.0}, "z": {"b": 3.0, "c": 5.0}},
        {("x", "y"): 4.0, ("x", "z"): 4.0},
        link_bytes_s={("a", "b"): 1.0, ("a", "c"): 1.0, ("c", "b"): 4.0},
    )
    rows = Simulator(problem).run(make_policy("lookahead_heft")).shards
    assert rows["device"][rows["stage"] == 0].tolist() == [
        [d.id for d in problem.cluster.devices].index("c")
    ]
    assert Simulator(problem).run(make_policy("heft")).makespan == 10.0
    assert Simulator(problem).run(make_policy("lookahead_heft")).makespan == 7.5


def chain(*seconds: float) -> Problem:
    names = [f"t{i}" for i in range(len(seconds))]
    rows = {name: {"m": value} for name, value in zip(names, seconds, strict=True)}
    return Problem.classical(rows, dict.fromkeys(pairwise(names), 0.0))


def bag(*seconds: float) -> Problem:
    return Problem.classical({f"t{i}": {"m": value} for i, value in enumerate(seconds)}, {})


def test_fdws_takes_turns_and_favours_the_nearly_done() -> None:
    """Rounds of one stage a workflow; in a round the smaller (share left) x (critical path)."""
    # Stages 0-2: bag with path 5. Stages 3-4: bag with path 4. All on one machine, eagerly.
    problem = several(bag(5.0, 1.0, 3.0), bag(4.0, 2.0))
    # Round 1: 1.0 x 5 against 1.0 x 4: w1 (its 4), w0 (its 5). Round 2: 2/3 x 5 against 1/2 x 4:
    # w1 (its 2), w0 (its 3). Round 3: w0.
    assert run_order("fdws", problem, lazy=False) == [3, 0, 4, 2, 1]


def test_rank_hybd_shortest_first_across_workflows_longest_first_within() -> None:
    problem = several(bag(5.0, 1.0, 3.0), bag(4.0))
    # Smallest rank while there are two workflows: 1, 3, 4 (the last of w1). Then 5.
    assert run_order("rank_hybd", problem, lazy=False) == [1, 2, 3, 0]
    # Alone: the largest first.
    assert run_order("rank_hybd", bag(5.0, 1.0, 3.0), lazy=False) == [0, 2, 1]


def test_rank_hybd_largest_first_once_one_workflow_is_left() -> None:
    problem = several(bag(5.0, 9.0, 7.0), bag(1.0))
    # 1 belongs to w1; then all is of w0.
    assert run_order("rank_hybd", problem, lazy=False) == [3, 1, 2, 0]


@pytest.mark.parametrize("device", ["critical_path", "optimistic_cost", "look_ahead"])
@pytest.mark.parametrize("change", [{"max_shards": 2}, {"order": "min_min"}])
def test_rules_for_lists_only(device: str, change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="neither shards nor order"):
        make_policy("heft", device=device, **change)


def test_unknown_order() -> None:
    with pytest.raises(InputError, match="did you mean 'upward_rank'"):
        make_policy("heft", order="upwards_rank")


@pytest.mark.parametrize("method", ["cpop", "peft"])
@settings(max_examples=25)
@given(problem=problems(kind="classical"))
def test_offline_plans_are_carried_out(method: Method, problem: Problem) -> None:
    """What is planned with insertion happens to the second."""
    compiled = compile_problem(problem)
    tables = method_tables(compiled.arrays, 0, method)
    available = np.zeros(len(compiled.device_ids))
    plan = plan_workflow(compiled.arrays, 0, *tables, available=available, now=0.0)
    trace = Simulator(compiled).run(make_policy(f"{method}_offline"))
    assert trace.stage_end == pytest.approx(plan.end, rel=1e-9, abs=1e-9)


def test_without_insertion_stages_queue_up() -> None:
    """The gap of `test_insertion_uses_gaps`: b cannot go in front of the child any more."""
    problem = Problem.classical(
        {"a": {"p": 6.0}, "parent": {"q": 1.0}, "child": {"p": 5.0}, "b": {"p": 4.0}},
        {("parent", "child"): 9.0},
    )
    ends = {
        insertion: Simulator(problem).run(make_policy("heft_offline", insertion=insertion)).makespan
        for insertion in (True, False)
    }
    assert ends == {True: 15.0, False: 19.0}


def test_strict_estimates_of_a_device_that_is_down() -> None:
    """Its inputs would come when it is up again, which nobody knows: it ends never, not NaN."""
    problem = Problem.classical({"a": {"p": 1.0}, "b": {"p": 1.0, "q": 5.0}}, {("a", "b"): 3.0})
    outage = Outage(device="p", at=1.0, seconds=29.0)
    options = problem.options.model_copy(update={"failures": Failures(outages=(outage,))})
    simulator = Simulator(problem.model_copy(update={"options": options}))
    for policy in ("heft", "heft_boosted", "lookahead_heft", "peft"):
        trace = simulator.run(make_policy(policy))
        # The input comes from p's host, or lies there still: q is the only one that runs.
        assert trace.shards["device"].tolist() == [0, 1]
