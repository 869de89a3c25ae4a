"""The second search: sequences, their values, and foresight."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fate_gym.problem import (
    Branch,
    Choice,
    Cluster,
    Device,
    Edge,
    Failures,
    Options,
    Outage,
    Problem,
    Stage,
    Workflow,
)
from fate_gym.sim import Simulator, compile_problem
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.references.best_known import BestKnown
from policies.references.clairvoyant import Clairvoyant
from policies.references.kept import entry_of, kept_schedule, load_best_known, problem_key
from policies.references.sequences import (
    new_search,
    placements,
    play,
    write_placements,
    write_trace,
)
from tests.kernel.batching.test_engine import batching
from tests.policies.fate.test_policy import REAL
from tests.policies.instances import TOPCUOGLU
from tests.policies.references.test_oracle import exhaustive, unsharded
from tests.strategies import problems

SEEDS = st.integers(0, 2**32)
LITTLE = 5_000


@settings(max_examples=15)
@given(problems(), SEEDS, st.booleans())
def test_what_the_search_promises_comes_true(problem: Problem, seed: int, batch: bool) -> None:
    """With noise, lengths, choices, failures and turns to come, on both devices."""
    if batch:
        tokens = sum(stage.output_tokens for w in problem.workflows for stage in w.stages)
        problem = batching(problem) if tokens <= 6000 else problem
    trace = Simulator(problem).run(Clairvoyant(work=LITTLE), seed=seed)
    assert_valid(trace)
    assert trace.makespan == pytest.approx(trace.counters["clairvoyant_value"])


@settings(max_examples=15)
@given(problems(kind="mixed"), SEEDS)
def test_it_is_never_behind_its_first_population(problem: Problem, seed: int) -> None:
    """Of certain problems: a lost stage goes elsewhere in a run than in its sequence."""
    options = problem.options.model_copy(update={"failures": None})
    simulator = Simulator(problem.model_copy(update={"options": options}))
    reached = simulator.run(Clairvoyant(work=LITTLE), seed=seed).makespan
    for name in ("heft_boosted", "least_loaded"):
        compiled = simulator.compiled
        c, _ = new_search(compiled.arrays, 1, seed)
        write_trace(compiled.arrays, simulator.run(make_policy(name), seed=seed), c.best)
        first = compiled.arrays.workflows["arrival"][compiled.follows < 0].min()
        assert reached <= (play(c, c.best, np.inf) - first) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_nobody_waits_for_a_place_behind_what_vanishes(seed: int) -> None:
    """Whether b or c lives is drawn; d comes behind c, and a turn behind all of them."""
    seconds = {"m": 1.0}
    names = ("a", "b", "c", "d")
    first = Workflow(
        id="first",
        stages=tuple(Stage(id=name, seconds_on=seconds) for name in names),
        edges=tuple(Edge(parent=x, child=y) for x, y in (("a", "b"), ("a", "c"), ("c", "d"))),
        choices=(
            Choice(
                after="a",
                options=(
                    Branch(probability=0.5, stages=("b",)),
                    Branch(probability=0.5, stages=("c",)),
                ),
            ),
        ),
    )
    turn = Workflow(id="turn", stages=(Stage(id="e", seconds_on=seconds),), follows="first")
    cluster = Cluster(id="one", devices=(Device(id="m", gpu="A10G", node="n"),))
    problem = Problem.build(cluster, [first, turn])
    trace = Simulator(problem).run(Clairvoyant(work=LITTLE), seed=seed)
    assert trace.makespan == trace.counters["clairvoyant_value"] == 4.0


@pytest.mark.parametrize("seed", range(4))
def test_a_stage_that_vanishes_is_in_no_queue(seed: int) -> None:
    """It would hold up those behind it until it is known that it vanishes: c starts at once."""
    workflow = Workflow(
        id="w",
        stages=tuple(
            Stage(id=name, seconds_on={device: 1.0}) for name, device in ("am", "bn", "cn")
        ),
        edges=(Edge(parent="a", child="b"),),
        choices=(
            Choice(
                after="a",
                options=(
                    Branch(probability=0.5, stages=("b",)),
                    Branch(probability=0.5, stages=()),
                ),
            ),
        ),
    )
    devices = tuple(Device(id=name, gpu="A10G", node=name) for name in "mn")
    problem = Problem.build(Cluster(id="two", devices=devices), [workflow])
    trace = Simulator(problem).run(Clairvoyant(work=LITTLE), seed=seed)
    lives = len(trace.shards) == 3
    assert trace.makespan == trace.counters["clairvoyant_value"] == (2.0 if lives else 1.0)


@pytest.mark.parametrize("ids", ["abc", "bac", "cab", "cba"])
def test_lost_stages_come_back_in_the_order_of_the_sequence(ids: str) -> None:
    """m fails with a and b on it; c, on n, comes after a."""
    on = {"a": {"m": 1.0}, "b": {"m": 1.0}, "c": {"n": 2.0}}
    workflow = Workflow(
        id="w",
        stages=tuple(Stage(id=name, seconds_on=on[name]) for name in ids),
        edges=(Edge(parent="a", child="c"),),
    )
    cluster = Cluster(
        id="two", devices=tuple(Device(id=name, gpu="A10G", node=name) for name in "mn")
    )
    outage = Outage(device="m", at=0.5, seconds=1.0)
    options = Options(failures=Failures(outages=(outage,)))
    problem = Problem.build(cluster, [workflow], options=options)
    compiled = compile_problem(problem)
    c, (one,) = new_search(compiled.arrays, 1, seed=0)
    a, b, last = (ids.index(name) for name in "abc")
    write_placements(compiled.arrays, [a, b, last], [[0], [0], [1]], one)
    assert play(c, one, np.inf) == pytest.approx(1.5 + 1.0 + 2.0)
    write_placements(compiled.arrays, [b, a, last], [[0], [0], [1]], one)
    assert play(c, one, np.inf) == pytest.approx(1.5 + 2.0 + 2.0)


def test_a_device_may_wait_for_a_stage_that_is_not_ready() -> None:
    """For b after a second, although c is ready at once: a list schedule starts c."""
    problem = Problem.classical(
        {"a": {"m": 9.0, "n": 1.0}, "b": {"m": 4.0}, "c": {"m": 5.0, "n": 50.0}, "d": {"n": 6.0}},
        {("a", "b"): 0.0, ("b", "d"): 0.0},
    )
    simulator = Simulator(problem)
    assert simulator.run(make_policy("heft_boosted")).makespan == pytest.approx(15)
    assert simulator.run(Clairvoyant(work=LITTLE)).makespan == pytest.approx(11)


@settings(max_examples=8)
@given(problems(kind="classical", most=3))
def test_small_problems_are_solved(problem: Problem) -> None:
    problem = unsharded(problem)
    if problem.options.failures or len(problem.cluster.devices) > 3:
        return
    least = exhaustive(problem)
    assert Simulator(problem).run(Clairvoyant(work=20_000)).makespan == pytest.approx(least)


def test_the_published_example() -> None:
    """73 is the optimum of Topcuoglu's example (tests of the oracle prove it); HEFT has 80."""
    trace = Simulator(TOPCUOGLU.problem).run(Clairvoyant(work=400_000))
    assert trace.makespan == pytest.approx(OPTIMUM)


OPTIMUM = 73.0


def test_a_problem_of_tools_alone_has_nothing_to_search() -> None:
    problem = Problem.classical({"t": {"m": 1.0}}, {})
    stage = Stage(id="t", tool_seconds=2.0)
    workflow = problem.workflows[0].model_copy(update={"stages": (stage,)})
    alone = problem.model_copy(update={"workflows": (workflow,)})
    assert Simulator(alone).run(Clairvoyant(work=LITTLE)).makespan == 2.0


def test_it_repeats_and_heeds_its_own_seed() -> None:
    simulator = Simulator(REAL[1])
    runs = [simulator.run(Clairvoyant(work=30_000, seed=seed)) for seed in (0, 0, 1)]
    assert runs[0].same_schedule(runs[1])
    assert not runs[0].same_schedule(runs[2])


def test_more_work_is_seldom_wasted() -> None:
    simulator = Simulator(REAL[1])
    little, much = (simulator.run(Clairvoyant(work=work)).makespan for work in (2_000, 200_000))
    assert much <= little


def test_foresight_is_worth_something() -> None:
    """On an uncertain problem it knows what a blind plan of the same search cannot."""
    options = REAL[1].options.model_copy(update={"uncertainty": 0.5})
    problem = REAL[1].model_copy(update={"options": options})
    simulator = Simulator(problem)
    blind = [simulator.run(make_policy("heft_boosted"), seed=s).makespan for s in range(3)]
    knowing = [simulator.run(Clairvoyant(work=30_000), seed=s).makespan for s in range(3)]
    assert np.mean(knowing) < 0.9 * np.mean(blind)


# --- what is kept ----------------------------------------------------------------------------


@settings(max_examples=10)
@given(problems())
def test_a_sequence_survives_being_written_down(problem: Problem) -> None:
    compiled = compile_problem(problem)
    c, _ = new_search(compiled.arrays, 1, 0)
    write_trace(compiled.arrays, Simulator(compiled).run(make_policy("heft_sharded")), c.best)
    value = play(c, c.best, np.inf)
    order, devices = json.loads(json.dumps(placements(c.best)))
    write_placements(compiled.arrays, order, devices, c.child)
    assert play(c, c.child, np.inf) == value


def test_what_is_kept_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_problem(REAL[1])
    simulator = Simulator(compiled)
    entry = entry_of(compiled, simulator.run(Clairvoyant(work=30_000)), work=30_000)
    assert (entry["found_by"], entry["work"]) == ("clairvoyant", 30_000)
    assert kept_schedule(compiled, entry).best.value == pytest.approx(entry["makespan"])
    file = tmp_path / "best.json"
    file.write_text(json.dumps({problem_key(compiled): entry}), encoding="utf-8")
    kept = load_best_known(file)
    monkeypatch.setattr("policies.references.best_known.load_best_known", lambda: kept)
    trace = simulator.run(BestKnown(work=0, rounds=1))
    assert_valid(trace)
    assert trace.makespan == pytest.approx(entry["makespan"])
    assert trace.counters["best_known_kept"] == 1.0
    searched = simulator.run(BestKnown(work=0, rounds=1, kept=False))
    assert "best_known_kept" not in searched.counters
    assert not searched.same_schedule(trace)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_kept_order_is_the_order_on_the_device(order: tuple[int, ...]) -> None:
    problem = Problem.classical({f"t{i}": {"m": 1.0 + i} for i in range(3)}, {})
    compiled = compile_problem(problem)
    c, _ = new_search(compiled.arrays, 1, 0)
    write_placements(compiled.arrays, order, [[0]] * 3, c.best)
    assert play(c, c.best, np.inf) == 6.0
    ends = c.state.stages["end"]
    assert np.argsort(ends).tolist() == list(order)
