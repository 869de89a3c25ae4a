from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sb3_contrib")

from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

import fate_gym
from fate_gym.env import WorkflowSchedulingEnv
from fate_gym.lab.training.lanes import Lanes, narrow
from policies.learned.sb3 import CandidateQPolicy, MaskedDQN
from tests.policies.learned.problems import OPTIONS, smoke


def lanes(count: int = 3) -> Lanes:
    return Lanes(
        fate_gym.make_vec(
            count, problem=smoke()[0], autoreset_mode="SameStep", **OPTIONS.model_dump()
        )
    )


def test_lanes_do_what_single_environments_do() -> None:
    env = lanes()
    env.seed(7)
    seen = env.reset()
    singles = [WorkflowSchedulingEnv(smoke()[0], **OPTIONS.model_dump()) for _ in range(3)]
    for i, single in enumerate(singles):
        single.reset(seed=7 + i)
    assert is_masking_supported(env)
    rng = np.random.default_rng(0)
    returns = np.zeros(3)
    finished = 0
    for _ in range(400):
        masks = get_action_masks(env)
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        seen, rewards, ended, infos = env.step(actions)
        for i, single in enumerate(singles):
            observation, reward, over, _, info = single.step(actions[i])
            returns[i] += reward
            assert rewards[i] == np.float32(reward)
            assert ended[i] == over
            shown = infos[i]["terminal_observation"] if over else {k: v[i] for k, v in seen.items()}
            expected = narrow(observation)
            assert all(np.array_equal(shown[key], expected[key]) for key in expected)
            if over:
                assert infos[i]["episode"]["r"] == pytest.approx(returns[i])
                assert infos[i]["metrics"]["makespan"] == info["metrics"]["makespan"]
                returns[i] = 0.0
                finished += 1
                single.reset()
    assert finished > 3
    assert all(space.contains(seen[key][0]) for key, space in env.observation_space.spaces.items())


def test_dqn_never_takes_an_illegal_action() -> None:
    env = lanes()
    model = MaskedDQN(
        CandidateQPolicy,
        env,
        learning_starts=60,
        buffer_size=500,
        batch_size=16,
        target_update_interval=50,
        seed=0,
        policy_kwargs={"network": {"kind": "pointer", "hidden": 8}},
    )
    model.learn(240)
    buffer = model.replay_buffer
    taken = buffer.actions[: buffer.pos, :, 0]
    masks = buffer.observations["action_mask"][: buffer.pos]
    assert np.take_along_axis(masks, taken[..., None], axis=2).all()
    assert len(np.unique(taken)) > 10
