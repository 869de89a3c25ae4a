"""Configuration of an agent: its network and how it is trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fate_gym.lab.config import NAME, Config
from policies.learned.checkpoint import NetworkSpec

Steps = Annotated[int, Field(ge=1, le=10**12)]
Count = Annotated[int, Field(ge=1, le=10**7)]
"""A number of rows, epochs, rounds and the like."""
Lanes = Annotated[int, Field(ge=1, le=10**4)]
Rate = Annotated[float, Field(ge=1e-12, le=1e3)]
"""Learning rate. If it is far too large, the training fails with an error."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
PositiveWeight = Annotated[float, Field(ge=1e-9, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]
Discount = Annotated[float, Field(gt=0, le=1)]


class PpoConfig(Config):
    """Options of MaskablePPO (sb3-contrib)."""

    algorithm: Literal["ppo"] = "ppo"
    steps: Steps = Field(description="decisions, over all lanes")
    lanes: Lanes = Field(64, description="environments that step together")
    rollout: Count = Field(128, description="steps of each lane between two updates")
    batch_size: Count = 2048
    epochs: Count = 3
    learning_rate: Rate = 1e-3
    final_rate: Share = Field(0.05, description="share of it at the end; falls linearly")
    gae_lambda: Share = 0.95
    clip_range: PositiveWeight = 0.2
    entropy: Weight = Field(0.003, description="weight of the entropy bonus")
    value_weight: PositiveWeight = 0.5
    max_grad_norm: PositiveWeight = 0.5
    target_kl: PositiveWeight | None = None
    discount: Discount | None = Field(None, description="a step; none: that of the reward")
    anchor: Weight | None = Field(
        None,
        description="weight of the KL divergence from the imitated policy, in place of the entropy",
    )


class DqnConfig(Config):
    """Options of DQN (Stable-Baselines3) over the legal actions."""

    algorithm: Literal["dqn"]
    steps: Steps
    lanes: Lanes = 16
    buffer_size: Count = 20_000
    learning_starts: Count = 2_000
    batch_size: Count = 256
    learning_rate: Rate = 5e-4
    final_rate: Share = 0.05
    train_freq: Count = Field(4, description="steps of each lane between two updates")
    gradient_steps: Count = 4
    target_update_interval: Count = Field(2_000, description="steps")
    exploration_fraction: float = Field(0.3, gt=0, le=1)
    exploration_final: Share = 0.02
    discount: Discount | None = Field(None, description="a step; none: that of the reward")


class SupervisedConfig(Config):
    """Supervised learning in rounds: label states, then train on them for some epochs."""

    states: Count = Field(description="labelled states, over all rounds")
    rounds: Count = 3
    epochs: Count = Field(6, description="of each round")
    batch_size: Count = 256
    learning_rate: Rate = 1e-3


class ImitationConfig(SupervisedConfig):
    """Behaviour cloning: policies label states, and the network learns their choices.

    In the first round the policies play. In later rounds the learner plays, so that the labelled
    states are those that it reaches itself (DAgger; Ross, Gordon and Bagnell 2011).
    """

    teachers: tuple[str, ...] = Field(
        min_length=1,
        description="policies; problems of each kind are labelled by the one that is best on them",
    )


class ExpertIterationConfig(SupervisedConfig):
    """Expert iteration: the learner plays, and rollouts estimate the cost of each action.

    Labels are soft: the probability of an action falls with its cost (Anthony, Tian and Barber
    2017, with the cost-to-go of AggreVaTe: Ross and Bagnell 2014). See
    `fate_gym.lab.training.labels.RolloutLabeller`. The unit of cost is the time that a workflow
    takes alone (mean over the problem).
    """

    share: float = Field(0.25, gt=0, le=1, description="of the states, that is labelled")
    an_episode: Count = Field(64, description="labelled states, about, at most")
    explore: Share = Field(0.05, description="of the actions, that is random")
    actions: Count = Field(8, description="of a state that are rolled out, beside waiting")
    others: Count = Field(2, description="of these, chosen at random; the learner prefers the rest")
    horizon: PositiveWeight = Field(3.0, description="workflows that arrive later do not count")
    temperature: PositiveWeight = Field(0.02, description="cost that makes an action unlikely")
    kept: Count = Field(4, description="rounds whose states are learned from, the last ones")


class AgentConfig(Config):
    """An agent: its network and how it is trained."""

    name: str = Field(pattern=NAME)
    network: NetworkSpec
    imitation: ImitationConfig | None = None
    iteration: ExpertIterationConfig | None = None
    learning: Annotated[PpoConfig | DqnConfig, Field(discriminator="algorithm")] | None = None
