from __future__ import annotations

import numpy as np
import pytest

from fate_gym.env.features import CANDIDATES, DEVICES, GLOBALS, STAGES
from fate_gym.errors import InputError
from policies.learned.agent import PointerAgent
from tests.policies.learned.problems import (
    OPTIONS,
    observations,
    random_agent,
    random_weights,
    smoke,
    stream,
)


def test_illegal_actions_have_no_score() -> None:
    agent = random_agent()
    for seen in observations(stream()):
        scores = agent.scores(seen)
        legal = seen["action_mask"] > 0
        assert np.isfinite(scores[legal]).all()
        assert (scores[~legal] == -np.inf).all()


def test_the_order_of_slots_and_devices_does_not_matter() -> None:
    agent = random_agent()
    rng = np.random.default_rng(1)
    told_apart = 0
    for seen in observations(stream()):
        slots, devices = seen["stages"].shape[0], seen["devices"].shape[0]
        rows = seen["candidates"].reshape(slots, -1, seen["candidates"].shape[1])
        mask = seen["action_mask"][:-1].reshape(slots, -1)
        slot, device = rng.permutation(slots), rng.permutation(devices)
        position = np.concatenate([device, np.arange(devices, rows.shape[1])])
        moved = seen | {
            "stages": seen["stages"][slot],
            "devices": seen["devices"][device],
            "candidates": rows[slot][:, position].reshape(seen["candidates"].shape),
            "action_mask": np.append(mask[slot][:, position], seen["action_mask"][-1:]),
        }
        before, after = agent.scores(seen), agent.scores(moved)
        expected = before[:-1].reshape(slots, -1)[slot][:, position].reshape(-1)
        np.testing.assert_allclose(after[:-1], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(after[-1], before[-1], rtol=1e-4, atol=1e-5)
        finite = before[np.isfinite(before)]
        told_apart += finite.size > 1 and float(np.ptp(finite)) > 1e-3
    assert told_apart > 6  # the network does look


@pytest.mark.parametrize("options", [{"window": 1}, {"window": 9, "max_shards": 4}])
def test_one_network_for_every_size(options: dict[str, int]) -> None:
    agent = random_agent()
    for seen in observations(smoke()[0], **options):
        scores = agent.scores(seen)
        assert scores.shape == seen["action_mask"].shape
        assert np.isfinite(scores[seen["action_mask"] > 0]).all()


def test_empty_slots_and_the_columns_of_single_models_do_not_matter() -> None:
    agent = random_agent()
    small = observations(smoke()[0])
    large = observations(smoke()[0], max_models=20, max_devices=11)
    for a, b in zip(small, large, strict=True):
        slots = a["stages"].shape[0]
        first = agent.scores(a)[:-1].reshape(slots, -1)
        second = agent.scores(b)[:-1].reshape(slots, -1)
        devices = a["devices"].shape[0]
        # Device d is position d in both; what comes after moves by the room that is empty.
        np.testing.assert_allclose(second[:, :devices], first[:, :devices], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(second[:, 11:], first[:, devices:], rtol=1e-5, atol=1e-6)


def test_features_without_weights_are_not_looked_at() -> None:
    """To the last bit: what a matrix product adds up in which order depends on its size."""
    weights = random_weights()
    unread = {
        "device_in.weight": (DEVICES, "devices", ["occupancy", "waiting"]),
        "candidate_in.weight": (CANDIDATES, "candidates", ["delay", "admits"]),
        "context_in.weight": (GLOBALS, "globals", ["batching"]),
    }
    for name, (group, _, features) in unread.items():
        weights[name][:, [group.index(feature) for feature in features]] = 0.0
    agent = PointerAgent(OPTIONS, weights)
    for seen in observations(stream()):
        other = {key: value.copy() for key, value in seen.items()}
        for group, key, features in unread.values():
            for feature in features:
                other[key][..., group.index(feature)] = 0.7
        np.testing.assert_array_equal(agent.scores(other), agent.scores(seen))


def test_a_batch_is_scored_like_its_observations() -> None:
    agent = random_agent()
    seen = observations(stream())
    batch = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
    together = agent.scores(batch)
    assert np.array_equal(together, np.stack([agent.scores(one) for one in seen]))


@pytest.mark.parametrize("name", ["score.weight", "from_slot.1.weight", "stage_in.bias"])
def test_weights_of_another_network(name: str) -> None:
    weights = random_weights()
    for broken in (
        {key: value for key, value in weights.items() if key != name},
        weights | {name: weights[name][..., :-1]},
    ):
        with pytest.raises(InputError, match="not those of the network") as raised:
            PointerAgent(OPTIONS, broken)
        assert raised.value.remedy


def test_names_of_features_that_the_network_relies_on() -> None:
    assert STAGES.index("present") == DEVICES.index("present") == 0
