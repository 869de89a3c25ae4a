"""Agents of Stable-Baselines3 and sb3-contrib whose networks score candidates.

The libraries do the learning. This module has policies that replace their networks by ours, and a
DQN that ignores illegal actions.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.maskable.policies import MaskableMultiInputActorCriticPolicy
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import MultiInputPolicy, QNetwork
from torch import Tensor, nn

from fate_gym.env.spec import MASK
from policies.learned.networks import Kind, make_network

ILLEGAL = -1e9
"""Value of an illegal action: below every return, and still finite."""


class Scorer(BaseFeaturesExtractor):
    """A network as SB3's features extractor: scores and summary, concatenated."""

    def __init__(
        self, observation_space: spaces.Dict, kind: Kind = "pointer", **params: Any
    ) -> None:
        actions = _width(observation_space, MASK)
        network = make_network(
            kind,
            slots=_width(observation_space, "stages"),
            devices=_width(observation_space, "devices"),
            actions=actions,
            **params,
        )
        super().__init__(observation_space, actions + network.hidden)
        self.actions = actions
        self.network = network

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Return (B, A + H) scores and summary."""
        return torch.cat(self.network(observations), dim=1)


class _Split(nn.Module):
    """Splits the features into scores for the actor and the summary for the critic."""

    def __init__(self, actions: int, summary: int) -> None:
        super().__init__()
        self.latent_dim_pi, self.latent_dim_vf = actions, summary
        self._actions = actions

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: Tensor) -> Tensor:
        return features[:, : self._actions]

    def forward_critic(self, features: Tensor) -> Tensor:
        return features[:, self._actions :]


class CandidatePolicy(MaskableMultiInputActorCriticPolicy):
    """MaskablePPO's policy whose logits are the network's scores.

    Args:
        network: parameters of `Scorer`: the kind, and those of the network.
        anchored: replace the entropy in the loss by minus the KL divergence between the policy
            that `set_anchor` has kept and the present one, so that a learner that has imitated
            stays close to what it knows instead of to the uniform policy.
    """

    def __init__(
        self, *args: Any, network: dict[str, Any], anchored: bool = False, **kwargs: Any
    ) -> None:
        kwargs |= {
            "features_extractor_class": Scorer,
            "features_extractor_kwargs": network,
            "ortho_init": False,
        }
        super().__init__(*args, **kwargs)
        self._anchor: Any = None
        if anchored:
            # Made after the optimizer, which must not train it; it is saved with the model.
            self._anchor = copy.deepcopy(self.features_extractor.network).requires_grad_(False)

    def set_anchor(self) -> None:
        """Make the present policy the anchor, if the policy is anchored."""
        if self._anchor is not None:
            network: Any = self.features_extractor.network
            self._anchor.load_state_dict(network.state_dict())

    def evaluate_actions(
        self, obs: Any, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values, log probabilities, and the entropy or its replacement."""
        if self._anchor is None:
            return super().evaluate_actions(obs, actions, action_masks)
        features: Any = self.extract_features(obs)
        scores, summary = self.mlp_extractor(features)
        legal = obs[MASK] > 0.5
        log_probs = scores.masked_fill(~legal, ILLEGAL).log_softmax(1)
        with torch.no_grad():
            kept = self._anchor(obs)[0].masked_fill(~legal, ILLEGAL).log_softmax(1)
        divergence = (kept.exp() * (kept - log_probs)).sum(1)
        chosen = log_probs.gather(1, actions.long().unsqueeze(1)).squeeze(1)
        return self.value_net(summary), chosen, -divergence

    def _build_mlp_extractor(self) -> None:
        scorer: Any = self.features_extractor
        self.mlp_extractor = _Split(scorer.actions, scorer.network.hidden)

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.action_net = nn.Identity()
        self.optimizer = self.optimizer_class(
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )


class CandidateQNetwork(QNetwork):
    """Q-values: state value plus score of the action; `ILLEGAL` for illegal actions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        scorer: Any = self.features_extractor
        self.q_net: Any = nn.Linear(scorer.network.hidden, 1)

    def forward(self, obs: Any) -> Tensor:
        scorer: Any = self.features_extractor
        features = self.extract_features(obs, scorer)
        scores, summary = features[:, : scorer.actions], features[:, scorer.actions :]
        return torch.where(obs[MASK] > 0.5, scores + self.q_net(summary), ILLEGAL)


class CandidateQPolicy(MultiInputPolicy):
    """DQN's policy with a `CandidateQNetwork`; ``network`` as for `CandidatePolicy`."""

    def __init__(self, *args: Any, network: dict[str, Any], **kwargs: Any) -> None:
        kwargs |= {"features_extractor_class": Scorer, "features_extractor_kwargs": network}
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> QNetwork:
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return CandidateQNetwork(**arguments).to(self.device)


class MaskedDQN(DQN):
    """DQN that explores legal actions only."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        """Do as `DQN.predict`, but explore among the legal actions only."""
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if deterministic:
            return actions, state
        chance = _random_legal(self.action_space, observation[MASK])
        explore = self.action_space_rng.random(actions.shape) < self.exploration_rate
        return np.where(explore, chance, actions), state

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        assert isinstance(self._last_obs, dict)
        if self.num_timesteps < learning_starts:
            actions = _random_legal(self.action_space, self._last_obs[MASK])
        else:
            actions, _ = self.predict(self._last_obs, deterministic=False)
        return actions, actions

    @property
    def action_space_rng(self) -> np.random.Generator:
        """The random number generator of exploration, which SB3 seeds."""
        return self.action_space.np_random


def _random_legal(space: Any, mask: NDArray[Any]) -> NDArray[np.int64]:
    draws = space.np_random.random(mask.shape) * (mask > 0)
    return draws.argmax(axis=-1)


def _width(space: spaces.Dict, key: str) -> int:
    shape = space[key].shape
    assert shape is not None
    return int(shape[0])
