"""Agents of Stable-Baselines3 and sb3-contrib whose networks score candidates.

The libraries do the learning. Here stand the policies that put our networks in place of theirs,
and a DQN that never looks at an illegal action.
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
    """A network as SB3's features extractor: scores and summary, side by side."""

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
        """(B, A + H) scores and summary."""
        return torch.cat(self.network(observations), dim=1)


class _Split(nn.Module):
    """Scores for the actor, summary for the critic."""

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
        network: parameters of `Scorer`: kind, and those of the network.
        anchored: what the loss takes for the entropy is minus the KL divergence from the policy
            that `set_anchor` has kept. The entropy is that too, from the uniform policy, but for a
            constant: a learner that has imitated is held to what it knows instead.
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
            # Made last: the optimizer has no part of it, and files of the model have.
            self._anchor = copy.deepcopy(self.features_extractor.network).requires_grad_(False)

    def set_anchor(self) -> None:
        """Keep the policy as it is now."""
        if self._anchor is not None:
            network: Any = self.features_extractor.network
            self._anchor.load_state_dict(network.state_dict())

    def evaluate_actions(
        self, obs: Any, actions: Tensor, action_masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, log probabilities, and entropy or what stands for it, each (B,)."""
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
    """Value of the state plus score of the action; illegal actions are worth `ILLEGAL`."""

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
    """DQN's policy with the network of the candidates; ``network`` as for `CandidatePolicy`."""

    def __init__(self, *args: Any, network: dict[str, Any], **kwargs: Any) -> None:
        kwargs |= {"features_extractor_class": Scorer, "features_extractor_kwargs": network}
        super().__init__(*args, **kwargs)

    def make_q_net(self) -> QNetwork:
        arguments = self._update_features_extractor(self.net_args, features_extractor=None)
        return CandidateQNetwork(**arguments).to(self.device)


class MaskedDQN(DQN):
    """DQN that explores among the legal actions only."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.int64], Any]:
        """As `DQN.predict`; at random among the legal actions with the exploration rate."""
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
        """The random numbers of exploration; SB3 seeds them with the rest."""
        return self.action_space.np_random


def _random_legal(space: Any, mask: NDArray[Any]) -> NDArray[np.int64]:
    draws = space.np_random.random(mask.shape) * (mask > 0)
    return draws.argmax(axis=-1)


def _width(space: spaces.Dict, key: str) -> int:
    shape = space[key].shape
    assert shape is not None
    return int(shape[0])
