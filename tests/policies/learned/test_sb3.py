"""The parts that replace those of the libraries' learners."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sb3_contrib")

from sb3_contrib import MaskablePPO  # noqa: E402

import fate_gym  # noqa: E402
from fate_gym.env.spec import MASK  # noqa: E402
from fate_gym.lab.training.lanes import Lanes  # noqa: E402
from policies.learned.sb3 import CandidatePolicy  # noqa: E402
from tests.policies.learned.problems import OPTIONS, smoke  # noqa: E402


def model(*, anchored: bool) -> Any:
    envs = fate_gym.make_vec(
        2, problem=smoke()[0], autoreset_mode="SameStep", **OPTIONS.model_dump()
    )
    network = {"kind": "pointer", "hidden": 8, "rounds": 1}
    kwargs = {"network": network, "anchored": anchored}
    return MaskablePPO(
        CandidatePolicy, Lanes(envs), n_steps=8, batch_size=8, seed=0, policy_kwargs=kwargs
    )


def moment(made: Any) -> tuple[dict[str, Any], Any]:
    seen = made.env.reset()
    actions = torch.as_tensor(np.array([row.argmax() for row in seen[MASK]]))
    return {key: torch.as_tensor(value) for key, value in seen.items()}, actions


def test_an_anchored_policy_is_drawn_to_what_was_kept() -> None:
    plain, held = model(anchored=False), model(anchored=True)
    seen, actions = moment(held)
    held.policy.set_anchor()
    values, chances, nearness = held.policy.evaluate_actions(seen, actions, seen[MASK])
    # At the anchor there is no divergence; all else is as without it.
    np.testing.assert_allclose(nearness.detach(), 0.0, atol=1e-6)
    others = plain.policy.evaluate_actions(seen, actions, seen[MASK])
    np.testing.assert_allclose(values.detach(), others[0].flatten().detach()[:, None], rtol=1e-4)
    np.testing.assert_allclose(chances.detach(), others[1].detach(), rtol=1e-4)
    with torch.no_grad():
        held.policy.features_extractor.network.score.weight += 1.0
    _, _, nearness = held.policy.evaluate_actions(seen, actions, seen[MASK])
    assert np.all(nearness.detach().numpy() < 0.0)
    (-nearness.mean()).backward()
    anchor = held.policy._anchor
    assert all(parameter.grad is None for parameter in anchor.parameters())
    # The optimizer has no part of the anchor, and files of the model have.
    learned = {id(p) for group in held.policy.optimizer.param_groups for p in group["params"]}
    assert not learned & {id(p) for p in anchor.parameters()}
    assert any(name.startswith("_anchor.") for name in held.policy.state_dict())


def test_who_is_not_anchored_has_nothing_to_keep() -> None:
    made = model(anchored=False)
    made.policy.set_anchor()
    assert not any(name.startswith("_anchor.") for name in made.policy.state_dict())
