"""Each lane of the vector environment behaves like a single environment."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import fate_gym
from fate_gym.env import WorkflowSchedulingEnv, WorkflowSchedulingVectorEnv
from fate_gym.errors import IllegalActionError, InputError
from fate_gym.problem import Problem
from tests.env.episodes import legal_action, same
from tests.strategies import problems

MODES = list(AutoresetMode)


def lane(observation: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: value[i] for key, value in observation.items()}


class Singles:
    """Single environments that behave like a batch, in one of the autoreset modes."""

    def __init__(self, envs: list[WorkflowSchedulingEnv], mode: AutoresetMode) -> None:
        self.envs, self.mode = envs, mode
        self.last: list[dict[str, Any]] = [{} for _ in envs]

    def reset(self, i: int, seed: int | None = None) -> dict[str, Any]:
        self.last[i], info = self.envs[i].reset(seed=seed)
        return info

    def step(
        self, i: int, action: int
    ) -> tuple[dict[str, Any], float, tuple[bool, bool], dict[str, Any]]:
        """Return observation, reward, (terminated, truncated), info; at an end, its ``final``."""
        env = self.envs[i]
        if env.ended and self.mode is AutoresetMode.NEXT_STEP:
            info = self.reset(i)
            return self.last[i], 0.0, (False, False), info
        self.last[i], reward, *ended, info = env.step(action)
        if env.ended and self.mode is AutoresetMode.SAME_STEP:
            final = {"obs": self.last[i], "info": info}
            info = self.reset(i) | {"final": final}
        return self.last[i], float(reward), (ended[0], ended[1]), info


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=10)
@given(
    st.lists(problems(most=6), min_size=1, max_size=3),
    st.integers(0, 2**31),
    st.sampled_from(["makespan", "latency", "shaped"]),
    st.booleans(),
)
def test_lanes_are_single_environments(
    mode: AutoresetMode, choice: list[Problem], seed: int, reward: str, dag: bool
) -> None:
    count = 3
    options: dict[str, Any] = {"reward": reward, "window": 3, "dag": dag, "uncertainty": 0.2}
    options["max_invalid_actions"] = 2
    envs = WorkflowSchedulingVectorEnv(count, choice, autoreset_mode=mode, **options)
    singles = Singles([WorkflowSchedulingEnv(choice, **options) for _ in range(count)], mode)
    observation, infos = envs.reset(seed=seed)
    assert envs.observation_space.contains(observation)
    for i in range(count):
        info = singles.reset(i, seed + i)
        assert same(lane(observation, i), singles.last[i])
        assert np.array_equal(infos["action_mask"][i], info["action_mask"])
    rng = np.random.default_rng(seed)
    for _ in range(25):
        masks = envs.action_masks()
        if mode is AutoresetMode.DISABLED:
            over = np.array([env.ended for env in singles.envs])
            if over.any():
                observation, infos = envs.reset(options={"reset_mask": over})
                assert np.array_equal(infos["_time"], over)
                for i in np.flatnonzero(over):
                    singles.reset(int(i))
                for i in range(count):
                    assert same(lane(observation, i), singles.last[i])
                continue
        size = envs.env_spec.actions
        actions = np.array(
            [
                legal_action(m, rng) if rng.random() < 0.8 else rng.integers(-1, size + 1)
                for m in masks
            ]
        )
        observation, rewards, terminated, truncated, infos = envs.step(actions)
        for i, action in enumerate(actions.tolist()):
            expected, reward_i, ended, info = singles.step(i, action)
            assert same(lane(observation, i), expected)
            assert rewards[i] == reward_i
            assert (terminated[i], truncated[i]) == ended
            for key in ("time", "invalid_action"):
                assert infos[key][i] == info[key]
                assert infos[f"_{key}"][i]
            assert np.array_equal(infos["action_mask"][i], info["action_mask"])
            assert np.array_equal(envs.action_masks()[i], singles.envs[i].action_masks())
            if "final" in info:
                assert same(infos["final_obs"][i], info["final"]["obs"])
                assert infos["_final_obs"][i]
                final = info["final"]["info"]
                assert infos["final_info"]["time"][i] == final["time"]
                for name, value in final["metrics"].items():
                    assert infos["final_info"]["metrics"][name][i] == value
            else:
                for name, value in info["metrics"].items():
                    assert infos["metrics"][name][i] == value


def test_both_ways_to_make_one() -> None:
    made = gymnasium.make_vec(
        fate_gym.ENV_ID, 2, vectorization_mode="vector_entry_point", problem="smoke"
    )
    ours = fate_gym.make_vec(2, problem="smoke")
    assert type(made.unwrapped) is type(ours)
    assert made.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert made.observation_space == ours.observation_space
    assert same(made.reset(seed=1)[0], ours.reset(seed=1)[0])


def test_gymnasiums_own_vector_environment_agrees() -> None:
    """Their loop over single environments gives the same numbers, infos included."""
    options: dict[str, Any] = {"problem": "smoke", "max_episode_steps": 25}
    theirs = gymnasium.make_vec(fate_gym.ENV_ID, 3, vectorization_mode="sync", **options)
    ours = gymnasium.make_vec(fate_gym.ENV_ID, 3, **options)
    assert isinstance(ours, WorkflowSchedulingVectorEnv)
    (a, info_a), (b, info_b) = theirs.reset(seed=5), ours.reset(seed=5)
    rng = np.random.default_rng(0)
    cut = 0
    for _ in range(60):
        assert same(dict(a), b)
        assert info_a.keys() == info_b.keys()
        for key, value in info_a.items():
            assert same(value, info_b[key]), key
        actions = np.array([legal_action(m, rng) for m in ours.action_masks()])
        a, *rest_a, info_a = theirs.step(actions)
        b, *rest_b, info_b = ours.step(actions)
        for x, y in zip(rest_a, rest_b, strict=True):
            assert np.array_equal(x, y)
        cut += int(rest_b[2].sum())
    assert cut > 3


def test_what_is_returned_belongs_to_the_caller() -> None:
    envs = fate_gym.make_vec(2, problem="smoke")
    observation, infos = envs.reset(seed=0)
    masks = envs.action_masks()
    for array in (*observation.values(), infos["action_mask"], infos["time"], masks):
        kept = array.copy()
        array[:] = 1
        assert not np.array_equal(kept, array) or (kept == 1).all()
    assert not envs.action_masks().all()
    actions = np.array([legal_action(m, np.random.default_rng(0)) for m in envs.action_masks()])
    kept = {key: value.copy() for key, value in observation.items()}
    envs.step(actions)
    assert same(kept, observation)


def test_copies_go_on_alike() -> None:
    envs = fate_gym.make_vec(3, problem="smoke", uncertainty=0.3)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(10):
        envs.step(np.array([legal_action(m, rng) for m in envs.action_masks()]))
    copies = [copy.deepcopy(envs), pickle.loads(pickle.dumps(envs))]
    for _ in range(60):
        actions = np.array([legal_action(m, rng) for m in envs.action_masks()])
        results = [one.step(actions) for one in (envs, *copies)]
        for other in results[1:]:
            assert same(results[0][0], other[0])
            assert np.array_equal(results[0][1], other[1])


@pytest.mark.parametrize("mode", MODES)
def test_going_back(mode: AutoresetMode) -> None:
    """All that follows is the same: observations, rewards, ends, infos, the next episodes."""
    envs = fate_gym.make_vec(
        3, problem="smoke", uncertainty=0.3, autoreset_mode=mode, max_episode_steps=30
    )
    with pytest.raises(ResetNeeded):
        envs.state()
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        envs.step(np.array([legal_action(m, rng) for m in envs.action_masks()]))
    here, masks = envs.state(), envs.action_masks()
    runs = []
    for go in range(3):
        if go:
            observation, infos = envs.restore(here)
            assert envs.observation_space.contains(observation)
            assert np.array_equal(observation["action_mask"], masks)
            assert np.array_equal(infos["action_mask"], masks)
        rng = np.random.default_rng(1)
        steps = []
        for _ in range(40):
            over = np.zeros(3, np.bool_)
            if steps and mode is AutoresetMode.DISABLED:
                over = steps[-1][2] | steps[-1][3]
            if over.any():
                envs.reset(options={"reset_mask": over})
            steps.append(envs.step(np.array([legal_action(m, rng) for m in envs.action_masks()])))
        runs.append(steps)
        envs.reset(seed=100 + go)
    for steps in runs[1:]:
        for one, other in zip(runs[0], steps, strict=True):
            assert same(one[0], other[0])
            assert all(np.array_equal(x, y) for x, y in zip(one[1:4], other[1:4], strict=True))
            assert np.array_equal(one[4]["time"], other[4]["time"])
    with pytest.raises(InputError, match="other options or lanes"):
        fate_gym.make_vec(2, problem="smoke").restore(here)
    with pytest.raises(InputError, match="other options or lanes"):
        fate_gym.make_vec(3, problem="smoke").restore(here)


def test_problems_can_be_chosen_lane_by_lane() -> None:
    envs = fate_gym.make_vec(2, problem="smoke", autoreset_mode="SameStep")
    assert len(envs.source) >= 2
    first, _ = envs.reset(seed=0, options={"problem": [0, 1]})
    for i in (0, 1):
        env = WorkflowSchedulingEnv("smoke")
        expected, _ = env.reset(seed=i, options={"problem": i})
        assert same(lane(first, i), expected)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"autoreset_mode": "sometimes"}, "autoreset_mode"),
        ({"render_mode": "rgb_array"}, "render_mode"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], field: str | None) -> None:
    with pytest.raises(InputError) as raised:
        fate_gym.make_vec(**({"num_envs": 2, "problem": "smoke"} | arguments))
    assert raised.value.field == field
    assert raised.value.remedy


def test_bad_calls() -> None:
    envs = fate_gym.make_vec(2, problem="smoke", strict=True, autoreset_mode="Disabled")
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros(2, int))
    with pytest.raises(ResetNeeded, match="lane 1"):
        envs.reset(options={"reset_mask": np.array([True, False])})
    envs.reset(seed=[3, 4])
    for actions in (np.zeros(3, int), np.zeros(2), 0):
        with pytest.raises(InputError, match="whole numbers"):
            envs.step(actions)  # type: ignore[arg-type]
    wait = envs.env_spec.actions - 1
    with pytest.raises(IllegalActionError, match="lane 0"):
        envs.step(np.array([wait, wait]))
    for options in (
        {"reset_mask": np.array([1, 0])},
        {"reset_mask": np.zeros(2, bool)},
        {"reset_mask": np.ones(3, bool)},
        {"problem": [0, 1, 2]},
        {"problem": 99},
        {"colour": 1},
    ):
        with pytest.raises(InputError):
            envs.reset(options=options)
    with pytest.raises(InputError, match="3 seeds"):
        envs.reset(seed=[1, 2, 3])
