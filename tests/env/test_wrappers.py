"""Wrappers of the environment, ours and Gymnasium's."""

from __future__ import annotations

from typing import Any

import gymnasium
import networkx as nx
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FilterObservation, FlattenObservation, NormalizeReward

import fate_gym
from fate_gym.env import (
    FlatObservation,
    GraphObservation,
    MaskedObservation,
    ReferenceReward,
    WorkflowSchedulingEnv,
)
from fate_gym.env.features import NODES
from fate_gym.errors import InputError
from fate_gym.sim import CompiledProblem, Simulator
from policies import make_policy
from tests.env.episodes import legal_action

GROUPS = ("candidates", "devices", "globals", "invalid_streak", "stages")


def make(**options: Any) -> gymnasium.Env[Any, Any]:
    return gymnasium.make(fate_gym.ENV_ID, **({"problem": "smoke"} | options))


def play_through(env: gymnasium.Env[Any, Any]) -> list[tuple[Any, float]]:
    """Play an episode of random legal actions, as seen through the wrappers."""
    observation, _ = env.reset(seed=4)
    rng = np.random.default_rng(0)
    seen = [(observation, 0.0)]
    ended = False
    while not ended:
        action = legal_action(env.get_wrapper_attr("action_masks")(), rng)
        observation, reward, ended, _, _ = env.step(action)
        assert env.observation_space.contains(observation)
        seen.append((observation, float(reward)))
    return seen


# Gymnasium's checker would rather see environments without wrappers.
wrapped = pytest.mark.filterwarnings("ignore:.*different from the unwrapped version")


@wrapped
@pytest.mark.parametrize("wrapper", [FlatObservation, MaskedObservation])
def test_flat_features_are_the_features(wrapper: type[Any]) -> None:
    check_env(wrapper(make()), skip_render_check=True)
    plain, flattened = play_through(make()), play_through(wrapper(make()))
    for (observation, reward), (flat, other) in zip(plain, flattened, strict=True):
        expected = np.concatenate([observation[key].ravel() for key in GROUPS])
        if isinstance(flat, dict):
            assert np.array_equal(flat["action_mask"], observation["action_mask"])
            assert flat["action_mask"].dtype == np.float32
            flat = flat["observations"]
        assert np.array_equal(flat, expected)
        assert reward == other


def test_gymnasiums_flat_observation_is_ours_with_the_mask() -> None:
    theirs = FlattenObservation(FilterObservation(make(), list(GROUPS)))
    ours = FlatObservation(make())
    for (a, _), (b, _) in zip(play_through(theirs), play_through(ours), strict=True):
        assert np.array_equal(a, b)


def test_candidates_alone() -> None:
    """By Gymnasium's filter or by the option."""
    kept = ["candidates", "invalid_streak", "action_mask"]
    filtered = play_through(FilterObservation(make(), kept))
    asked = play_through(make(observation=("candidates",)))
    for (a, _), (b, _) in zip(filtered, asked, strict=True):
        assert a.keys() == b.keys()
        assert all(np.array_equal(a[key], b[key]) for key in a)


@wrapped
def test_graphs() -> None:
    env = GraphObservation(make(dag=True, problem="agentic_alone", observation=("globals",)))
    check_env(env, skip_render_check=True)
    ready, slot = NODES.index("ready"), NODES.index("slot")
    own = env.unwrapped
    assert isinstance(own, WorkflowSchedulingEnv)
    for observation, _ in play_through(env):
        graph = observation["graph"]
        assert set(observation) == {"graph", "globals", "invalid_streak", "action_mask"}
        (workflow,) = own.compiled.problem.workflows
        assert len(graph.nodes) == len(workflow.stages)
        assert len(graph.edge_links) == len(workflow.edges)
        found = nx.DiGraph(graph.edge_links.tolist())
        names = [stage.id for stage in workflow.stages]
        expected = {(names.index(e.parent), names.index(e.child)) for e in workflow.edges}
        assert set(found.edges) == expected
        shown = graph.nodes[graph.nodes[:, slot] > 0]
        assert (shown[:, ready] == 1).all()


def test_rewards_of_a_reference() -> None:
    """The return is minus the makespan over the reference's."""
    policy = make_policy("heft")

    def reference(compiled: CompiledProblem, seed: int) -> float:
        return Simulator(compiled, record=False).run(policy, seed=seed).makespan

    env = ReferenceReward(make(uncertainty=0.2, reference=reference), reference)
    own = env.unwrapped
    assert isinstance(own, WorkflowSchedulingEnv)
    total = sum(reward for _, reward in play_through(env))
    ratio = own.trace().makespan / reference(own.compiled, own.noise_seed)
    assert total == pytest.approx(-ratio)
    own.reset(seed=4)
    rng = np.random.default_rng(0)
    while True:
        *_, ended, _, info = own.step(legal_action(own.action_masks(), rng))
        if ended:
            break
    assert info["metrics"]["makespan_ratio"] == pytest.approx(ratio)


def test_normalize_reward_of_gymnasium() -> None:
    plain, normal = play_through(make()), play_through(NormalizeReward(make(), gamma=1.0))
    assert any(a != b for (_, a), (_, b) in zip(plain, normal, strict=True))
    assert all((a == 0) == (b == 0) for (_, a), (_, b) in zip(plain, normal, strict=True))


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (lambda: GraphObservation(make()), "dag=True"),
        (lambda: FlatObservation(make(dag=True)), "dag=False"),
        (lambda: FlatObservation(make(observation=())), "show a group"),
        (lambda: MaskedObservation(gymnasium.make("CartPole-v1")), "not that of a fate_gym"),
        (lambda: FlatObservation(FlatObservation(make())), "before others"),
        (
            lambda: ReferenceReward(gymnasium.make("CartPole-v1"), lambda *_: 1.0).reset(),
            "CartPole",
        ),
    ],
)
def test_faults(wrap: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrap()
