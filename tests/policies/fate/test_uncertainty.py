"""Decisions based on drawn futures."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.problem import Cluster, Device, Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.fate.plans.edit import put_first
from policies.fate.rollout.candidates import list_candidates
from policies.fate.rollout.incumbent import Incumbent
from policies.fate.rollout.race import race, value_plan
from policies.fate.rollout.uncertainty import Reach, UncertaintyPlanner, gains
from tests.policies.fate.test_policy import REAL

PLANNERS = ("fate", "fate_rollout")
NOISY = Options(uncertainty=0.4, length_uncertainty=0.5)


def noisy(number: int = 1) -> Problem:
    return REAL[number].model_copy(update={"options": NOISY})


def back_and_forth() -> Problem:
    """Return author, critic, author; the models of both do not fit on one device together."""
    author, critic = "Qwen2.5-14B", "Qwen2.5-32B"
    work = {"queries": 8, "prompt_tokens": 400, "output_tokens": 200}
    stages = [
        Stage(id="write", model=author, **work),
        Stage(id="criticise", model=critic, **work),
        Stage(id="revise", model=author, **work),
    ]
    edges = [Edge(parent="write", child="criticise"), Edge(parent="criticise", child="revise")]
    cluster = Cluster(
        id="two", devices=[Device(id=f"d{i}", gpu="H100-SXM", node="n") for i in range(2)]
    )
    workflow = Workflow(id="w", stages=stages, edges=edges)
    return Problem.build(cluster, [workflow], options=Options(uncertainty=0.3))


@pytest.mark.parametrize("name", PLANNERS)
def test_it_decides_the_same_again(name: str) -> None:
    traces = [Simulator(noisy(), seed=5).run(make_policy(name)) for _ in range(2)]
    assert_valid(traces[0])
    assert np.array_equal(traces[0].shards, traces[1].shards)


@pytest.mark.parametrize("name", PLANNERS)
def test_it_does_not_see_the_luck_of_the_run(name: str) -> None:
    """Before anything has ended all runs of a problem look alike."""
    first = []
    for seed in range(4):
        simulator = Simulator(noisy(), seed=seed)
        policy = make_policy(name)
        policy.reset(simulator.view(), 0)
        first.append(list(policy.decide(simulator.view())))
    assert first[0]
    assert all(decided == first[0] for decided in first)


@pytest.mark.parametrize("name", PLANNERS)
def test_a_critic_does_not_evict_the_author_who_is_to_go_on(name: str) -> None:
    """Both devices are alike but for the author's weights, which `heft_boosted` does not miss."""
    for policy, devices in ((name, 2), ("heft_boosted", 1)):
        trace = Simulator(back_and_forth(), seed=1).run(
            make_policy(policy, **({"max_shards": 1} if policy == name else {}))
        )
        assert_valid(trace)
        assert len(set(trace.shards["device"].tolist())) == devices
        assert (trace.shards["load_s"] > 0).sum() == (2 if policy == name else 3)


def test_plans_that_do_the_same_are_worth_the_same_in_every_future() -> None:
    """Common random numbers: what is compared meets the same luck."""
    view = Simulator(noisy()).view()
    incumbent = Incumbent(view, objective="slowdown", max_shards=2, samples=16)
    incumbent.update(view)
    incumbent.draw()
    c, style = incumbent.context, incumbent.write_base()
    planner = UncertaintyPlanner(view.compiled.arrays, incumbent, Reach(2, 4, 2))
    found, table = planner._found, planner._gains
    list_candidates(c, 2, 4, 1, found)
    before, after = np.empty(16), np.empty(16)
    value_plan(c, style, before)
    assert before.std() > 0.0
    # What the list schedule would do first anyway, put in front of it.
    incumbent.take(c.base)
    started = incumbent.planned()
    same = next(
        row
        for row in range(found.count)
        if found.rows["stage"][row] == started[0].stage
        and found.devices[row, 0] == started[0].devices[0]
    )
    style = incumbent.write_base()
    put_first(c.base, found, same, 0)
    value_plan(c, style, after)
    assert np.array_equal(before, after)
    # A second race in the same futures comes to the same.
    style = incumbent.write_base()
    rows = []
    for _ in range(2):
        list_candidates(c, 2, 4, 1, found)
        rows.append(race(c, style, found, table, 0.0, 10**9))
    assert rows[0] == rows[1]


def test_futures_of_the_next_event_are_others() -> None:
    view = Simulator(noisy()).view()
    incumbent = Incumbent(view, objective="slowdown", max_shards=1, samples=8)
    incumbent.update(view)
    drawn = []
    for _ in range(2):
        incumbent.draw()
        values = np.empty(8)
        value_plan(incumbent.context, incumbent.write_base(), values)
        drawn += values.tolist()
    assert len(set(drawn)) == 16


def test_a_gain_is_one_beyond_doubt() -> None:
    rng = np.random.default_rng(0)
    before = rng.lognormal(size=64)
    noise = rng.normal(size=64)
    assert gains(before, before - 0.01)
    assert not gains(before, before)
    assert not gains(before, before + 0.01)
    assert not gains(before, before + noise - noise.mean() - 0.1)
    assert gains(before, before + noise - noise.mean() - 0.5)
    assert not gains(before, np.full(64, np.inf))


def test_without_futures_nothing_is_changed() -> None:
    trace = Simulator(noisy(), seed=2).run(make_policy("fate_rollout", samples=0))
    assert_valid(trace)
    assert trace.counters["singles_better"] == trace.counters["tunings_better"] == 0
    assert (trace.shards["slot"] == 0).all()
