"""Plans and how searches use them."""

from __future__ import annotations

import numpy as np
import pytest

from fate_gym.jit import Ints, kernel
from fate_gym.kernel.advance import advance
from fate_gym.problem import Edge, Options, Problem, Stage, Workflow
from fate_gym.sim import Simulator
from fate_gym.workloads import load_cluster
from policies.fate.plans.dispatch import FEW, dispatch, order_ready, renew_order
from policies.fate.plans.edit import FCFS, RANK, plan_by_order
from policies.fate.plans.play import begin_play
from policies.fate.plans.schema import Workspace
from policies.fate.rollout import moves, tuning
from policies.fate.rollout.draws import Weights, draw_move
from policies.fate.rollout.incumbent import Incumbent
from tests.policies.fate.test_policy import REAL


@pytest.mark.parametrize("samples", [0, 3])
def test_valuing_leaves_a_plan_as_it_is(samples: int) -> None:
    """And says the same again. What the play made of it is complete, and worth as much."""
    options = Options(uncertainty=0.3 if samples else 0.0)
    view = Simulator(REAL[1].model_copy(update={"options": options})).view()
    incumbent = Incumbent(view, objective="slowdown", max_shards=4, samples=samples)
    incumbent.update(view)
    incumbent.draw()
    style = incumbent.write_base()
    c = incumbent.context
    before = c.base.buffer.copy()
    value = incumbent.value(c.base, np.inf, style)
    assert np.array_equal(c.base.buffer, before)
    assert incumbent.value(c.base, np.inf, style) == value
    if samples:
        assert np.array_equal(c.played.buffer, before)
    else:
        complete = c.played.copy()
        runs_somewhere = np.isfinite(c.problem.clean_seconds).any(axis=1)
        assert (complete.stages["width"] > 0)[runs_somewhere].all()
        assert incumbent.value(complete, np.inf, style) == pytest.approx(value, rel=1e-12)


def pairs(count: int = 90) -> Problem:
    """Return a workflow of equal first stages, which are all ready, each with a second one."""
    stages = [
        Stage(
            id=f"{part}{i}",
            model="Llama-3.1-8B",
            queries=1,
            prompt_tokens=400 + 100 * (i % 3),
            output_tokens=20,
        )
        for part in ("first", "second")
        for i in range(count)
    ]
    edges = [Edge(parent=f"first{i}", child=f"second{i}", bytes=1e6) for i in range(count)]
    workflow = Workflow(id="pairs", stages=tuple(stages), edges=tuple(edges))
    return Problem.build(load_cluster("mixed_12"), [workflow])


@pytest.mark.parametrize("order", [RANK, FCFS])
def test_the_order_kept_in_a_play_is_that_of_sorting_anew(order: int) -> None:
    view = Simulator(pairs()).view()
    incumbent = Incumbent(view, objective="slowdown", max_shards=4)
    incumbent.update(view)
    style, c = incumbent.write_base(), incumbent.context
    plan_by_order(c, order, c.played)
    c.state.buffer[:] = c.start.buffer
    begin_play(c)
    most, going = 0, True
    while going:
        if c.state.ready_count > 0:
            kept = c.work.order[: renew_order(c.problem, c.state, c.played, c.work)].copy()
            anew = c.work.order[: order_ready(c.state, c.played, c.work)]
            assert np.array_equal(kept, anew)
            most = max(most, anew.size)
            dispatch(c, style)
        going = bool(advance(c.problem, c.state, c.log))
    assert (c.played.stages["width"] > 0).all()
    assert most > FEW


@kernel
def count_moves(ws: Workspace, weights: Weights, counts: Ints) -> None:
    for _ in range(20_000):
        counts[draw_move(ws, weights)] += 1


@pytest.mark.parametrize("weights", [moves.WEIGHTS, tuning.WEIGHTS])
def test_moves_are_made_as_often_as_their_weights_say(weights: Weights) -> None:
    assert sum(weights) == 100
    ws = Workspace.allocate(S=1, D=1, W=1, F=0, TAIL=1, MARKS=0)
    ws.random = 1
    counts = np.zeros(len(weights), np.int64)
    count_moves(ws, weights, counts)
    assert counts / 200 == pytest.approx(weights, abs=1.5)
