from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fate_gym.env import Observer, WorkflowSchedulingEnv
from fate_gym.env.options import EnvOptions
from fate_gym.errors import IllegalActionError, InputError
from fate_gym.problem import Problem
from fate_gym.sim import Assignment, DecisionView, Simulator, compile_problem
from fate_gym.validator import assert_valid
from policies import make_policy
from policies.learned.agent import PointerAgent
from policies.learned.checkpoint import NetworkSpec, Sizes, save_checkpoint
from policies.learned.policy import Learned
from tests.policies.learned.problems import (
    OPTIONS,
    random_agent,
    random_weights,
    smoke,
    stream,
    two_speeds,
)


class Noting:
    """Plays at random through an observer, and records observations and actions."""

    name = "noting"

    def __init__(self, options: EnvOptions, seed: int) -> None:
        self.options, self.rng = options, np.random.default_rng(seed)
        self.seen: list[dict[str, Any]] = []
        self.actions: list[int] = []

    def reset(self, view: DecisionView, seed: int) -> None:
        self.observer = Observer(self.options, view.compiled)

    def decide(self, view: DecisionView) -> list[Assignment]:
        seen = self.observer.observe(view)
        self.seen.append({key: value.copy() for key, value in seen.items()})
        self.actions.append(int(self.rng.choice(np.flatnonzero(seen["action_mask"]))))
        assignment = self.observer.take(self.actions[-1])
        return [] if assignment is None else [assignment]


@pytest.mark.parametrize("noise", [0.0, 0.4])
@pytest.mark.parametrize("window", [2, 8])
def test_an_observer_sees_what_the_environment_shows(noise: float, window: int) -> None:
    options = EnvOptions(window=window, max_shards=3, dag=True)
    problem = stream(noise)
    player = Noting(options, seed=window)
    trace = Simulator(problem, seed=5).run(player)
    env = WorkflowSchedulingEnv(problem, **options.model_dump())
    observation, _ = env.reset(seed=5)
    for seen, action in zip(player.seen, player.actions, strict=True):
        assert sorted(seen) == sorted(observation)
        for key, value in seen.items():
            np.testing.assert_array_equal(value, observation[key], err_msg=key)
        observation, _, ended, _, _ = env.step(action)
    assert ended
    assert env.trace().same_schedule(trace)


def test_an_observer_refuses_illegal_actions() -> None:
    compiled = compile_problem(smoke()[0])
    observer = Observer(OPTIONS, compiled)
    observer.observe(Simulator(compiled).view())
    for action in (-1, observer.spec.actions - 1, observer.spec.actions):
        with pytest.raises(IllegalActionError):
            observer.take(action)


@pytest.mark.parametrize("problem", [*smoke(), stream(), stream(0.3), two_speeds()])
def test_even_an_untrained_agent_makes_valid_schedules(problem: Problem) -> None:
    simulator = Simulator(problem)
    policy = Learned.of_agent(random_agent())
    trace = simulator.run(policy, seed=2)
    assert_valid(trace)
    # Nothing is kept from one run to the next, and nothing is left to chance.
    assert simulator.run(policy, seed=2).same_schedule(trace)


def test_sampling_follows_the_seed(tmp_path: Path) -> None:
    policy = make_policy("learned", checkpoint=str(_saved(tmp_path)), sample=True)
    simulator = Simulator(smoke()[0])
    first, again, other = (simulator.run(policy, seed=seed) for seed in (1, 1, 2))
    assert first.same_schedule(again)
    assert not first.same_schedule(other)


def test_looking_ahead_with_all_actions_is_not_behind_heft(tmp_path: Path) -> None:
    folder = str(_saved(tmp_path))
    problem = smoke()[1]
    greedy = Simulator(problem).run(make_policy("learned", checkpoint=folder)).makespan
    ahead = Simulator(problem).run(make_policy("learned", checkpoint=folder, best_of=10_000))
    assert_valid(ahead)
    heft = Simulator(problem).run(make_policy("heft_boosted")).makespan
    assert ahead.makespan <= heft * 1.02 < greedy


def test_nobody_waits_while_nothing_runs() -> None:
    """An agent that likes nothing more than to wait does so only while something runs."""
    weights = random_weights()
    weights["wait_out.bias"] = weights["wait_out.bias"] + np.float32(1e3)
    trace = Simulator(stream()).run(Learned.of_agent(PointerAgent(OPTIONS, weights)))
    assert_valid(trace)
    rows = trace.shards
    for time in np.unique(rows["committed"]):
        # What has not begun or is under way at the moment of a commit that follows a wait.
        assert np.sum((rows["committed"] < time) & (rows["end"] > time)) == 0


def test_a_problem_that_is_too_large_for_a_plain_network(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from policies.learned.networks import make_network

    torch.manual_seed(0)
    positions = 2 + 3 * (OPTIONS.max_shards - 1)
    network = make_network("mlp", slots=4, devices=2, actions=4 * positions + 1, hidden=8)
    save_checkpoint(
        tmp_path,
        {name: value.numpy() for name, value in network.state_dict().items()},
        agent="mlp",
        network=NetworkSpec(kind="mlp", hidden=8),
        env=OPTIONS,
        sizes=Sizes(devices=2, models=3, stages=10, edges=10),
    )
    policy = make_policy("learned", checkpoint=str(tmp_path))
    assert_valid(Simulator(two_speeds()).run(policy))
    with pytest.raises(InputError, match=r"8 devices") as raised:
        Simulator(smoke()[0]).run(policy)
    assert raised.value.remedy is not None
    assert "pointer" in raised.value.remedy


def test_values_cannot_be_sampled(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not probabilities"):
        make_policy("learned", checkpoint=str(_saved(tmp_path, values="q")), sample=True)
    with pytest.raises(InputError, match="best_of"):
        make_policy("learned", checkpoint=str(_saved(tmp_path)), best_of=0)


def _saved(folder: Path, **change: Any) -> Path:
    save_checkpoint(
        folder,
        random_weights(),
        agent="test",
        network=NetworkSpec(kind="pointer", hidden=8),
        env=OPTIONS,
        sizes=Sizes(devices=8, models=4, stages=50, edges=80),
        **change,
    )
    return folder
